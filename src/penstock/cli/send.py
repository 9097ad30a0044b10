"""`penstock send SOURCE FILE`: post a file to the webhook, signed as the source would sign it."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import click
import httpx

from penstock.errors import NotRunning, PenstockError, SettingsError, Unverified
from penstock.ledger.database import utc_now
from penstock.project import load_project
from penstock.settings import Settings, load_settings
from penstock.sources import Source
from penstock.webhook import verify
from penstock.webhook.secrets import open_secrets, remedy


@click.command()
@click.argument("source")
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
    """Post FILE to the webhook as SOURCE would, signed with its secret."""
    settings = load_settings(project_dir)
    declared = load_project(settings.project_dir, only=["flows", "webhook"]).source(source)
    body = file.read_bytes()
    secret = _signing(settings, declared)
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
            headers={"content-type": "application/json", **extra, **signed},
            timeout=30,
        )
    except httpx.ConnectError:
        raise NotRunning(f"nothing listens at {url}: start it with `penstock up`") from None
    facts = _facts(answer)
    if as_json:
        click.echo(json.dumps({"status": answer.status_code, **facts}, indent=2))
    elif answer.is_success:
        again = "a duplicate, loaded once" if facts.get("duplicate") else "accepted"
        click.echo(f"{answer.status_code} {again}: {facts.get('delivery')}. Next: penstock why {facts.get('delivery')}")
    if not answer.is_success:
        raise PenstockError(f"{url} answered {answer.status_code}: {facts.get('detail') or facts.get('title')}")


def _signing(settings: Settings, source: Source) -> str:
    """The first of the source's secrets that signs; nothing where none is needed."""
    if source.verify.scheme == "none":
        return ""
    secrets = open_secrets(settings, [source])
    secrets.refresh()
    known = [value for value in map(secrets.value, source.verify.secrets) if value]
    if not known:
        raise SettingsError(f"no secret for {source.name}: {remedy(source.verify.secrets[0])}")
    return next((value for value in known if verify.can_sign(source.verify, value)), known[0])


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
