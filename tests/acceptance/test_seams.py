"""Every seam between accepted and loaded, with a kill, an exception and a hang at it: each row is there exactly once.

One `penstock up` for each pair of ledger and warehouse serves all cases; what a fault ends, `up` starts again. The
cases take turns among the parts, so that none is restarted so often that the supervisor makes it wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock import faults
from penstock.declarations import standard_webhooks
from penstock.errors import QueryRefused, WarehouseLocked
from penstock.ledger import Ledger
from penstock.ledger.database import utc_now
from penstock.settings import load_settings
from penstock.webhook import verify
from penstock.wiring import open_warehouse
from tests.acceptance.running import Up
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

DECLARED = """
from penstock import Dataset

DATASET = Dataset(name="pipe", columns={"id": "BIGINT"})
"""
SENDER = """
from penstock import Source, standard_webhooks

SOURCE = Source(name="pipe", dataset="pipe", verify=standard_webhooks("PIPE_WEBHOOK_SECRET"))
"""
AUTOMATED = """
from penstock import on_arrival

AUTOMATIONS = [on_arrival("pipe")]
"""
SECRET = "whsec_" + "c2VhbXMgYXJlIHdoZXJlIHBpcGVzIGxlYWs="
SETTINGS = {
    "PENSTOCK_LEASE_SECONDS": "3",
    "PENSTOCK_WAKEUP_SECONDS": "1",
    "PENSTOCK_STALL_SECONDS": "5",
    "PIPE_WEBHOOK_SECRET": SECRET,
}
# The longest way: a hang is noticed, the process starts anew, the lease runs out, the wake-up is sent again.
WITHIN_SECONDS = 60.0


@dataclass(kw_only=True)
class Pipe:
    """A running project with one dataset, and faults that can be laid into its way."""

    up: Up
    faults: Path
    numbers: int = 0
    settings: Any = field(init=False)

    def __post_init__(self) -> None:
        self.up.start()
        overrides = {
            name.removeprefix("PENSTOCK_").lower(): value
            for name, value in self.up.extra.items()
            if name in ("PENSTOCK_LEDGER_URL", "PENSTOCK_WAREHOUSE_URL")
        }
        self.settings = load_settings(self.up.folder, **overrides)
        self.ledger = Ledger(self.settings.ledger, project=self.settings.project)
        self.warehouse = open_warehouse(self.settings)

    def lay(self, seam: str, what: str) -> None:
        """Have the next process that passes this seam do so."""
        self.faults.joinpath(seam + ".hit").unlink(missing_ok=True)
        waiting = self.faults / (seam + ".new")
        waiting.write_text(what)
        waiting.rename(self.faults / seam)

    def was_hit(self, seam: str) -> bool:
        """Whether a process did."""
        return (self.faults / (seam + ".hit")).exists()

    def ids(self, count: int) -> list[int]:
        """Ids that no other case uses."""
        first = self.numbers + 1
        self.numbers += count
        return list(range(first, first + count))

    def drop(self, ids: list[int]) -> None:
        """A file with a row for each id."""
        path = self.up.inbox / "pipe" / f"{ids[0]}.csv"
        path.write_text("id,name\n" + "".join(f"{number},n{number}\n" for number in ids))

    def post(self, number: int) -> None:
        """A delivery, sent again and again as a sender does, until it is answered with 2xx."""
        body = b'{"id": %d, "name": "n%d"}' % (number, number)
        url = f"http://127.0.0.1:{self.up.made()['PENSTOCK_PORT']}/hooks/pipe"

        def answered() -> bool:
            signed = verify.sign(
                standard_webhooks("PIPE_WEBHOOK_SECRET"), SECRET, f"delivery-{number}", body, utc_now()
            )
            try:
                answer = httpx.post(
                    url, content=body, headers={"content-type": "application/json", **signed}, timeout=10
                )
            except httpx.HTTPError:
                return False
            return answer.is_success

        wait_for(answered, seconds=WITHIN_SECONDS, what=f"delivery {number} is accepted")

    def loaded(self, ids: list[int]) -> list[int]:
        """Those of the ids that are in the table, as often as they are."""
        listed = ", ".join(map(str, ids))
        try:
            found = self.warehouse.query(f"SELECT id FROM pipe WHERE id IN ({listed}) ORDER BY id", limit=1000)
        except (WarehouseLocked, QueryRefused):  # held by a load, or there is no table yet
            return []
        return [row[0] for row in found.rows]

    def is_quiet(self) -> bool:
        """Whether nothing is open in the ledger."""
        return not any(
            standing.counts.get("pending") or standing.counts.get("claimed")
            for standing in self.ledger.facts.standings()
        )


@pytest.fixture(scope="module", params=["sqlite and DuckDB", "PostgreSQL"])
def pipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipe]:
    """A project that is up."""
    folder = tmp_path_factory.mktemp("seams")
    where = folder / "faults"
    with ExitStack() as stack:
        extra = {**SETTINGS, "PENSTOCK_FAULTS": str(where)}
        if request.param == "PostgreSQL":
            from tests.real_postgres import real_postgres

            server = stack.enter_context(real_postgres())
            extra |= {"PENSTOCK_LEDGER_URL": server.ledger_url(), "PENSTOCK_WAREHOUSE_URL": server.warehouse_url()}
        up = Up.make(folder / "project", only=["sensors"])
        where.mkdir()
        own = {"flows/pipe.py": DECLARED, "webhook/pipe.py": SENDER, "automations/pipe.py": AUTOMATED}
        for name, content in own.items():
            up.folder.joinpath(name).parent.mkdir(exist_ok=True)
            up.folder.joinpath(name).write_text(content)
        up.extra = extra
        stack.callback(up.stop)
        pipe = Pipe(up=up, faults=where)
        stack.callback(pipe.ledger.close)
        # The first load makes the table and remembers the schema, so that every case finds the same ground.
        first = pipe.ids(1)
        pipe.drop(first)
        wait_for(lambda: pipe.loaded(first), seconds=WITHIN_SECONDS, what="the first file is loaded")
        yield pipe


def _cases() -> list[tuple[str, str]]:
    by_part: dict[str, list[tuple[str, str]]] = {}
    for what in ("kill", "raise", "hang"):
        for seam in faults.SEAMS:
            part = "webhook" if "envelope" in seam else seam.split(".")[0]
            by_part.setdefault(part, []).append((seam, what))
    return [case for turn in zip_longest(*by_part.values()) for case in turn if case is not None]


@pytest.mark.parametrize(("seam", "what"), _cases())
def test_a_fault_costs_time_only(pipe: Pipe, seam: str, what: str) -> None:
    """Whatever happens at a seam, each row is in the warehouse once, and what comes after goes through as ever."""
    pipe.lay(seam, what)
    ids: list[int] = []

    def passed() -> bool:
        if pipe.was_hit(seam):
            return True
        # A run that was still at work may have taken the last one along, without a wake-up and a lease of its own.
        if not ids or (pipe.is_quiet() and set(pipe.loaded(ids)) == set(ids)):
            more = pipe.ids(1 if "envelope" in seam else 3)
            ids.extend(more)
            if "envelope" in seam:
                pipe.post(more[0])
            else:
                pipe.drop(more)
        return False

    wait_for(passed, seconds=WITHIN_SECONDS, what=f"{seam} is passed")
    wait_for(lambda: set(pipe.loaded(ids)) == set(ids), seconds=WITHIN_SECONDS, what=f"{ids} are loaded after {what}")
    after = pipe.ids(1)
    pipe.drop(after)
    wait_for(
        lambda: pipe.is_quiet() and pipe.loaded(after) == after, seconds=WITHIN_SECONDS, what="the next file is loaded"
    )
    assert pipe.loaded(ids) == ids
