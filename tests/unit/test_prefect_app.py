"""How Prefect's SQLite is mended, on Prefect's own database configuration."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from penstock.cli.prefect_app import begin_immediate


async def _locked_while_it_only_read(path: Path) -> bool:
    """Whether nobody else may write while one of Prefect's transactions has read and may write yet."""
    config = AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{path}")
    engine = await config.engine()
    try:
        async with AsyncSession(engine) as session, config.begin_transaction(session):
            await session.execute(text("SELECT count(*) FROM runs"))
            other = sqlite3.connect(path, timeout=0)
            try:
                other.execute("INSERT INTO runs VALUES (1)")
                other.commit()
            except sqlite3.OperationalError as error:
                assert "locked" in str(error)  # noqa: PT017 - what another error means is not this test's
                return True
            finally:
                other.close()
            return False
    finally:
        await engine.dispose()


@pytest.mark.parametrize("mended", [False, True])
def test_a_transaction_that_may_write_locks_when_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mended: bool
) -> None:
    """With the mend it cannot find, once it writes, that another has written since it read; without, it can."""
    # Put back after the test.
    monkeypatch.setattr(AioSqliteConfiguration, "begin_transaction", AioSqliteConfiguration.begin_transaction)
    if mended:
        begin_immediate()
    path = tmp_path / "prefect.db"
    with sqlite3.connect(path) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE runs (id INTEGER)")
    made.close()
    assert asyncio.run(_locked_while_it_only_read(path)) is mended
