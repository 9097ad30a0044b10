"""The bench finds what is wrong, and its stand-ins are like the real parts."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import duckdb
import pytest

from bench import parts, processes, rows
from bench.figures import Wrong
from bench.peers.listing_stub import page
from bench.world import World
from penstock.model import State
from penstock.settings import load_settings

_S3 = "{http://s3.amazonaws.com/doc/2006-03-01/}"


def world_with(folder: Path, *wrong: str) -> World:
    """A project with three rows of two objects in its warehouse, and then these statements."""
    world = World(folder=folder)
    world.settings = load_settings(folder)
    world.settings.home.mkdir()
    with duckdb.connect(str(world.settings.warehouse)) as connection:
        connection.execute("CREATE TABLE t (id BIGINT, _penstock_object VARCHAR, _penstock_row BIGINT)")
        connection.execute("INSERT INTO t VALUES (5, 'a@1', 1), (6, 'a@1', 2), (7, 'b@1', 1), (99, 'other@1', 1)")
        for statement in wrong:
            connection.execute(statement)
    return world


def test_rows_that_are_there_once_are_right(tmp_path: Path) -> None:
    """Rows of other ids do not matter."""
    assert world_with(tmp_path).verify("t", range(5, 8), objects=2) == "t: 3 rows of 2 objects, each once"


@pytest.mark.parametrize(
    "wrong",
    [
        "DELETE FROM t WHERE id = 6",
        "INSERT INTO t VALUES (6, 'a@1', 2)",
        "INSERT INTO t VALUES (6, 'c@1', 1)",
        "UPDATE t SET id = 5 WHERE id = 6",
        "UPDATE t SET _penstock_row = 1",
        "UPDATE t SET _penstock_object = 'a@1', _penstock_row = id",
    ],
)
def test_rows_that_are_missing_twice_or_another_objects_are_found(tmp_path: Path, wrong: str) -> None:
    """No time counts when a row is missing, twice, of another id, without its own number, or of too few objects."""
    with pytest.raises(Wrong):
        world_with(tmp_path, wrong).verify("t", range(5, 8), objects=2)


def test_rows_of_one_object_are_told_apart_by_their_numbers(tmp_path: Path) -> None:
    """A number that is there twice is found where there is one object only, too."""
    one = "UPDATE t SET _penstock_object = 'a@1', _penstock_row = id"
    assert world_with(tmp_path, one).verify("t", range(5, 8), objects=1)
    (tmp_path / "again").mkdir()
    with pytest.raises(Wrong):
        world_with(tmp_path / "again", one, "UPDATE t SET _penstock_row = 7").verify("t", range(5, 8), objects=1)


def test_a_filled_ledger_is_a_ledger(tmp_path: Path) -> None:
    """What is filled in is what the ledger would have recorded: loaded, with keys and etags as the stub lists them."""
    with parts.ledger(tmp_path) as ledger:
        parts.fill_ledger(tmp_path / "ledger.db", 12)
        known = ledger.arrivals.latest(parts.BUCKET, [parts.key_of(number) for number in range(14)])
        assert sorted(known) == [parts.key_of(number) for number in range(1, 13)]
        assert known[parts.key_of(7)].etag == parts.etag_of(7)
        assert known[parts.key_of(7)].state is State.LOADED
        (story,) = ledger.facts.stories(parts.key_of(7))
        assert [fact.what for fact in story.facts] == ["loaded"]


def test_the_stub_lists_every_key_once_in_order() -> None:
    """Pages of a thousand follow one another by their token, and the last says that it is the last."""
    keys: list[str] = []
    after, pages = 0, 0
    while True:
        found = ET.fromstring(page(3000, after))  # noqa: S314 - made a line above
        keys += [str(entry.findtext(f"{_S3}Key")) for entry in found.iter(f"{_S3}Contents")]
        pages += 1
        token = found.findtext(f"{_S3}NextContinuationToken")
        assert found.findtext(f"{_S3}IsTruncated") == ("true" if token else "false")
        if not token:
            break
        after = int(token)
    assert pages == 3
    assert keys == [parts.key_of(number) for number in range(1, 3001)]
    assert keys == sorted(keys)


def test_ids_are_never_used_twice(tmp_path: Path) -> None:
    """Each file has ids of its own, whether made line by line or by DuckDB."""
    ids = rows.Ids()
    made = dict(rows.files(ids, 3, 2, "d"))
    assert [data.decode().splitlines()[1].split(",")[0] for data in made.values()] == ["1", "3", "5"]
    taken = rows.write_large(tmp_path / "large.parquet", ids, 1000)
    assert taken == range(7, 1007)
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT min(id), max(id), count(DISTINCT id) FROM '{tmp_path}/large.parquet'")
        assert found.fetchone() == (7, 1006, 1000)


def test_a_posted_row_is_of_the_size_that_was_asked_for() -> None:
    """About a kilobyte, whatever the id."""
    assert len(rows.json_row(7, size=1000)) == len(rows.json_row(1_000_000, size=1000)) == 1000


def test_a_process_costs_what_the_kernel_says() -> None:
    """This one has used processor time and memory; one that is gone has none."""
    assert processes.cpu_seconds(os.getpid()) > 0
    found = processes.memory(os.getpid())
    assert found["peak"] >= found["resident"] >= found["anonymous"] > 1
    assert processes.cpu_seconds(2**22 + 1) == 0
    assert processes.memory(2**22 + 1) == {}


def test_the_workers_memory_is_the_larger_of_one_and_of_all() -> None:
    """Its largest process, unless all of them together hold more; what others hold is not its."""
    peaks = processes.Peaks(resident={"worker": 100, "run": 250, "prefect": 900}, together=180)
    assert peaks.worker == 250
    peaks.together = 300
    assert peaks.worker == 300
