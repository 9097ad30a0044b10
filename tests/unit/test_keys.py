"""Which dataset takes a key, as what, and whether two may take the same."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.declarations import Backfill, Dataset, Ready
from penstock.keys import (
    Role,
    backlog_of,
    fits,
    globs_meet,
    may_overlap,
    prefixes,
    role,
    takes,
    waits_for,
    wrong_glob,
)
from penstock.ledger.decide import no_dataset
from tests.examples import examples

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
BESIDE = Dataset(name="sales", match="*.csv", ready=Ready(beside=".done"))
FOLDER = Dataset(name="sales", ready=Ready(folder="_SUCCESS"))
MANIFEST = Dataset(name="sales", ready=Ready(manifest="*.manifest"))


@pytest.mark.parametrize(
    ("glob", "rest", "expected"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", ".csv", True),
        ("*.csv", "a.CSV", False),
        ("*.csv", "b/a.csv", False),
        ("*.csv", "a.csv.gz", False),
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "b/c/a.csv", True),
        ("**/*.csv", "b//a.csv", True),
        ("day=*/a?.csv", "day=1/ab.csv", True),
        ("day=*/a?.csv", "day=1/a.csv", False),
        ("day=*/a?.csv", "day=1/a/.csv", False),
        ("in/**/x", "in/x", True),
        ("in/**/x", "in/a/b/x", True),
        ("in/**/x", "inx", False),
        ("in/**", "in/a/b", True),
        ("in/**", "out/a", False),
        ("a[1].csv", "a[1].csv", True),
        ("a[1].csv", "a1.csv", False),
        ("a.csv", "aXcsv", False),
        ("*", "a\nb", True),
    ],
)
def test_a_glob_is_over_whole_segments(glob: str, rest: str, expected: bool) -> None:
    """A star ends at a slash, `**/` is any folders or none, case counts, and all else stands for itself."""
    assert fits(glob, rest) is expected


def slowly(glob: str, rest: str) -> bool:
    """What a glob means, place by place."""
    if not glob:
        return not rest
    if glob == "**":
        return True
    if glob.startswith("**/"):
        after = [number + 1 for number, char in enumerate(rest) if char == "/"]
        return any(slowly(glob[3:], rest[at:]) for at in (0, *after))
    return _within(glob, rest)


def _within(glob: str, rest: str) -> bool:
    if not glob:
        return not rest
    if glob[0] == "*":
        return _within(glob[1:], rest) or (rest[:1] not in ("", "/") and _within(glob, rest[1:]))
    if not rest or (rest[0] == "/" if glob[0] == "?" else rest[0] != glob[0]):
        return False
    return (slowly if glob[0] == "/" else _within)(glob[1:], rest[1:])


@settings(max_examples=examples(400), deadline=None)
@given(
    glob=st.lists(st.sampled_from(["a", "b", ".", "/", "*", "?", "**/", "/**/", "/**"]), min_size=1, max_size=9),
    rest=st.text("ab./", max_size=9),
)
def test_a_glob_means_what_it_says(glob: list[str], rest: str) -> None:
    """The fast way finds what the slow one does."""
    assert fits("".join(glob), rest) is slowly("".join(glob), rest)


@settings(max_examples=examples(100), deadline=None)
@given(data=st.data())
def test_a_key_made_from_a_glob_fits_it(data: st.DataObject) -> None:
    """Whatever the stars stand for."""
    steps = data.draw(st.lists(st.sampled_from(["a", "b", "/", "*", "?", "/**/"]), min_size=1, max_size=9))
    within, any_of = st.text("ab.", max_size=3), st.sampled_from(["/", "/a/", "/b/a/", "//"])
    made = [
        data.draw({"*": within, "?": st.sampled_from("ab"), "/**/": any_of}.get(step, st.just(step))) for step in steps
    ]
    assert fits("".join(steps), "".join(made))


@pytest.mark.parametrize(
    ("glob", "rest"),
    [("*-*-*-*-*-*.csv", "-" * 1000), ("**/*-/**/*-/**/*-/**/*.csv", "-/" * 500), ("*?*?*?*?*?.csv", "a" * 1000)],
    ids=["stars", "folders", "characters"],
)
def test_a_name_that_somebody_chose_takes_no_time(glob: str, rest: str) -> None:
    """Keys are what senders choose: none makes a glob take longer than in its length, or nearly so."""
    began = time.perf_counter()
    assert not fits(glob, rest)
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    ("dataset", "key", "expected"),
    [
        (BESIDE, "sales/a.csv", Role.DATA),
        (BESIDE, "sales/a.csv.done", Role.MARKER),
        (BESIDE, "sales/a.txt.done", None),
        (BESIDE, "sales/a.txt", None),
        (BESIDE, "sales/.done", None),
        (BESIDE, "other/a.csv", None),
        (FOLDER, "sales/_SUCCESS", Role.MARKER),
        (FOLDER, "sales/day/_SUCCESS", Role.MARKER),
        (FOLDER, "sales/day/x_SUCCESS", Role.DATA),
        (MANIFEST, "sales/1.manifest", Role.MANIFEST),
        (MANIFEST, "sales/day/1.manifest", Role.DATA),
        (Dataset(name="sales"), "sales/a.csv.done", Role.DATA),
        (Dataset(name="sales"), "salesman/a.csv", None),
        (Dataset(name="sales", backfill=Backfill(prefix="old/")), "old/a.csv", Role.DATA),
    ],
)
def test_what_a_key_is_to_a_dataset(dataset: Dataset, key: str, expected: Role | None) -> None:
    """Data, the marker of some data, or a manifest; and nothing where prefix or match do not fit."""
    assert role(dataset, key) is expected
    assert takes(dataset, key) is (expected is not None)


@pytest.mark.parametrize(
    ("dataset", "key", "expected"),
    [
        (BESIDE, "sales/a.csv", "sales/a.csv.done"),
        (BESIDE, "sales/a.csv.done", None),
        (FOLDER, "sales/a.csv", "sales/_SUCCESS"),
        (FOLDER, "sales/x/y/a.csv", "sales/x/y/_SUCCESS"),
        (MANIFEST, "sales/x/a.csv", "sales/*.manifest"),
        (MANIFEST, "sales/1.manifest", None),
        (Dataset(name="sales"), "sales/a.csv", None),
    ],
)
def test_for_what_a_key_waits(dataset: Dataset, key: str, expected: str | None) -> None:
    """Data waits for its own marker, that of its folder, or any manifest; what says so waits for nothing."""
    assert waits_for(dataset, key) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("*.csv", "*.json", False),
        ("*.csv", "a*", True),
        ("a*", "b*", False),
        ("*a", "*b", False),
        ("?", "??", False),
        ("??", "*", True),
        ("*", "*/*", False),
        ("**/*.csv", "x/*", True),
        ("**/*.csv", "x/*.json", False),
        ("**/x/*", "y/**/z", True),
        ("in/**", "**/a.csv", True),
        ("in/**", "out/**", False),
    ],
)
def test_whether_two_globs_meet(one: str, other: str, expected: bool) -> None:
    """Exactly when some key fits both, whichever is asked first."""
    assert globs_meet(one, other) is globs_meet(other, one) is expected


globs = st.lists(st.sampled_from(["a", "b", ".", "/", "*", "?", "**/"]), min_size=1, max_size=6).map("".join)


@settings(max_examples=examples(100), deadline=None)
@given(one=globs, other=globs, key=st.text("ab./", max_size=6))
def test_a_key_that_fits_both_is_never_missed(one: str, other: str, key: str) -> None:
    """Two globs that some key fits meet, always."""
    if fits(one, key) and fits(other, key):
        assert globs_meet(one, other)


# As long as three characters of either glob, one after the other.
SHORT = ["".join(text) for length in range(7) for text in product("ab/", repeat=length)]


@settings(max_examples=examples(60), deadline=None)
@given(data=st.data())
def test_globs_meet_only_where_a_key_fits_both(data: st.DataObject) -> None:
    """Of short globs without folders every short key was tried: where none fits both they do not meet."""
    short = st.text("ab/*?", min_size=1, max_size=4).filter(lambda text: "**" not in text)
    one, other = data.draw(short), data.draw(short)
    assert globs_meet(one, other) == any(fits(one, key) and fits(other, key) for key in SHORT)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({}, {}, True),
        ({"prefix": "sales/eu/"}, {}, True),
        ({"prefix": "other/"}, {}, False),
        ({"match": "*.csv"}, {"match": "*.json"}, False),
        ({"match": "*.csv"}, {}, True),
        ({"match": "*.csv"}, {"prefix": "sales/eu/", "match": "*.csv"}, False),
        ({"match": "**/*.csv"}, {"prefix": "sales/eu/", "match": "*.csv"}, True),
        ({"prefix": "other/", "backfill": Backfill(prefix="sales/old/")}, {}, True),
        ({"prefix": "other/", "backfill": Backfill(prefix="archive/")}, {}, False),
        ({"match": "*.csv", "ready": Ready(beside=".done")}, {"match": "*.done"}, True),
        ({"match": "*.csv", "ready": Ready(beside=".done")}, {"match": "*.json"}, False),
        ({"match": "day/**", "ready": Ready(beside=".done")}, {"match": "day/x/*.done"}, True),
        (
            {"match": "*.csv", "ready": Ready(folder="_SUCCESS")},
            {"match": "*.json", "ready": Ready(folder="_SUCCESS")},
            False,
        ),
        ({"match": "*.csv", "ready": Ready(manifest="*.lst")}, {"match": "*.lst"}, True),
        (
            {"match": "*.csv", "ready": Ready(manifest="*.lst")},
            {"match": "*.json", "ready": Ready(manifest="x*")},
            True,
        ),
        (
            {"match": "*.csv", "ready": Ready(manifest="a*.lst")},
            {"match": "*.json", "ready": Ready(manifest="b*.lst")},
            False,
        ),
        (
            {"match": "*.csv", "ready": Ready(manifest="*.lst")},
            {"match": "*.json", "ready": Ready(folder="a.lst")},
            True,
        ),
    ],
)
def test_whether_two_datasets_may_take_the_same_data(
    one: dict[str, object], other: dict[str, object], expected: bool
) -> None:
    """Prefixes, globs, backfills and markers count; a marker that both wait for is no overlap, a manifest is."""
    first = Dataset(**{"name": "one", "prefix": "sales/", **one})  # type: ignore[arg-type]
    second = Dataset(**{"name": "two", "prefix": "sales/", **other})  # type: ignore[arg-type]
    assert may_overlap(first, second) is may_overlap(second, first) is expected


@pytest.mark.parametrize(
    ("backfill", "key", "modified", "expected"),
    [
        (None, "sales/a", MARCH, False),
        (Backfill(before=MARCH), "sales/a", MARCH, False),
        (Backfill(before=MARCH), "sales/a", MARCH - timedelta(microseconds=1), True),
        (Backfill(prefix="old/"), "old/a", MARCH, True),
        (Backfill(prefix="old/"), "sales/a", MARCH, False),
        (Backfill(prefix="sales/old/"), "sales/old/a", MARCH, True),
        (Backfill(prefix="sales/old/"), "sales/a", MARCH, False),
        (Backfill(prefix="sales/"), "sales/a", MARCH, True),
    ],
)
def test_what_is_old(backfill: Backfill | None, key: str, modified: datetime, expected: bool) -> None:
    """What was written before the moment, and what lies in the folder of the old."""
    assert backlog_of(Dataset(name="sales", backfill=backfill), key, modified) is expected


def test_the_nearer_folder_says_what_is_old() -> None:
    """A dataset's own folder within that of its old objects is not old."""
    nested = Dataset(name="new", prefix="sales/new/", backfill=Backfill(prefix="sales/"))
    assert prefixes(nested) == ("sales/new/", "sales/")
    assert backlog_of(nested, "sales/2019/a", MARCH)
    assert not backlog_of(nested, "sales/new/a", MARCH)


@pytest.mark.parametrize("glob", ["*.csv", "**/*.csv", "day=*/**", "a?.b"])
def test_a_right_glob(glob: str) -> None:
    """Nothing is wrong with these."""
    assert wrong_glob(glob) is None


@pytest.mark.parametrize("glob", ["", "/*.csv", "../*.csv", "a**b", "**.csv", "*.{csv,gz}", "[ab].csv"])
def test_a_wrong_glob(glob: str) -> None:
    """What could never fit, or looks like what it is not, is told of with the glob itself."""
    assert repr(glob) in (wrong_glob(glob) or "")


def test_a_key_that_fits_no_match_is_told_so() -> None:
    """Where a dataset has the folder, its match is named; elsewhere the folder is to be declared."""
    assert re.search(r"'sales/' sales takes '\*\.csv'", no_dataset("sales/a.txt", [BESIDE]))
    assert "declare one" in no_dataset("other/a.csv", [BESIDE])
