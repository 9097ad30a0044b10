"""docs/datasets.md has all that a dataset may say, and nothing else."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from penstock import checks
from penstock.checks import Check
from penstock.cli.init_dataset import init_dataset
from penstock.declarations import Backfill, Dataset, Ready
from penstock.dialects import Csv, Excel
from penstock.options import WORDS

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
_ROWS = dict(re.findall(r"^\| `(\w+)` (\|.*)$", PAGE, re.M))


def test_each_field_has_its_row() -> None:
    """In the table, with the words that it may be."""
    assert sorted(_ROWS) == sorted(one.name for one in fields(Dataset))
    for name, words in WORDS.items():
        values = _ROWS[name].split("|")[1]
        assert tuple(re.findall(r"`(\w+)`", values)) == words


@pytest.mark.parametrize("kind", [Csv, Excel, Ready, Backfill, Check], ids=lambda kind: kind.__name__)
def test_each_part_has_its_arguments(kind: type) -> None:
    """In the code, each of them and no other."""
    (code,) = [block for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S) if "Csv(" in block]
    calls = [node for node in ast.walk(ast.parse(code.replace("  # or ", "; "))) if isinstance(node, ast.Call)]
    ours = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == kind.__name__]
    assert sorted(str(one.arg) for call in ours for one in call.keywords) == sorted(one.name for one in fields(kind))
    assert not any(call.args for call in ours)


def test_each_helper_has_its_signature() -> None:
    """Those that make a Check, with the parameters that are not `severity`."""
    there = {
        name: [str(one).partition(":")[0] for one in inspect.signature(made).parameters.values()]
        for name, made in vars(checks).items()
        if inspect.isfunction(made) and made.__module__ == checks.__name__ and name[0] != "_"
    }
    rows = re.findall(r"^\| `(\w+)\((.*?)\)`", PAGE, re.M)
    assert {name: [*said.split(", "), "severity"] for name, said in rows} == there


def test_each_option_that_is_named_is_there() -> None:
    """Those of `init-dataset`, beside those of `preview`."""
    said = set(re.findall(r"(--[a-z][a-z-]*)", PAGE)) - {"--dataset"}
    assert said < {option for one in init_dataset.params for option in one.opts}
    assert {"--encoding", "--delimiter", "--decimal", "--skip", "--records", "--pattern"} < said


def test_its_links_lead_somewhere() -> None:
    """To a page that is there, and a heading in it."""
    for page, heading in re.findall(r"\]\((\w+\.md)(?:#([a-z-]+))?\)", PAGE):
        text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
        headings = {re.sub(r"[^a-z0-9 -]", "", line.strip("# ").lower()).replace(" ", "-") for line in text.split("\n")}
        assert not heading or heading in headings, (page, heading)
