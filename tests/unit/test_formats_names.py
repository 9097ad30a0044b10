"""Column names and paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.formats.names import json_keys, json_path, json_pointer, normalised


@pytest.mark.parametrize(
    ("original", "name"),
    [
        ("Cost Total $", "cost_total"),
        ("  Größe (cm) ", "große_cm"),
        ("2020 sales", "_2020_sales"),
        ("_penstock_row", "source_penstock_row"),
        ("$%", "column"),
        ("", "column"),
        ("a--b__c", "a_b_c"),
    ],
)
def test_a_name_is_normalised(original: str, name: str) -> None:
    """Lower case, one `_` between words, no digit first, nothing that clashes with penstock's own."""
    assert normalised([original]) == [name]


def test_duplicates_are_numbered() -> None:
    """Names that become equal are told apart, also from a name that looks numbered already."""
    assert normalised(["a", "A", "a 2", "a"]) == ["a", "a_2", "a_2_2", "a_3"]


@given(st.lists(st.text()))
def test_names_are_unique(originals: list[str]) -> None:
    """Whatever the source's names are, the table's are different, and never penstock's own."""
    names = normalised(originals)
    assert len(set(names)) == len(originals)
    assert not any(name.startswith("_penstock") for name in names)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_a_path_holds_any_key(keys: list[str]) -> None:
    """The keys of a JSON path come back as they were."""
    assert json_keys(json_path(keys)) == tuple(keys)


def test_path_and_pointer() -> None:
    """A path is quoted key by key, a pointer escapes as RFC 6901 says."""
    assert json_path(["properties", 'a"b']) == '$."properties"."a\\"b"'
    assert json_pointer(["a/b", "~"]) == "/a~1b/~0"
