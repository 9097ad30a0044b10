"""The ledger: the durable record of every object and its state, and the only truth about what is new."""

from penstock.ledger.store import Ledger

__all__ = ["Ledger"]
