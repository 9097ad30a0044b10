"""The outbox: what carries the ledger's events and wake-ups to Prefect."""
