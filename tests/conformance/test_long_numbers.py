"""Which columns of a warehouse's table hold numbers that DOUBLE would round. On every warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.flows.learning import long_there
from tests.conformance.warehouses import MAKERS, NOW, part

KINDS = (("id", "BIGINT"), ("least", "BIGINT"), ("short", "BIGINT"), ("name", "VARCHAR"), ("empty", "BIGINT"))


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_the_columns_with_long_numbers(kind: str, tmp_path: Path) -> None:
    """Beyond 2 ** 53 on either side; columns and tables that are not there, or of another type, have none."""
    names = [*(name for name, _ in KINDS), "none"]
    rows: dict[str, Sequence[Any]] = {
        "id": [1, 2**53 + 1],
        "least": [-(2**53) - 1, 1],
        "short": [2**53, -(2**53)],
        "name": ["z" * 20, "1"],
        "empty": [None, None],
    }
    with MAKERS[kind](tmp_path) as bench:
        assert long_there(names, "sales", bench.warehouse) == set()
        bench.warehouse.load("sales", KINDS, [part("a.csv", rows)], token=1, run="r", now=NOW)
        assert long_there(names, "sales", bench.warehouse) == {"id", "least"}
        assert long_there(["none"], "sales", bench.warehouse) == set()
