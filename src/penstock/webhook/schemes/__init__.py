"""The signature schemes, one module for each kind; `webhook/verify.py` chooses."""
