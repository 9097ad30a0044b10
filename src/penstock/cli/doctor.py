"""`penstock doctor`: each setting and where it came from, each part and what to do about it."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from penstock.cli.faulty import refuse_faulty
from penstock.cli.output import results
from penstock.cli.running import pid_of_up
from penstock.cli.show import table
from penstock.errors import PenstockError
from penstock.project import Project, load_project
from penstock.settings import KIND_FILE, RUNTIME_FILE, Settings, load_settings, masked, provenance, read_made
from penstock.wiring import open_ledger, open_prefect, open_store, open_warehouse


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One part, whether it is well, and what is to be said of it."""

    part: str
    ok: bool
    says: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def doctor(project_dir: Path, as_json: bool) -> None:
    """Check settings and parts; exit 1 when something needs a hand."""
    settings = load_settings(project_dir)
    lines = provenance(settings)
    findings = examine(settings)
    if as_json:
        facts = {"settings": [asdict(line) for line in lines], "parts": [asdict(finding) for finding in findings]}
        click.echo(json.dumps(facts, indent=2))
    else:
        console = results()
        console.print(table(["setting", "value", "from"], [[line.name, line.value, line.origin] for line in lines]))
        console.print()
        for finding in findings:
            mark = "[green]ok[/green]  " if finding.ok else "[red]look[/red]"
            console.print(f"{mark} {finding.part:<12}", finding.says, soft_wrap=True)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


def examine(settings: Settings) -> list[Finding]:
    """Every part of the project, whether it is well and what to do if not."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", lambda: f"{platform.python_version()} on {platform.system()}"),
        ("project", lambda: _project(settings)),
        ("sources", lambda: _sources(settings)),
        ("webhook", lambda: _webhook(settings)),
        ("store", lambda: _store(settings)),
        ("ledger", lambda: _ledger(settings)),
        ("warehouse", lambda: _warehouse(settings)),
        ("prefect", lambda: _prefect(settings)),
        ("minio", lambda: _minio(settings)),
    ]
    findings = []
    for part, check in checks:
        try:
            findings.append(Finding(part=part, ok=True, says=check()))
        except PenstockError as error:
            findings.append(Finding(part=part, ok=False, says=str(error)))
        except Exception as error:
            # One part that is broken in a way nobody thought of must not hide the others.
            said = " ".join(str(getattr(error, "orig", None) or error).split())
            findings.append(Finding(part=part, ok=False, says=f"{type(error).__name__}: {said}"))
    return findings


def _project(settings: Settings) -> str:
    project = load_project(settings.project_dir)
    refuse_faulty(settings, project)
    return (
        f"{len(project.datasets)} datasets, {len(project.sources)} sources, "
        f"{len(project.folders) + len(project.buckets)} sensors, {len(project.automations)} automations"
    )


def _sources(settings: Settings) -> str:
    from penstock.webhook import choice
    from penstock.webhook.secrets import open_secrets, remedy
    from penstock.webhook.verify import usable

    project: Project = load_project(settings.project_dir, only=["flows", "webhook"])
    secrets = open_secrets(settings, project.sources)
    secrets.refresh()
    wrong, warnings = [], []
    for source in project.sources:
        choice.check(source)
        if source.verify.scheme == "none":
            warnings.append(
                f"WARNING: anybody may post to {source.name}, which verifies nothing: {source.verify.because}"
            )
        for name in source.secrets:
            if not secrets.value(name):
                wrong.append(f"no secret for {source.name} ({name}): {remedy(name)}")
            elif name != source.challenge and not usable(source.verify, secrets.value(name)):
                wrong.append(f"{name} is no secret of {source.name}'s scheme, {source.verify.scheme}: set another")
    if wrong:
        raise PenstockError("; ".join([*wrong, *warnings]))
    verified = sum(source.verify.scheme != "none" for source in project.sources)
    return "; ".join([f"{verified} verified", *warnings])


def _webhook(settings: Settings) -> str:
    from penstock.webhook.guard import is_loopback

    where = f"{settings.host}:{settings.port}, workers: {settings.webhook_workers}"
    if is_loopback(settings.host) and not settings.proxies:
        return f"{where}; readiness, metrics and own routes are for this machine"
    if not settings.api_token.get_secret_value():
        raise PenstockError(
            f"{where}: readiness, metrics and own routes answer nobody that comes from elsewhere: set "
            "PENSTOCK_API_TOKEN, or `penstock up` makes one"
        )
    return f"{where}; readiness, metrics and own routes ask for PENSTOCK_API_TOKEN"


def _store(settings: Settings) -> str:
    store = open_store(settings)
    store.ping()
    return f"{masked(settings.s3_endpoint)} answers"


def _minio(settings: Settings) -> str:
    from penstock.object_server import find_minio

    found = find_minio()
    # Who runs `up` may have another PATH and another home than who asks.
    if pid_of_up(settings) is not None and "PENSTOCK_S3_ENDPOINT" in read_made(settings.home, RUNTIME_FILE):
        kind = (settings.home / KIND_FILE).read_text().strip()
        running = "MinIO" if kind == "minio" else "the embedded one"
        return f"the store that runs is {running}; found from here: {found or 'no'}"
    return f"found: {found or 'no; the embedded store is used (make minio)'}"


def _ledger(settings: Settings) -> str:
    with closing(open_ledger(settings)) as ledger:
        outstanding = [wakeup for wakeup in ledger.wakeups.outstanding() if wakeup.note]
        if outstanding:
            raise PenstockError("; ".join(f"{wakeup.dataset}: {wakeup.note}" for wakeup in outstanding))
        return f"{masked(settings.ledger)}, {ledger.outbox.count()} events wait"


def _warehouse(settings: Settings) -> str:
    if url := settings.warehouse_url.get_secret_value():
        open_warehouse(settings).query("select 1", limit=1)
        return f"{masked(url)} answers"
    if not settings.warehouse.exists():
        return f"{settings.warehouse} is made by the first load"
    open_warehouse(settings).query("select 1", limit=1)
    return f"{settings.warehouse}, {settings.warehouse.stat().st_size:,} bytes"


def _prefect(settings: Settings) -> str:
    if not open_prefect(settings).is_up():
        raise PenstockError(f"{masked(settings.prefect_api_url)} does not answer: look at PENSTOCK_PREFECT_API_URL")
    return f"{masked(settings.prefect_api_url)} answers"
