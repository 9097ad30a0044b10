"""How a request that was refused and kept is told, to people and to programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from penstock.cli.delivery_body import call
from penstock.cli.show import cell, moment

if TYPE_CHECKING:
    from penstock.ledger.rejections import Kept


def refused_lines(one: Kept) -> Iterator[str]:
    """In rich's markup: why, when, from where, and until when it is kept."""
    rejected = one.rejected
    yield f"[bold]{call(one)}[/bold]  [red]{cell(rejected.kind)}[/red]  {cell(rejected.source)}"
    yield f"  {moment(rejected.at)}  refused: {cell(rejected.detail)}"
    yield f"  from {cell(rejected.address)}, request {cell(rejected.request)}, {rejected.bytes:,} bytes"
    if len(rejected.body) < rejected.bytes:
        yield f"  of which {len(rejected.body):,} are kept"
    yield f"  kept until {moment(one.expires_at)}"


def refused_facts(one: Kept) -> dict[str, Any]:
    """Everything but its headers and its body."""
    facts = asdict(replace(one.rejected, body=b"", headers=()))
    del facts["body"], facts["headers"]
    return {"id": call(one), "number": one.number, "expires_at": one.expires_at, **facts}
