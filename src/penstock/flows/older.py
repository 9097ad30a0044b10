"""The older generations whose rows an object's take the place of, where a dataset replaces what is overwritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.ledger import Ledger
from penstock.model import ObjectRef, Outcome, State, object_name
from penstock.warehouse.base import Warehouse

# How many older generations of a key are asked for in the warehouse, besides those that the ledger calls loaded.
_GENERATIONS = 100


class Older:
    """What each object of a batch replaces; nothing until `find` has looked."""

    def __init__(self, refs: Sequence[ObjectRef]) -> None:
        self._refs = refs
        self._replaces: dict[int, list[ObjectRef]] = {}
        self._stale: dict[int, set[str]] = {}

    def find(self, ledger: Ledger, warehouse: Warehouse) -> None:
        """What the ledger calls loaded, what comes with this batch, and what a run left in the warehouse that died
        before it told the ledger (the markers say so).
        """
        self._replaces = {ref_id: list(found) for ref_id, found in ledger.work.older(self._refs).items()}
        names: dict[int, list[str]] = {}
        for ref in self._refs:
            if ref.entry or ref.generation == 1:
                continue
            self._replaces.setdefault(ref.id, []).extend(
                old
                for old in self._refs
                if not old.entry and (old.bucket, old.key) == (ref.bucket, ref.key) and old.generation < ref.generation
            )
            oldest = max(1, ref.generation - _GENERATIONS)
            names[ref.id] = [object_name(ref.bucket, ref.key, number) for number in range(oldest, ref.generation)]
        there = warehouse.markers([name for found in names.values() for name in found]) if names else set()
        self._stale = {ref_id: there & set(found) for ref_id, found in names.items()}

    def names(self, ref: ObjectRef) -> tuple[str, ...]:
        """The names of what an object replaces."""
        names = {old.name for old in self._replaces.get(ref.id, [])} | self._stale.get(ref.id, set())
        return tuple(sorted(names))

    def loaded_before(self, ref_id: int, outcomes: Mapping[int, Outcome]) -> list[ObjectRef]:
        """Of what an object replaces, that which is loaded for the ledger, before this batch or by `outcomes`."""
        return [old for old in self._replaces.get(ref_id, []) if self._was_loaded(old, outcomes)]

    def _was_loaded(self, old: ObjectRef, outcomes: Mapping[int, Outcome]) -> bool:
        if all(old.id != ref.id for ref in self._refs):
            return True
        outcome = outcomes.get(old.id)
        return outcome is not None and outcome.state is State.LOADED
