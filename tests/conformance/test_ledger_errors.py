"""What the ledger's own errors may say: they end in logs, and its rows hold what people sent."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from penstock.errors import LedgerUnavailable
from penstock.ledger.rejections import Rejected, _row
from penstock.ledger.tables import announced, rejections
from tests.conformance.ledgers import BACKENDS, MAKERS, START, Bench

SENT = "what-somebody-sent"


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with MAKERS[request.param](tmp_path / "ledger") as made:
        yield made


def test_an_error_of_the_database_holds_no_values(bench: Bench) -> None:
    """A statement that breaks a rule tells which rule, and nothing of the row; nor does one of many rows."""
    rejected = Rejected(
        source="shop",
        at=START,
        kind="unparseable",
        detail=SENT,
        address="192.0.2.1",
        request="r-1",
        content_type=SENT,
        headers=((SENT, SENT),),
        body=SENT.encode(),
        bytes=1,
    )
    row = {**_row(rejected, START + timedelta(days=1)), "kind": None}
    for rows in ([row], [row, row]):
        with pytest.raises(SQLAlchemyError, match="kind") as caught, bench.ledger.database.write() as connection:
            connection.execute(insert(rejections), rows)
        said = "".join(traceback.format_exception(caught.value))
        assert SENT not in said
        assert SENT.encode().hex() not in said
        assert isinstance(caught.value, DBAPIError)


def test_what_postgres_cannot_hold_does_not_pass_for_an_outage(tmp_path: Path) -> None:
    """A text that is too long for an index will be so the next time: it is not to be tried for ever."""
    long = "".join(hashlib.sha256(str(number).encode()).hexdigest() for number in range(140))
    with MAKERS["postgres"](tmp_path / "ledger") as bench:
        with pytest.raises(DBAPIError) as caught, bench.ledger.database.write() as connection:
            connection.execute(insert(announced), {"bucket": "b", "key": long, "manifest": "m"})
        assert not isinstance(caught.value, LedgerUnavailable)
        assert long not in str(caught.value)
