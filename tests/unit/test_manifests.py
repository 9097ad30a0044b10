"""What a manifest names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.errors import Unreadable
from penstock.flows import manifests
from penstock.flows.manifests import named_keys

MANIFEST = "sales/day/1.manifest"


def keys(text: str | bytes, *, manifest: str = MANIFEST) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    return named_keys(data, manifest, bucket="landing", prefixes=("sales/",))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.csv", "sales/day/a.csv"),
        ("./x/a.csv", "sales/day/x/a.csv"),
        ("../a.csv", "sales/a.csv"),
        ("sales/b/a.csv", "sales/b/a.csv"),
        ("/sales/b/a.csv", "sales/b/a.csv"),
        ("s3://landing/sales/a.csv", "sales/a.csv"),
        ("s3a://landing/sales/a b%20c?d.csv", "sales/a b%20c?d.csv"),
        ("ä 1.csv", "sales/day/ä 1.csv"),
    ],
)
def test_a_name_is_a_url_a_key_or_beside_the_manifest(name: str, expected: str) -> None:
    """URLs of the same bucket, keys below the dataset's prefix, and what is relative to the manifest's folder."""
    assert keys(name) == keys(json.dumps([name])) == [expected]


@pytest.mark.parametrize(
    "found",
    [
        ["sales/a.csv", "sales/b.csv"],
        {"entries": [{"url": "s3://landing/sales/a.csv", "mandatory": True}, {"url": "s3://landing/sales/b.csv"}]},
        {"files": ["sales/a.csv", "sales/b.csv"], "count": 2},
        {"files": [{"key": "sales/a.csv", "size": 3}, {"path": "sales/b.csv"}]},
        [{"name": "sales/a.csv"}, {"name": "sales/b.csv"}, {"name": "sales/a.csv"}],
    ],
    ids=["list", "redshift", "files", "objects in files", "named twice"],
)
def test_the_forms_of_json(found: Any) -> None:
    """A list, `entries` with URLs, and `files`; each key once, in the order of the manifest."""
    assert keys(json.dumps(found)) == keys("\ufeff" + json.dumps(found, indent=2)) == ["sales/a.csv", "sales/b.csv"]


def test_a_key_in_each_line() -> None:
    """Line ends of either kind, blank lines, comments and spaces around are passed over."""
    assert keys("# made at noon\r\n a.csv \r\n\r\nb.csv\n") == ["sales/day/a.csv", "sales/day/b.csv"]


def test_in_no_folder() -> None:
    """What lies beside a manifest at the bucket's root has no folder either."""
    assert keys("a.csv", manifest="1.manifest") == ["a.csv"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("", "names no object"),
        ("[]", "names no object"),
        ("# nothing", "names no object"),
        ('["a.csv"', "begins like JSON and is none"),
        ("[" * 100_000, "begins like JSON and is none"),
        ('{"keys": ["a"]}', "without one list"),
        ('{"entries": ["a"], "files": ["b"]}', "without one list"),
        ("[1]", "entry 1"),
        ('["a", {"size": 1}]', "entry 2"),
        ('["a", " "]', "entry 2"),
        ("s3://elsewhere/sales/a.csv", "not in the bucket landing"),
        ("https://example.com/a.csv", "only s3:// URLs"),
        ("s3://landing/", "which is no key"),
        ("../../../etc/passwd", "which is no key"),
        ("sales/../x", "which is no key"),
        ("a\0b", "which is no key"),
        ('["a\\ud800.csv"]', "which is no key"),
        ("ä" * 600, "which is no key"),
        (b"\xff\xfe\x00", "no UTF-8"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_manifest_is_told(data: str | bytes, told: str) -> None:
    """What cannot be read, names nothing, or names what is elsewhere is refused with what is wrong."""
    with pytest.raises(Unreadable, match=told):
        keys(data)


@pytest.mark.parametrize("name", ["x" * 9000, "s3://elsewhere/" + "x" * 9000, "https://" + "x" * 9000])
def test_the_reason_is_short(name: str) -> None:
    """Of a name that is refused only the beginning is told: a reason is kept, and shown in a line."""
    with pytest.raises(Unreadable) as caught:
        keys(name)
    assert len(str(caught.value)) < 250
    assert keys("x" * 1014) == ["sales/day/" + "x" * 1014]


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither more bytes nor more keys than are kept in memory are read."""
    monkeypatch.setattr(manifests, "MOST_BYTES", 10)
    assert len(keys("a.csv\nb.csv"[:10])) == 2
    with pytest.raises(Unreadable, match="more than 10 bytes"):
        keys("a.csv\nb.csv")
    monkeypatch.undo()
    monkeypatch.setattr(manifests, "MOST_KEYS", 2)
    with pytest.raises(Unreadable, match="names 3 objects"):
        keys("a\nb\nc")
