"""`python -m bench`: how fast penstock is, every figure a ratio against something that was measured in the same run."""
