"""Automations as code: declared on Prefect's own models, applied by name."""
