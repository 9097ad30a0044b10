"""Columns whose values stand in the key."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from penstock import formats
from penstock.declarations import Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.flows.judging import judge_all
from penstock.flows.reading import Found, Reader
from penstock.formats.partitions import in_path, with_path
from penstock.model import Schema

EVENTS = Dataset(name="events", partitions=["day", "country"], columns={"day": "DATE"})


def read_all(
    folder: Path, files: dict[str, str], dataset: Dataset = EVENTS, known: Schema | None = None
) -> list[Found]:
    places = {}
    for number, (name, content) in enumerate(files.items()):
        places[number] = (folder / str(number), name)
        places[number][0].write_text(content)
    schema = known or formats.infer(places[0][0], next(iter(files)), dataset)
    reader = Reader(places, dataset=dataset, remembered=lambda form: schema, progress=lambda: None)
    return [reader.read(number) for number in places]


def rows_of(found: Found) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = judge_all(found).result.rows.to_pylist()
    return [{name: row[name] for name in row if not name.startswith("_penstock")} for row in rows]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("events/day=2026-03-01/country=DE/a.csv", (("day", "2026-03-01"), ("country", "DE"))),
        ("events/country=C%C3%B4te%20d%27Ivoire%2F/a.csv", (("country", "Côte d'Ivoire/"),)),
        ("events/day=__HIVE_DEFAULT_PARTITION__/a.csv", (("day", None),)),
        ("events/month=3/country=a=b/a.csv", (("country", "a=b"),)),
        ("events/country=/a.csv", (("country", ""),)),
        ("events/day=2026-03-01", ()),
        ("events/day=1/day=2/a.csv", (("day", "2"),)),
    ],
    ids=["two", "percent", "null", "others", "empty", "name-only", "twice"],
)
def test_what_a_key_says(key: str, values: tuple[tuple[str, str | None], ...]) -> None:
    """Of its folders; the dataset's partitions only, percent-decoded, Hive's mark as NULL."""
    assert in_path(key, EVENTS) == values
    assert in_path(key, Dataset(name="events")) == ()


def test_values_of_the_path_are_columns(tmp_path: Path) -> None:
    """Typed by their hints, else text, and over a column of the file with that name."""
    found = read_all(
        tmp_path,
        {
            "events/day=2026-03-01/country=DE/a.csv": "id,country\n1,XX\n",
            "events/day=__HIVE_DEFAULT_PARTITION__/country=it's%3B/b.csv": "id,country\n2,YY\n",
            "events/day=2026-03-02/c.csv": "id,country\n3,FR\n",
        },
    )
    assert [rows_of(one) for one in found] == [
        [{"id": 1, "country": "DE", "day": date(2026, 3, 1)}],
        [{"id": 2, "country": "it's;", "day": None}],
        [{"id": 3, "country": "FR", "day": date(2026, 3, 2)}],
    ]
    assert dict(found[0].result.columns) == {"id": "BIGINT", "country": "VARCHAR", "day": "DATE"}


def test_only_objects_of_one_partition_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has the values of its own key, in whatever order they come, and none is read alone for it."""
    monkeypatch.setattr(formats, "read", lambda *args, **more: pytest.fail("it was read alone"))
    files = {f"events/day=2026-03-0{n % 3 + 1}/country=DE/{n}.csv": f"id,n\n{n},1\n" for n in range(9)}
    found = read_all(tmp_path, files)
    assert [row for one in found for row in rows_of(one)] == [
        {"id": n, "n": 1, "day": date(2026, 3, n % 3 + 1), "country": "DE"} for n in range(9)
    ]


def test_a_partition_that_is_nowhere(tmp_path: Path) -> None:
    """The object waits, and the reason says where it was looked for."""
    (found,) = read_all(tmp_path, {"events/day=2026-03-01/a.csv": "id\n1\n"})
    with pytest.raises(Unreadable, match=r"partition 'country' is neither in its key, as country=…/, nor one of its"):
        judge_all(found)


def test_a_value_that_is_none_of_its_type(tmp_path: Path) -> None:
    """The key is named for it; a hint that is no type is the declaration's fault."""
    with pytest.raises(Unreadable, match="its key says day=2026-13-01, which is no DATE"):
        read_all(tmp_path, {"events/day=2026-13-01/country=DE/a.csv": "id\n1\n"})
    wrong = Dataset(name="events", partitions=["day"], columns={"day": "DAYE"})
    with pytest.raises(DeclarationError, match="columns day 'DAYE'"):
        with_path(wrong, (("day", "x"),))


def test_what_is_derived_is_not_looked_for_in_the_key() -> None:
    """The declaration says how it is made."""
    dataset = Dataset(name="events", partitions=["day"], derive={"day": "CAST(at AS DATE)"})
    assert in_path("events/day=2026-03-01/a.csv", dataset) == ()
    assert with_path(dataset, ()) is dataset


def test_a_path_that_no_sql_can_say(tmp_path: Path) -> None:
    """A U+0000 in the key's value is the object's, whether or not its column is hinted."""
    for dataset in (EVENTS, Dataset(name="events", partitions=["day"])):
        with pytest.raises(Unreadable, match="a U\\+0000 in day="):
            with_path(dataset, in_path("events/day=a%00b/a.csv", dataset))
