"""The flows: what a deployment's run does."""
