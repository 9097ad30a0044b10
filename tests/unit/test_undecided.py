"""No type is guessed of a column by which rows are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock import formats
from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.flows.judging import judge_all
from penstock.flows.reading import Reader
from penstock.model import Schema, State

MERGED: dict[str, Any] = {"write": "merge", "key": ("id",), "order_by": "v"}


def state_of(folder: Path, name: str, content: str, schemas: dict[str, Schema] | None = None, **more: Any) -> State:
    (folder / name).write_text(content)
    reader = Reader(
        {1: (folder / name, name)},
        dataset=Dataset(name="sales", **more),
        remembered=(schemas or {}).get,
        others=lambda: schemas or {},
        progress=lambda: None,
    )
    return judge_all(reader.read(1)).state


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (MERGED, "order_by"),
        (MERGED | {"derive": {"o": "v"}, "order_by": "o"}, "order_by"),
        (MERGED | {"derive": {"n": "v", "o": "upper(n)"}, "order_by": "o", "select": ("id", "o")}, "order_by"),
        (MERGED | {"order_by": None, "key": ("id", "v")}, "key"),
        ({"write": "replace_partition", "partitions": ("v",)}, "partitions"),
    ],
    ids=["order-by", "derived", "derived-twice", "key", "partitions"],
)
def test_it_waits_for_one_with_values(tmp_path: Path, more: dict[str, Any], what: str) -> None:
    """The first object is refused, and the reason says which column's type would help."""
    with pytest.raises(Unreadable, match=rf"^{what} goes by the column 'v', which has no value.*columns=.\"v\""):
        state_of(tmp_path, "a.csv", "id,v\n1,\n2,\n", **more)


@pytest.mark.parametrize(
    ("content", "more"),
    [
        ("id,v\n1,\n2,x\n", MERGED),
        ("id,v\n1,\n", MERGED | {"columns": {"v": "BIGINT"}}),
        ("id,v\n1,\n", MERGED | {"columns": {"v": "VARCHAR"}}),
        ("id,v\n1,\n", MERGED | {"derive": {"o": "CAST(v AS BIGINT)"}, "order_by": "o"}),
        ("id,v\n1,\n", MERGED | {"order_by": None}),
    ],
    ids=["a-value", "said", "said-text", "derived-with-a-type", "not-named"],
)
def test_what_is_known_or_not_used_is_loaded(tmp_path: Path, content: str, more: dict[str, Any]) -> None:
    """Only what would be guessed, and rows go by, is refused."""
    assert state_of(tmp_path, "a.csv", content, **more) is State.LOADED


@pytest.mark.parametrize("name", ["a.csv", "a.json"], ids=["same-format", "another"])
def test_later_objects_may_lack_values(tmp_path: Path, name: str) -> None:
    """One before told the type, in whatever format."""
    (tmp_path / "first.csv").write_text("id,v\nx,y\n")
    known = {"csv": formats.infer(tmp_path / "first.csv", "first.csv", Dataset(name="sales"))}
    content = "id,v\n1,\n" if name == "a.csv" else '[{"id": "1", "v": null}]'
    assert state_of(tmp_path, name, content, known, **MERGED) is State.LOADED
