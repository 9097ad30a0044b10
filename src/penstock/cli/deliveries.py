"""`penstock deliveries`: what the webhook accepted, and what it refused: listed, shown, sent again."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from penstock.cli import delivery_body
from penstock.cli.delivery_body import call, named, one_of, shown, write_raw
from penstock.cli.replay import replay_selection, when
from penstock.cli.show import STYLES, cell, moment, printable, table
from penstock.errors import PenstockError, Terminal
from penstock.ledger import Ledger
from penstock.ledger.delivered import Delivered
from penstock.ledger.rejections import Kept
from penstock.ledger.replay import Selection
from penstock.ledger.states import next_step
from penstock.model import State
from penstock.settings import Settings, load_settings
from penstock.wiring import open_ledger, open_store

_ID = "ID is a delivery's id (source:id where several sources have it), a request's id, or rejected/N."


@click.group()
def deliveries() -> None:
    """What the webhook accepted, and what it refused: listed, shown, sent again."""


@deliveries.command()
@click.option("--source", help="Only of this source.")
@click.option("--dataset", help="Only of this dataset.")
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only what is so.")
@click.option("--since", metavar="WHEN", callback=when, help="Came at or after WHEN, as 2h, 7d or a date.")
@click.option("--before", type=click.IntRange(1), metavar="NUMBER", help="The next page: what came before this number.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many at most.")
@click.option("--archived", is_flag=True, help="Also those whose bodies retention removed.")
@click.option("--rejected", is_flag=True, help="What sources refused and keep, instead.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def ls(
    project_dir: Path,
    source: str | None,
    dataset: str | None,
    state: str | None,
    since: datetime | None,
    before: int | None,
    limit: int,
    archived: bool,
    rejected: bool,
    as_json: bool,
) -> None:
    """Deliveries, the newest first. With --json, `more` says whether there are more than the limit.

    With --rejected: what was refused, of sources that say keep_rejected_days.
    """
    if rejected and (dataset or state or archived):
        raise click.UsageError("--rejected has no dataset, no state and no archive: --source and --since narrow it")
    ledger = open_ledger(load_settings(project_dir))
    found: Sequence[Delivered | Kept]
    if rejected:
        found = ledger.rejections.page(limit=limit + 1, source=source, since=since, before=before)
    else:
        try:
            found = ledger.delivered.page(
                limit=limit + 1,
                source=source,
                dataset=dataset,
                state=State(state) if state else None,
                since=since,
                before=before,
                archived=archived,
            )
        except LookupError:
            raise click.BadParameter(f"no delivery has the number {before}", param_hint="--before") from None
    page, more = found[:limit], len(found) > limit
    if as_json:
        told = [_facts(one) for one in page]
        click.echo(json.dumps({"rejected" if rejected else "deliveries": told, "more": more}, indent=2, default=str))
    elif not page:
        narrowed = any((source, dataset, state, since, before))
        click.echo(f"Nothing {'was refused and kept' if rejected else 'was accepted'}{' so' if narrowed else ''}.")
    else:
        _print_page(page, more)


def _print_page(page: Sequence[Delivered | Kept], more: bool) -> None:
    console = Console(highlight=False)
    rows: list[list[Any]] = []
    for one in page:
        if isinstance(one, Kept):
            r = one.rejected
            rows.append([r.at, r.source, call(one), r.kind, r.bytes, r.address, r.request])
        else:
            state = "archived, " + one.state.value if one.archived_at else one.state.value
            rows.append([one.arrived_at, one.source, one.delivery, one.dataset, state, one.size])
    if isinstance(page[0], Kept):
        console.print(table(["time", "source", "id", "why", "bytes", "address", "request"], rows))
    else:
        console.print(table(["time", "source", "id", "dataset", "state", "bytes"], rows))
    if more:
        console.print(f"There are more: --before {page[-1].number}, or a larger --limit", soft_wrap=True)
    console.print("One of them: penstock deliveries show ID", soft_wrap=True)


@deliveries.command(epilog=_ID)
@click.argument("id", metavar="ID")
@click.option("--source", help="Of this source.")
@click.option("--rejected", is_flag=True, help="ID is the number of one that was refused.")
@click.option("--body", "raw", is_flag=True, help="Write the body's bytes, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program, the whole body among them.")
@click.pass_obj
def show(project_dir: Path, id: str, source: str | None, rejected: bool, raw: bool, as_json: bool) -> None:
    """What came with ID: facts, headers, and the beginning of the body."""
    if raw and as_json:
        raise click.UsageError("--body writes bytes and --json writes facts: say one of them")
    settings = load_settings(project_dir)
    one = one_of(id, named(open_ledger(settings), id, source=source, rejected=rejected))
    trouble = None
    headers: Sequence[tuple[str, str]] = ()
    body, content_type = None, ""
    if isinstance(one, Kept):
        headers, body, content_type = one.rejected.headers, one.rejected.body, one.rejected.content_type
    else:
        try:
            delivery = delivery_body.read(open_store(settings), one)
            headers, body, content_type = tuple(delivery.headers.items()), delivery.body, delivery.content_type
        except PenstockError as error:
            if raw:
                raise
            trouble = printable(str(error))
    if raw:
        assert body is not None
        write_raw(body)
    elif as_json:
        facts = {**_facts(one), "content_type": content_type, "headers": [list(header) for header in headers]}
        facts |= delivery_body.as_json(body) if body is not None else {"trouble": trouble}
        click.echo(json.dumps(facts, indent=2, default=str))
    else:
        _tell(one, content_type, headers, body, trouble)


def _tell(
    one: Delivered | Kept,
    content_type: str,
    headers: Sequence[tuple[str, str]],
    body: bytes | None,
    trouble: str | None,
) -> None:
    console = Console(highlight=False)
    for line in _refused_lines(one) if isinstance(one, Kept) else _accepted_lines(one):
        console.print(line, soft_wrap=True)
    told = [f"content type {content_type}"] if content_type else []
    for line in [*map(printable, told), *delivery_body.header_lines(headers)]:
        click.echo(f"  {line}")
    click.echo()
    if body is None:
        click.echo(trouble, err=True)
    elif not body:
        click.echo("(nothing of the body is kept)" if isinstance(one, Kept) else "(no body)")
    else:
        click.echo(shown(body, content_type, pretty=sys.stdout.isatty()))


def _accepted_lines(one: Delivered) -> Iterator[str]:
    style = STYLES.get(one.state, "dim")
    yield f"[bold]{cell(call(one))}[/bold]  [{style}]{one.state.value}[/{style}]  {cell(one.dataset)}"
    request = f", request {cell(one.request)}" if one.request else ""
    yield f"  {moment(one.arrived_at)}  accepted, {one.size:,} bytes{request}"
    if one.reason:
        yield f"  {moment(one.changed_at)}  {cell(one.reason)}"
    elif one.rows is not None:
        yield f"  {moment(one.changed_at)}  {one.rows:,} rows, {one.rejected or 0:,} rejected"
    if one.archived_at is not None:
        yield f"  {moment(one.archived_at)}  retention removed its envelope"
    yield f"  {cell(one.name)}"
    yield f"  next: {next_step(one.state, removed=one.archived_at is not None)}"


def _refused_lines(one: Kept) -> Iterator[str]:
    rejected = one.rejected
    yield f"[bold]{call(one)}[/bold]  [red]{cell(rejected.kind)}[/red]  {cell(rejected.source)}"
    yield f"  {moment(rejected.at)}  refused: {cell(rejected.detail)}"
    yield f"  from {cell(rejected.address)}, request {cell(rejected.request)}, {rejected.bytes:,} bytes"
    if len(rejected.body) < rejected.bytes:
        yield f"  of which {len(rejected.body):,} are kept"
    yield f"  kept until {moment(one.expires_at)}"


@deliveries.command(epilog=_ID)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--source", help="Of this source.")
@click.option("--to", "url", metavar="URL", help="Post to this URL instead, for debugging.")
@click.option("--unsigned/--signed", default=None, help="With --to: without, or with, a fresh signature of the source.")
@click.option("--rejected", is_flag=True, help="IDs are numbers of what was refused; only with --to.")
@click.option("--force", is_flag=True, help="Also what is loaded: its rows are replaced.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask, though it be more than 100.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def replay(
    project_dir: Path,
    ids: Sequence[str],
    source: str | None,
    url: str | None,
    unsigned: bool | None,
    rejected: bool,
    force: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Load deliveries again, as penstock replay does; or post them to a URL, to see what becomes of them there.

    With --to each is posted with its body, its content type, the headers that the source keeps, and a signature of the
    source made now; the one it came with is kept nowhere. This command posts to whatever URL you give it, also inside
    your network; nothing that penstock serves does. A redirect is shown and not followed, and no proxy of the
    environment is used. What was refused goes unsigned unless you say --signed: you would vouch for it.

    Exit code: 0 all done, 1 something was refused, not found, or not answered with 2xx, 2 wrong usage.
    """
    if url is None and unsigned is not None:
        raise click.UsageError("--signed and --unsigned are for --to")
    if url is not None and force:
        raise click.UsageError("--force is for loading again; --to only posts")
    settings = load_settings(project_dir)
    ledger = open_ledger(settings)
    meant = _meant(ledger, ids, source, rejected, several=url is None)
    if url is not None:
        _post_all(settings, meant, url, unsigned=unsigned, dry_run=dry_run, as_json=as_json)
        return
    if refused := [call(one) for one in meant if isinstance(one, Kept)]:
        raise click.UsageError(
            f"{', '.join(refused)}: what was refused is not loaded, nobody has verified it. Its sender may send it "
            "again; or post it with --to"
        )
    names = tuple(dict.fromkeys(one.name for one in meant if isinstance(one, Delivered)))
    replay_selection(project_dir, Selection(keys=names), force=force, dry_run=dry_run, yes=yes, as_json=as_json)


def _meant(
    ledger: Ledger, ids: Sequence[str], source: str | None, rejected: bool, *, several: bool
) -> list[Delivered | Kept]:
    """What the ids mean; with `several` a request means all that it brought. Raises NotMeant."""
    meant: list[Delivered | Kept] = []
    for id in ids:
        found = named(ledger, id, source=source, rejected=rejected)
        of_one_request = all(isinstance(one, Delivered) and one.request == id for one in found)
        meant += found if several and of_one_request else [one_of(id, found)]
    return meant


def _post_all(
    settings: Settings,
    meant: Sequence[Delivered | Kept],
    url: str,
    *,
    unsigned: bool | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from penstock.cli import post_to
    from penstock.project import load_project

    try:
        post_to.checked_url(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--to") from None
    sources = {one.name: one for one in load_project(settings.project_dir, only=["flows", "webhook"]).sources}
    told, failed = [], False
    for one in meant:
        name = one.rejected.source if isinstance(one, Kept) else one.source
        declared = sources.get(name)
        id, body, content_type, kept = _to_post(settings, one)
        signature: dict[str, str] = {}
        if not (isinstance(one, Kept) if unsigned is None else unsigned):
            if declared is None:
                raise Terminal(printable(f"no file in webhook/ declares {name!r} any more: say --unsigned"))
            signature = post_to.fresh_signature(settings, declared, url, id, body)
        inflated = not isinstance(one, Kept)
        headers = post_to.headers_to_send(kept, content_type, declared, signature, inflated=inflated)
        facts: dict[str, Any] = {"id": call(one), "to": post_to.shown_url(url), "headers": sorted(headers)}
        if dry_run:
            line = f"Would be posted: {call(one)}, {len(body):,} bytes, with {', '.join(sorted(headers))}"
        else:
            answer = post_to.post(url, body, headers)
            failed = failed or not answer.taken
            beginning = shown(answer.beginning, "", pretty=False)
            location = answer.location[: post_to.ANSWER_BYTES]
            facts |= {"status": answer.status, "location": location or None, "answer": beginning}
            on = f", to {location} (not followed)" if location else ""
            line = f"{answer.status}{on}: {call(one)} to {facts['to']}" + (f"\n{beginning}" if beginning else "")
        told.append(facts)
        if not as_json:
            click.echo(printable(line))
    if as_json:
        click.echo(json.dumps({"posted": told, "dry_run": dry_run}, indent=2))
    if failed:
        sys.exit(1)


def _to_post(settings: Settings, one: Delivered | Kept) -> tuple[str, bytes, str, dict[str, str]]:
    """Id, body, content type and kept headers. Raises Terminal where the body is not whole any more."""
    if isinstance(one, Kept):
        rejected = one.rejected
        if len(rejected.body) < rejected.bytes:
            raise Terminal(f"of {call(one)} only the first {len(rejected.body):,} of {rejected.bytes:,} bytes are kept")
        return str(uuid.uuid4()), rejected.body, rejected.content_type, dict(rejected.headers)
    delivery = delivery_body.read(open_store(settings), one)
    return delivery.id, delivery.body, delivery.content_type, delivery.headers


def _facts(one: Delivered | Kept) -> dict[str, Any]:
    if not isinstance(one, Kept):
        return {**asdict(one), "name": one.name}
    facts = asdict(replace(one.rejected, body=b"", headers=()))
    del facts["body"], facts["headers"]
    return {"id": call(one), "number": one.number, "expires_at": one.expires_at, **facts}
