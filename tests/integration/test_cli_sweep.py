"""`penstock sweep` on a real project folder, store and ledger."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.cli.main import cli
from tests.integration.parts import Parts, parts_in
from tests.loading import another_project
from tests.real_store import real_store


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    """A project whose settings name a store with three objects, and an empty ledger."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "sales.py").write_text('from penstock import Dataset\nDATASET = Dataset(name="sales")\n')
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    with another_project(), real_store("embedded") as server, parts_in(tmp_path, server) as made:
        for name, value in {
            "S3_ENDPOINT": server.endpoint,
            "S3_ACCESS_KEY": server.access_key,
            "S3_SECRET_KEY": server.secret_key,
            "BUCKET": made.bucket,
            "LEDGER_URL": f"sqlite:///{tmp_path / 'ledger.db'}",
        }.items():
            monkeypatch.setenv(f"PENSTOCK_{name}", value)
        for key in ("sales/1", "sales/2", "sales/3"):
            made.put(key, b"x")
        yield made


def sweep(parts: Parts, *argv: str) -> str:
    """What the command prints."""
    result = CliRunner().invoke(cli, ["--project", str(parts.folder), "sweep", *argv], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def facts(parts: Parts, *argv: str) -> dict[str, Any]:
    """What it prints for programs, of the one bucket."""
    found: dict[str, Any] = json.loads(sweep(parts, "--json", *argv))[parts.bucket]
    return found


def test_it_goes_on_where_one_of_its_prefix_was_cut_short(parts: Parts) -> None:
    """Once, and it says so; a sweep of another prefix, or afresh, begins at the beginning."""
    positions = parts.ledger.positions
    positions.move(parts.bucket, "sales/", "sales/1")
    assert (facts(parts)["resumed"], facts(parts)["listed"]) == (False, 3)
    swept = facts(parts, "--prefix", "sales/")
    assert (swept["resumed"], swept["listed"], swept["skipped"]) == (True, 2, 0)
    assert facts(parts, "--prefix", "sales/")["resumed"] is False
    positions.move(parts.bucket, "", "sales/2")
    assert facts(parts, "--afresh")["listed"] == 3
    positions.move(parts.bucket, "", "sales/2")
    assert "For all of it: penstock sweep --afresh" in sweep(parts)
    assert "it went on" not in sweep(parts)
