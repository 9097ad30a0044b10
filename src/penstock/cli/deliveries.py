"""`penstock deliveries`: what the webhook accepted, and what it refused: listed, shown, sent again."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from penstock.cli import completing, delivery_body
from penstock.cli.delivery_body import call, named, one_of, shown, write_raw
from penstock.cli.known import check_dataset
from penstock.cli.next_steps import next_of
from penstock.cli.output import aside, results
from penstock.cli.replay import replay_selection, when
from penstock.cli.show import STYLES, cell, moment, printable, table
from penstock.cli.show_refused import refused_facts, refused_lines
from penstock.errors import PenstockError, Terminal
from penstock.model import State
from penstock.nearest import did_you_mean
from penstock.project import load_project
from penstock.settings import Settings, load_settings
from penstock.sources import Source
from penstock.wiring import open_ledger, open_store

if TYPE_CHECKING:
    from penstock.ledger import Ledger
    from penstock.ledger.delivered import Delivered
    from penstock.ledger.rejections import Kept

# So many columns of a list are always printed: time, source, id and the next two.
_COLUMNS = 5
_ID = "ID is a delivery's id (source:id where several sources have it), a request's id, or rejected/N."


@click.group()
def deliveries() -> None:
    """What the webhook accepted, and what it refused: listed, shown, sent again."""


@deliveries.command()
@click.option("--source", shell_complete=completing.sources, help="Only of this source.")
@click.option("--dataset", shell_complete=completing.datasets, help="Only of this dataset.")
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
    settings = load_settings(project_dir)
    ledger = open_ledger(settings)
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
    if source is not None and not found:
        _check_source(settings, ledger, source)
    if dataset is not None and not found:
        check_dataset(settings, dataset)
    page, more = found[:limit], len(found) > limit
    if as_json:
        told = [_facts(one) for one in page]
        click.echo(json.dumps({"rejected" if rejected else "deliveries": told, "more": more}, indent=2, default=str))
    elif not page:
        narrowed = any((source, dataset, state, since, before))
        click.echo(f"Nothing {'was refused and kept' if rejected else 'was accepted'}{' so' if narrowed else ''}.")
    else:
        _print_page(page, more)


def _check_source(settings: Settings, ledger: Ledger, source: str) -> None:
    """Raises BadParameter for a source that is neither declared nor, from when it was, in the ledger."""
    if ledger.delivered.page(limit=1, source=source, archived=True) or ledger.rejections.page(limit=1, source=source):
        return
    declared = [one.name for one in load_project(settings.project_dir, only=["flows", "webhook"]).sources]
    if source not in declared:
        raise click.BadParameter(
            f"no file in webhook/ declares {source!r}, and nothing of it is in the ledger; there are: "
            f"{', '.join(declared) or 'none'}{did_you_mean(source, declared)}",
            param_hint="--source",
        )


def _print_page(page: Sequence[Delivered | Kept], more: bool) -> None:
    from penstock.ledger.rejections import Kept

    console = results()
    rows: list[list[Any]] = []
    for one in page:
        if isinstance(one, Kept):
            r = one.rejected
            rows.append([r.at, r.source, call(one), r.kind, r.bytes, r.address, r.request])
        else:
            state = "archived, " + one.state.value if one.archived_at else one.state.value
            rows.append([one.arrived_at, one.source, one.delivery, one.dataset, state, one.size])
    if isinstance(page[0], Kept):
        _print_table(console, ["time", "source", "id", "why", "bytes", "address", "request"], rows)
    else:
        _print_table(console, ["time", "source", "id", "dataset", "state", "bytes"], rows)
    if more:
        aside(f"There are more: --before {page[-1].number}, or a larger --limit")
    aside("One of them: penstock deliveries show ID")


def _print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print the columns for which there is room, at least so many; no id is broken, so that it can be copied."""

    def made(count: int) -> Table:
        found = table(columns[:count], [row[:count] for row in rows])
        found.columns[columns.index("id")].no_wrap = True
        return found

    def wide(count: int) -> Measurement:
        return Measurement.get(console, console.options.update(max_width=100_000), made(count))

    fitting = (count for count in range(len(columns), _COLUMNS, -1) if wide(count).maximum <= console.width)
    count = next(fitting, _COLUMNS)
    # Wider than the terminal where it must be: a line that the terminal wraps is copied as one.
    console.width = max(console.width, wide(count).minimum)
    console.print(made(count))


@deliveries.command(epilog=_ID)
@click.argument("id", metavar="ID", shell_complete=completing.deliveries)
@click.option("--source", shell_complete=completing.sources, help="Of this source.")
@click.option("--rejected", is_flag=True, help="ID is the number of one that was refused.")
@click.option("--body", "raw", is_flag=True, help="Write the body's bytes, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program, the whole body among them.")
@click.pass_obj
def show(project_dir: Path, id: str, source: str | None, rejected: bool, raw: bool, as_json: bool) -> None:
    """What came with ID: facts, headers, and the beginning of the body."""
    from penstock.ledger.rejections import Kept

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
    from penstock.ledger.rejections import Kept

    console = results()
    for line in refused_lines(one) if isinstance(one, Kept) else _accepted_lines(one):
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
    step = next_of(one.state, name=one.name, delivery=call(one), removed=one.archived_at is not None)
    yield f"  next: {cell(step)}"


@deliveries.command(epilog=_ID)
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=completing.deliveries)
@click.option("--source", shell_complete=completing.sources, help="Of this source.")
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
    from penstock.ledger.delivered import Delivered
    from penstock.ledger.rejections import Kept
    from penstock.ledger.replay import Selection

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
    called = {one.name: call(one) for one in meant if isinstance(one, Delivered)}
    selection = Selection(keys=tuple(called))
    replay_selection(project_dir, selection, force=force, dry_run=dry_run, yes=yes, as_json=as_json, called=called)


def _meant(
    ledger: Ledger, ids: Sequence[str], source: str | None, rejected: bool, *, several: bool
) -> list[Delivered | Kept]:
    """What the ids mean; with `several` a request means all that it brought. Raises NotMeant."""
    from penstock.ledger.delivered import Delivered

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

    try:
        post_to.checked_url(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--to") from None
    sources = {one.name: one for one in load_project(settings.project_dir, only=["flows", "webhook"]).sources}
    told, failed = [], False
    for one in meant:
        facts: dict[str, Any] = {"id": call(one), "to": post_to.shown_url(url)}
        try:
            more, taken = _post(settings, one, sources, url, unsigned=unsigned, dry_run=dry_run)
        except PenstockError as error:
            more, taken = {"error": printable(str(error))}, False
        facts |= more
        failed = failed or not taken
        told.append(facts)
        if not as_json:
            click.echo(printable(_posted(facts)), err="error" in facts)
    if as_json:
        click.echo(json.dumps({"posted": told, "dry_run": dry_run}, indent=2))
    if failed:
        sys.exit(1)


def _post(
    settings: Settings,
    one: Delivered | Kept,
    sources: Mapping[str, Source],
    url: str,
    *,
    unsigned: bool | None,
    dry_run: bool,
) -> tuple[dict[str, Any], bool]:
    """Post one: what came of it, and whether it was taken. Raises PenstockError where it cannot be posted."""
    from penstock.cli import post_to
    from penstock.ledger.rejections import Kept

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
    facts: dict[str, Any] = {"headers": sorted(headers), "bytes": len(body)}
    if dry_run:
        return facts, True
    answer = post_to.post(url, body, headers)
    location = answer.location[: post_to.ANSWER_BYTES]
    beginning = shown(answer.beginning, "", pretty=False)
    return {**facts, "status": answer.status, "location": location or None, "answer": beginning}, answer.taken


def _posted(facts: Mapping[str, Any]) -> str:
    if "error" in facts:
        return f"Not posted: {facts['id']}: {facts['error']}"
    if "status" not in facts:
        return f"Would be posted: {facts['id']}, {facts['bytes']:,} bytes, with {', '.join(facts['headers'])}"
    on = f", to {facts['location']} (not followed)" if facts["location"] else ""
    answer = f"\n{facts['answer']}" if facts["answer"] else ""
    return f"{facts['status']}{on}: {facts['id']} to {facts['to']}{answer}"


def _to_post(settings: Settings, one: Delivered | Kept) -> tuple[str, bytes, str, dict[str, str]]:
    """Id, body, content type and kept headers. Raises Terminal where the body is not whole any more."""
    from penstock.ledger.rejections import Kept

    if isinstance(one, Kept):
        rejected = one.rejected
        if len(rejected.body) < rejected.bytes:
            raise Terminal(f"of {call(one)} only the first {len(rejected.body):,} of {rejected.bytes:,} bytes are kept")
        return str(uuid.uuid4()), rejected.body, rejected.content_type, dict(rejected.headers)
    delivery = delivery_body.read(open_store(settings), one)
    return delivery.id, delivery.body, delivery.content_type, delivery.headers


def _facts(one: Delivered | Kept) -> dict[str, Any]:
    from penstock.ledger.rejections import Kept

    return refused_facts(one) if isinstance(one, Kept) else {**asdict(one), "name": one.name}
