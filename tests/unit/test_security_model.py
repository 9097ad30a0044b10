"""The threat model keeps its word: each threat has a test that exists, and what it says of no defence is so."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from penstock.verification import standard_webhooks
from penstock.webhook.verify import sign, verify

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "docs" / "design" / "security.md"
_TEST = re.compile(r"`(tests/[a-z_/]+\.py)::(test_\w+)`")
_FILE = re.compile(r"`([a-z][a-z_]*(?:/[a-z_]+)*(?:\.py|/))`")


def threats() -> list[tuple[str, str, str]]:
    """Threat, defence and tests of each line of the table."""
    _, _, section = MODEL.read_text().partition("\n## Threats\n")
    table = section.partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]
    assert all(len(row) == 3 for row in cells), cells
    return [(row[0], row[1], row[2]) for row in cells]


THREATS = threats()
each = pytest.mark.parametrize(
    ("threat", "defence", "tests"), THREATS, ids=[f"{number}" for number in range(len(THREATS))]
)


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the tests in a file, those in classes too."""
    tree = ast.parse((ROOT / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def test_every_kind_of_threat_is_there() -> None:
    """What the model has to speak of at least."""
    said = " ".join(threat.lower() for threat, _, _ in THREATS)
    for word in (
        *("spoofing", "replay", "flood", "decompression", "ssrf", "path tricks", "template injection", "log injection"),
        *("smuggling", "rebinding", "timing", "secrets", "proxy", "poisoned", "dependency", "slow"),
    ):
        assert word in said


@each
def test_every_line_names_tests_that_exist(threat: str, defence: str, tests: str) -> None:
    """One at least, and each is a function of that file."""
    named = _TEST.findall(tests)
    assert named, f"{threat!r} names no test"
    assert _TEST.sub("", tests).replace(",", "").strip() == ""
    for path, name in named:
        assert name in names_in(path), f"{threat!r}: {path} has no {name}"


@each
def test_every_line_names_its_defence_or_says_that_there_is_none(threat: str, defence: str, tests: str) -> None:
    """The files that it names are there."""
    files = _FILE.findall(defence)
    assert files or "**nothing**" in defence or "`make fuzz`" in defence, threat
    for name in files:
        assert (ROOT / "src" / "penstock" / name).exists() or (ROOT / name).exists(), f"{threat!r}: no {name}"


def test_what_has_one_secret_is_verified_by_both() -> None:
    """Two sources of one secret take each other's requests, as the model says; a secret of its own helps."""
    secret, other = "whsec_" + "b25l" * 8, "whsec_" + "dHdv" * 8
    now, body = datetime(2026, 3, 1, 12, tzinfo=UTC), b"{}"
    here, there = standard_webhooks("HERE_SECRET"), standard_webhooks("THERE_SECRET")
    raw = [(name.encode(), value.encode()) for name, value in sign(here, secret, "d-1", body, now).items()]
    assert verify(there, [secret], raw, body, now) == "d-1"
    with pytest.raises(Exception, match="not signed"):
        verify(there, [other], raw, body, now)
