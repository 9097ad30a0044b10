"""Alembic's scripts; `ledger/database.py` runs them."""
