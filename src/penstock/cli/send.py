"""`penstock send SOURCE FILE`: post a file to the webhook, signed as the source would sign it."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import click
import httpx

from penstock.errors import NotRunning, PenstockError, SettingsError
from penstock.ledger.database import utc_now
from penstock.project import load_project
from penstock.settings import load_settings
from penstock.webhook import verify


@click.command()
@click.argument("source")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--id", "delivery", help="The delivery's id; the same again is a duplicate (default: a new one).")
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
    secret = next(filter(None, map(settings.resolve_secret, declared.verify.secrets)), "")
    if not secret and declared.verify.scheme != "none":
        raise SettingsError(f"no secret for {source}: set {declared.verify.secrets[0]}, or `penstock up` makes one")
    signed = verify.sign(declared.verify, secret, delivery or str(uuid.uuid4()), body, utc_now())
    extra = dict(header.split(":", 1) for header in headers if ":" in header)
    url = f"http://{settings.host}:{settings.port}/hooks/{source}"
    try:
        answer = httpx.post(
            url,
            content=body,
            headers={
                "content-type": "application/json",
                **{name: value.strip() for name, value in extra.items()},
                **signed,
            },
            timeout=30,
        )
    except httpx.ConnectError:
        raise NotRunning(f"nothing listens at {url}: start it with `penstock up`") from None
    facts = answer.json()
    if as_json:
        click.echo(json.dumps({"status": answer.status_code, **facts}, indent=2))
    elif answer.is_success:
        again = "a duplicate, loaded once" if facts.get("duplicate") else "accepted"
        click.echo(f"{answer.status_code} {again}: {facts.get('delivery')}. Next: penstock why {facts.get('delivery')}")
    if not answer.is_success:
        raise PenstockError(f"{url} answered {answer.status_code}: {facts.get('detail') or facts.get('title')}")
