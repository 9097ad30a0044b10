"""`penstock migrate`: what it says of the way from an older ledger, and that a newer one is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, text

from penstock.cli.migrate import migrate
from penstock.errors import NotMigrated
from penstock.ledger.database import HEAD, brought

_DELIVERIES = "0004  The HTTP request that brought a delivery"
_WAITING = "0005  Objects that wait for another one"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder without a ledger."""
    monkeypatch.delenv("PENSTOCK_LEDGER_URL", raising=False)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    monkeypatch.setenv("PENSTOCK_PROJECT", "shop")
    (tmp_path / "flows").mkdir()
    return tmp_path


def run(home: Path) -> Result:
    return CliRunner().invoke(migrate, obj=home)


def made_by_an_older_one(home: Path, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", "penstock.ledger:migrations")
    engine = create_engine(f"sqlite:///{home / 'ledger.db'}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def test_every_step_is_told(home: Path) -> None:
    """An older ledger is brought forward, and each revision on the way says what it brought; then there is none."""
    made_by_an_older_one(home, "0003")
    lines = run(home).output.splitlines()
    assert lines[0] == f"The ledger went from 0003 to revision {HEAD}:"
    assert lines[1].strip().startswith(_DELIVERIES)
    assert lines[2].strip().startswith(_WAITING)
    assert not [line for line in lines if "0003  " in line]
    assert lines[-1] == "Next: penstock up"
    assert run(home).output == f"The ledger has revision {HEAD} already.\n"


def test_a_new_ledger_has_no_history_to_tell(home: Path) -> None:
    """One that was made just now is the newest, and that is all there is to say."""
    assert run(home).output.splitlines() == [f"The ledger went from nothing to revision {HEAD}.", "Next: penstock up"]


def test_every_migration_says_what_it_brings() -> None:
    """From the first to the newest, in their order, each has a sentence."""
    steps = brought(None, HEAD)
    assert [revision for revision, _ in steps] == [f"{number:04}" for number in range(1, int(HEAD) + 1)]
    assert [what for _, what in steps if not what.endswith(".")] == []
    assert brought(HEAD, HEAD) == []


def test_a_newer_ledger_is_left_as_it_is(home: Path) -> None:
    """The error tells both revisions and what to do, and the ledger keeps its own."""
    assert run(home).exit_code == 0
    engine = create_engine(f"sqlite:///{home / 'ledger.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    refused = run(home)
    assert isinstance(refused.exception, NotMigrated)
    told = str(refused.exception)
    assert "9999" in told
    assert HEAD in told
    assert "install that one" in told
    with engine.begin() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["9999"]
    engine.dispose()


def test_a_program_is_told_too(home: Path) -> None:
    """From which revision to which, and the steps between."""
    made_by_an_older_one(home, "0004")
    told = json.loads(CliRunner().invoke(migrate, ["--json"], obj=home).stdout)
    assert (told["before"], told["after"], told["steps"][0][: len(_WAITING)]) == ("0004", HEAD, _WAITING)
