"""A project of one dataset of simple rows, running: rows go in by the folder or the webhook, and are counted by id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from penstock.errors import QueryRefused, WarehouseLocked
from penstock.ledger import Ledger
from penstock.ledger.database import utc_now
from penstock.settings import load_settings
from penstock.verification import standard_webhooks
from penstock.webhook import verify
from penstock.wiring import open_warehouse
from tests.acceptance.running import Up
from tests.waiting import wait_for

_DECLARED = """
from penstock import Dataset

DATASET = Dataset(name="pipe", columns={"id": "BIGINT"})
"""
_SENDER = """
from penstock import Source, standard_webhooks

SOURCE = Source(name="pipe", dataset="pipe", verify=standard_webhooks("PIPE_WEBHOOK_SECRET"))
"""
_AUTOMATED = """
from penstock import on_arrival

AUTOMATIONS = [on_arrival("pipe")]
"""
_SECRET = "whsec_" + "c2VhbXMgYXJlIHdoZXJlIHBpcGVzIGxlYWs="
_FILES = {"flows/pipe.py": _DECLARED, "webhook/pipe.py": _SENDER, "automations/pipe.py": _AUTOMATED}

# The longest way: a hang is noticed, the process starts anew, the lease runs out, the wake-up is sent again.
WITHIN_SECONDS = 60.0


@dataclass(kw_only=True)
class Pipe:
    """A running project with one dataset."""

    up: Up
    numbers: int = 0
    settings: Any = field(init=False)

    def __post_init__(self) -> None:
        self.up.start()
        overrides = {
            name.removeprefix("PENSTOCK_").lower(): value
            for name, value in self.up.extra.items()
            if name in ("PENSTOCK_LEDGER_URL", "PENSTOCK_WAREHOUSE_URL", "PENSTOCK_WAREHOUSE")
        }
        self.settings = load_settings(self.up.folder, **overrides)
        self.ledger = Ledger(self.settings.ledger, project=self.settings.project)
        self.warehouse = open_warehouse(self.settings)

    def ids(self, count: int) -> list[int]:
        """Ids that no other case uses."""
        first = self.numbers + 1
        self.numbers += count
        return list(range(first, first + count))

    def drop(self, ids: list[int]) -> Path:
        """A file with a row for each id."""
        path = self.up.inbox / "pipe" / f"{ids[0]}.csv"
        path.write_text(csv(ids))
        return path

    def send(self, number: int) -> httpx.Response:
        """A delivery, sent once."""
        body = b'{"id": %d, "name": "n%d"}' % (number, number)
        url = f"http://127.0.0.1:{self.up.made()['PENSTOCK_PORT']}/hooks/pipe"
        how = standard_webhooks("PIPE_WEBHOOK_SECRET")
        signed = verify.sign(how, _SECRET, f"delivery-{number}", body, utc_now())
        return httpx.post(url, content=body, headers={"content-type": "application/json", **signed}, timeout=10)

    def post(self, number: int) -> None:
        """A delivery, sent again and again as a sender does, until it is answered with 2xx."""

        def answered() -> bool:
            try:
                return self.send(number).is_success
            except httpx.HTTPError:
                return False

        wait_for(answered, seconds=WITHIN_SECONDS, what=f"delivery {number} is accepted")

    def loaded(self, ids: list[int]) -> list[int]:
        """Those of the ids that are in the table, as often as they are."""
        listed = ", ".join(map(str, ids))
        sql = f"SELECT id FROM pipe WHERE id IN ({listed}) ORDER BY id"
        try:
            found = self.warehouse.query(sql, limit=1000 + 2 * len(ids))
        except (WarehouseLocked, QueryRefused):  # held by a load, or there is no table yet
            return []
        return [row[0] for row in found.rows]

    def counts(self) -> dict[str, int]:
        """How many objects of the dataset are in each state."""
        return next((standing.counts for standing in self.ledger.facts.standings() if standing.dataset == "pipe"), {})

    def is_quiet(self) -> bool:
        """Whether nothing is open in the ledger."""
        return not any(
            standing.counts.get("pending") or standing.counts.get("claimed")
            for standing in self.ledger.facts.standings()
        )


@contextmanager
def running(
    folder: Path,
    *,
    settings: Mapping[str, str],
    files: Mapping[str, str] | None = None,
) -> Iterator[Pipe]:
    """The project in `folder`, up, with its first file loaded; `files` are further declarations of it.

    The first load makes the table and remembers the schema, so that every case finds the same ground.
    """
    up = Up.make(folder, only=["sensors"])
    for name, content in {**_FILES, **(files or {})}.items():
        folder.joinpath(name).parent.mkdir(exist_ok=True)
        folder.joinpath(name).write_text(content)
    up.extra = {**settings, "PIPE_WEBHOOK_SECRET": _SECRET}
    pipe = None
    try:
        pipe = Pipe(up=up)
        first = pipe.ids(1)
        pipe.drop(first)
        wait_for(lambda: pipe.loaded(first), seconds=WITHIN_SECONDS, what="the first file is loaded")
        yield pipe
    finally:
        if pipe is not None:
            pipe.ledger.close()
        if up.process is not None:
            up.stop()


def csv(ids: list[int]) -> str:
    """A file's text with a row for each id."""
    return "id,name\n" + "".join(f"{number},n{number}\n" for number in ids)
