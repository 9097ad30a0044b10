"""The ledger: the durable record of every object and its state, and the only truth about what is new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.ledger.store import Ledger

__all__ = ["Ledger"]


def __getattr__(name: str) -> Any:
    # SQLAlchemy's import takes its time, and who asks for states or decisions needs none.
    if name != "Ledger":
        raise AttributeError(f"module 'penstock.ledger' has no attribute {name!r}")
    from penstock.ledger.store import Ledger

    return Ledger
