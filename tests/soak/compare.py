"""What was accepted against what the ledger says and what the tables hold, row by row."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from penstock.ledger import Ledger
from penstock.ledger.tables import objects
from penstock.model import ENVELOPE_PREFIX
from tests.soak.plan import Content
from tests.soak.senders import Accepted

_OPEN = ("pending", "claimed")
Row = tuple[str, int, str]


@dataclass(kw_only=True)
class Verdict:
    """Rows that are not as they must be, each with the key or delivery it came with."""

    rows: int = 0
    lost: dict[str, str] = field(default_factory=dict)
    twice: dict[str, str] = field(default_factory=dict)
    # Rows of an overwritten generation or of poison, and such as nobody sent.
    wrong: dict[str, str] = field(default_factory=dict)
    # Keys and deliveries that did not end as they must.
    astray: dict[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether all is as it must be."""
        return not (self.lost or self.twice or self.wrong or self.astray)


def unsettled(ledger: Ledger, accepted: Accepted) -> dict[str, str]:
    """What is still on its way, by key or delivery id, with where it is."""
    newest, waiting = _newest(ledger)
    with accepted.lock:
        wanted = {key: hashlib.md5(content.body()).hexdigest() for key, content in accepted.objects.items()}  # noqa: S324
        deliveries = list(accepted.deliveries)
    for key, etag in wanted.items():
        found = newest.get(key)
        if found is None:
            waiting[key] = "not in the ledger"
        elif found.etag != etag:
            waiting[key] = f"the ledger's newest generation is {found.generation} with another etag"
    waiting |= {id: "not in the ledger" for id in deliveries if id not in newest}
    return waiting


def compare(ledger: Ledger, accepted: Accepted, tables: Mapping[str, Counter[Row]]) -> Verdict:
    """`tables` are the rows that each table holds, counted."""
    verdict = Verdict(rows=sum(sum(rows.values()) for rows in tables.values()))
    source: dict[str, str] = {}
    expected: dict[str, set[Row]] = {"drops": set(), "posts": set()}
    for key, content in accepted.objects.items():
        source[content.id] = key
        stands = accepted.stays.get(key) if content.poison else content
        if stands is not None:
            source[stands.id] = key
            expected["drops"].update(stands.lines())
    for id, (sender, content) in accepted.deliveries.items():
        source[content.id] = id
        expected["drops" if sender == "shop" else "posts"].update(content.lines())
    for table, wanted in expected.items():
        there = tables.get(table, Counter())
        verdict.lost |= {row[0]: _of(row, source) for row in wanted - set(there)}
        verdict.twice |= {row[0]: _of(row, source) for row, count in there.items() if count > 1}
        verdict.wrong |= {str(row[0]): _of(row, source) for row in set(there) - wanted}
    verdict.astray = unsettled(ledger, accepted) | _ended_wrong(ledger, accepted)
    return verdict


def _ended_wrong(ledger: Ledger, accepted: Accepted) -> dict[str, str]:
    newest, _ = _newest(ledger)
    wanted: dict[str, Content] = {
        **accepted.objects,
        **{id: content for id, (_, content) in accepted.deliveries.items()},
    }
    wrong = {}
    for name, content in wanted.items():
        state = "quarantined" if content.poison else "loaded"
        found = newest.get(name)
        if found is not None and found.state != state:
            wrong[name] = f"is {found.state}, not {state}: {found.reason}"
    return wrong


def _newest(ledger: Ledger) -> tuple[dict[str, Any], dict[str, str]]:
    """By key or delivery id the newest row, and what is open of any generation."""
    newest: dict[str, Any] = {}
    waiting: dict[str, str] = {}
    with ledger.database.read() as connection:
        for row in connection.execute(select(objects).order_by(objects.c.id)):
            name = row.delivery if row.key.startswith(ENVELOPE_PREFIX) else row.key
            newest[name] = row
            if row.state in _OPEN:
                waiting[name] = f"generation {row.generation} is {row.state}"
    return newest, waiting


def _of(row: Row, source: Mapping[str, str]) -> str:
    return source.get(str(row[0]).partition(".")[0], "(nobody's, or an overwritten generation's)")
