"""`penstock send SOURCE FILE`: post a file to the webhook, signed as the source would sign it."""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.completing import sources
from penstock.cli.show import printable
from penstock.cli.signing import signing_secret
from penstock.errors import NotRunning, PenstockError, Unverified
from penstock.project import load_project
from penstock.settings import load_settings
from penstock.sources import Source

if TYPE_CHECKING:
    import httpx


@click.command()
@click.argument("source", shell_complete=sources)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--id",
    "delivery",
    help="The delivery's id, where it is not in the body; the same again is a duplicate (default: a new one).",
)
@click.option("--header", "headers", multiple=True, help="A further header, as 'Name: value'.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def send(
    project_dir: Path, source: str, file: Path, delivery: str | None, headers: tuple[str, ...], as_json: bool
) -> None:
    """Post FILE to the webhook as SOURCE would, signed with its secret.

    It goes as application/json, or to a source of CloudEvents as one, or as a batch where it is a JSON array, unless a
    --header gives the Content-Type or ce-* attributes.
    """
    import httpx

    from penstock.ledger.database import utc_now
    from penstock.webhook import verify

    settings = load_settings(project_dir)
    declared = load_project(settings.project_dir, only=["flows", "webhook"]).source(source)
    body = file.read_bytes()
    secret = signing_secret(settings, declared)
    try:
        signed = verify.sign(declared.verify, secret, delivery or str(uuid.uuid4()), body, utc_now())
    except Unverified:
        raise click.BadParameter(f"{delivery!r} is no id that {source} may use", param_hint="--id") from None
    extra = dict(_named(header) for header in headers)
    url = f"http://{settings.host}:{settings.port}/hooks/{source}"
    try:
        answer = httpx.post(
            url,
            content=body,
            headers={"content-type": _content_type(declared, extra, body), **extra, **signed},
            timeout=30,
        )
    except httpx.ConnectError:
        raise NotRunning(f"nothing listens at {url}: start it with `penstock up`") from None
    facts = _facts(answer)
    if as_json:
        click.echo(json.dumps({"status": answer.status_code, **facts}, indent=2))
    elif answer.is_success:
        click.echo(f"{answer.status_code} {_told(url, source, facts)}")
    if not answer.is_success:
        raise PenstockError(f"{url} answered {answer.status_code}: {facts.get('detail') or facts.get('title')}")


def _content_type(source: Source, extra: Mapping[str, str], body: bytes) -> str:
    from penstock.webhook.cloudevents import BATCH_MEDIA_TYPE, MEDIA_TYPE

    if not source.cloudevents or any(name.startswith("ce-") for name in extra):
        return "application/json"
    return BATCH_MEDIA_TYPE if body.lstrip(b" \t\r\n").startswith(b"[") else MEDIA_TYPE


def _told(url: str, source: str, facts: Mapping[str, Any]) -> str:
    """What became of it, and the next command. Raises PenstockError for an answer that is none of the webhook's."""
    match facts:
        case {"delivery": str(delivery), "duplicate": bool(duplicate)}:
            again = "a duplicate, loaded once" if duplicate else "accepted"
            return printable(f"{again}: {delivery}. Next: penstock why {shlex.quote(delivery)}")
        case {"deliveries": list(deliveries)}:
            known = sum(isinstance(one, dict) and one.get("duplicate") is True for one in deliveries)
            again = f", {known:,} known already and loaded once" if known else ""
            new = f"{len(deliveries) - known:,} accepted"
            return f"a batch: {new}{again}. Next: penstock deliveries ls --source {source}"
        case {"challenge": str(challenge)}:
            answered = f"its challenge {challenge!r} came back" if challenge else "its challenge is none to give back"
        case {"handshake": str(handshake)}:
            answered = f"{handshake!r} is known"
        case _:
            raise PenstockError(f"{url} took it, but answers as no webhook of penstock does: what listens there?")
    return printable(
        f"a handshake: {answered}, nothing is delivered by it. Next, a delivery: penstock send {source} FILE"
    )


def _facts(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    # Something else may listen there, or stand between.
    return found if isinstance(found, dict) else {"detail": answer.reason_phrase}


def _named(header: str) -> tuple[str, str]:
    name, colon, value = header.partition(":")
    if not colon or not name.strip():
        raise click.BadParameter(f"{header!r} is no header; give one as 'Name: value'", param_hint="--header")
    return name.strip().lower(), value.strip()
