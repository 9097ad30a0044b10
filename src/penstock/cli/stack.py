"""The whole system of one project as a process tree: `up` keeps it running, `demo` runs it for a while."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import filelock
import httpx

from penstock import object_server
from penstock.cli.apply import apply_project
from penstock.cli.faulty import refuse_faulty
from penstock.cli.free_ports import free_port
from penstock.cli.migrate import steps_taken
from penstock.cli.prefect_processes import server_argv, server_env
from penstock.cli.secrets import made_secrets
from penstock.cli.supervisor import GRACE_SECONDS, Child, Supervisor
from penstock.errors import NotRunning, SettingsError, StoreUnavailable, Transient
from penstock.ledger import Ledger
from penstock.ledger.database import utc_now
from penstock.objects import ObjectStore
from penstock.plan import NO_BLOCK, Plan
from penstock.project import Project, load_project
from penstock.settings import KIND_FILE, RUNTIME_FILE, Settings, load_settings, masked, without_login, write_made
from penstock.webhook.serve import SHUTDOWN_SECONDS
from penstock.wiring import prepare_store, spool_folder

_STORE_PORT = 9000
_CONSOLE_PORT = 9001
_PREFECT_PORT = 4200
_READY_SECONDS = 90.0
# The webhook answers what it took, and so do its workers, for whom it waits.
DRAIN_SECONDS = SHUTDOWN_SECONDS + 6.0


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running system. `store` says in words which object store it uses."""

    settings: Settings
    project: Project
    supervisor: Supervisor
    store: str
    console_url: str | None
    prefect_url: str
    applied: Plan

    @property
    def webhook_url(self) -> str:
        """Where the webhook listens."""
        return f"http://{self.settings.host}:{self.settings.port}"


@contextmanager
def running_stack(project_dir: Path, *, say: Callable[[str], None], env: dict[str, str]) -> Iterator[Stack]:
    """Start everything, yield when it works, and end everything.

    `env` is what the children get; `say` is told each step. Raises SettingsError when another `up` runs here.
    """
    home = load_settings(project_dir).home
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = filelock.FileLock(home / "up.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise SettingsError(f"another `penstock up` runs for {home}; look with: penstock status") from None
    supervisor = Supervisor(logs=home / "logs")
    try:
        (home / RUNTIME_FILE).unlink(missing_ok=True)
        yield _start(project_dir, supervisor, say=say, env=env)
    finally:
        supervisor.stop()
        (home / RUNTIME_FILE).unlink(missing_ok=True)
        lock.release()


def _start(project_dir: Path, supervisor: Supervisor, *, say: Callable[[str], None], env: dict[str, str]) -> Stack:
    settings = load_settings(project_dir)
    project = load_project(settings.project_dir, only=["flows", "sensors", "webhook"])
    refuse_faulty(settings, project)
    secrets = made_secrets(settings.home, project.sources, has=lambda name: bool(settings.resolve_secret(name)))
    runtime: dict[str, str | int] = {"pid": os.getpid()}
    own_store, console = not settings.s3_endpoint, None
    webhook_port = runtime["PENSTOCK_PORT"] = free_port(settings.port, host=settings.host)
    described = f"{masked(settings.s3_endpoint)} (configured)"
    if own_store:
        own = _own_store(settings, secrets, env, webhook_port)
        supervisor.start(own.child)
        runtime["PENSTOCK_S3_ENDPOINT"] = f"127.0.0.1:{own.port}"
        runtime["PENSTOCK_BUCKET_EVENTS"] = own.events
        described, console = own.words, own.console
    own_prefect, prefect_port = not settings.prefect_api_url, 0
    if own_prefect:
        prefect_port = free_port(_PREFECT_PORT)
        supervisor.start(_prefect_child(settings, secrets, env, prefect_port))
        runtime["PENSTOCK_PREFECT_API_URL"] = f"http://127.0.0.1:{prefect_port}/api"
    write_made(settings.home, RUNTIME_FILE, runtime)
    # A port that was set but is taken must not win over the one that was chosen instead.
    env = {**env, "PENSTOCK_PORT": str(webhook_port)}
    asked_port, settings = settings.port, load_settings(project_dir, port=webhook_port)
    shutil.rmtree(spool_folder(settings), ignore_errors=True)
    for line in _migrate(settings):
        say(f"ledger      {line}")
    if own_store:
        supervisor.wait_ready("object-store", seconds=_READY_SECONDS)
    versioned = prepare_store(settings)
    say(f"store       {described}, bucket {settings.bucket}{', versioned' if versioned else ''}")
    settings.inbox.mkdir(parents=True, exist_ok=True)
    for dataset in project.datasets:
        (settings.inbox / dataset.prefix).mkdir(parents=True, exist_ok=True)
    for name in ("worker", "sensors", "serve", "relay"):
        supervisor.start(_part(name, settings, env))
    if own_prefect:
        supervisor.wait_ready("prefect", seconds=_READY_SECONDS)
    prefect_url = without_login(settings.prefect_api_url.removesuffix("/api"))
    say(f"prefect     {prefect_url}{_unless(_PREFECT_PORT, prefect_port) if own_prefect else ''}")
    applied = _apply(settings)
    if folder := applied_elsewhere(applied):
        say(
            f"prefect     {settings.project} was applied from {folder} until now. If that is another project, give "
            "this one a name of its own (pyproject.toml, or PENSTOCK_PROJECT): of one name they are one project"
        )
    for found in applied.findings:
        if found.rule == NO_BLOCK:
            say(f"prefect     left out: {found.name}: {found.reason}")
    supervisor.wait_ready("serve", "worker", seconds=_READY_SECONDS)
    say(f"webhook     http://{settings.host}:{webhook_port}{_unless(asked_port, webhook_port)}")
    return Stack(
        settings=settings,
        project=project,
        supervisor=supervisor,
        store=described,
        console_url=f"http://127.0.0.1:{console}" if console else None,
        prefect_url=prefect_url,
        applied=applied,
    )


@dataclass(frozen=True, kw_only=True)
class _OwnStore:
    child: Child
    port: int
    console: int | None
    events: str
    words: str


def _own_store(settings: Settings, secrets: dict[str, str], env: dict[str, str], webhook_port: int) -> _OwnStore:
    port, console = free_port(_STORE_PORT), free_port(_CONSOLE_PORT)
    data = settings.home / "store"
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    access_key = settings.s3_access_key or secrets["PENSTOCK_S3_ACCESS_KEY"]
    secret_key = settings.s3_secret_key.get_secret_value() or secrets["PENSTOCK_S3_SECRET_KEY"]
    local = object_server.local_store(
        settings.store,
        data,
        port=port,
        console_port=console,
        access_key=access_key,
        secret_key=secret_key,
        webhook=object_server.Webhook(
            url=f"http://{host}:{webhook_port}/notifications/s3",
            token=settings.notify_token.get_secret_value() or secrets["PENSTOCK_NOTIFY_TOKEN"],
        ),
    )
    _refuse_other_kind(data, local.kind)
    minio = local.kind == "minio"
    return _OwnStore(
        child=Child(
            name="object-store",
            argv=local.argv,
            # Not the user's environment: a MINIO_ or RCLONE_ variable there would change the store.
            env={"PATH": env.get("PATH", ""), **local.env},
            ready=lambda: _store_answers(port, access_key, secret_key),
            cwd=settings.home,
        ),
        port=port,
        console=console if minio else None,
        events="webhook" if minio else "folder",
        words=f"{'MinIO' if minio else 'embedded (rclone serve s3)'} at http://127.0.0.1:{port}"
        f"{_unless(_STORE_PORT, port)}",
    )


def _refuse_other_kind(data: Path, kind: str) -> None:
    """A store's folder made by the one kind is not readable by the other: say so, instead of hiding the data."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    mark = data.parent / KIND_FILE
    made_by = mark.read_text().strip() if mark.exists() else kind
    if made_by != kind:
        raise SettingsError(
            f"{data} was made by the {made_by} store, and now {kind} would be used: set PENSTOCK_STORE={made_by}, "
            "or move the folder away to begin anew"
        )
    mark.write_text(kind)


def _prefect_child(settings: Settings, secrets: dict[str, str], env: dict[str, str], port: int) -> Child:
    (settings.home / "prefect").mkdir(parents=True, exist_ok=True, mode=0o700)
    auth = settings.prefect_auth.get_secret_value() or secrets["PENSTOCK_PREFECT_AUTH"]
    return Child(
        name="prefect",
        argv=server_argv(port),
        env=server_env(env, home=settings.home, port=port, auth=auth),
        ready=lambda: _answers(f"http://127.0.0.1:{port}/api/health", auth),
        cwd=settings.home,
    )


def _part(name: str, settings: Settings, env: dict[str, str]) -> Child:
    began = utc_now()
    ready = {
        "serve": lambda: _answers(f"http://{settings.host}:{settings.port}/healthz", ""),
        "worker": lambda: _works(settings, since=began),
    }
    return Child(
        name=name,
        argv=[sys.executable, "-m", "penstock.cli", "--project", str(settings.project_dir), name],
        env={
            **env,
            "PENSTOCK_HOME": str(settings.home),
            "PENSTOCK_INBOX": str(settings.inbox),
            # Where files of flows/ import Prefect, which else makes its folder in the user's home.
            "PREFECT_HOME": str(settings.home / "prefect"),
        },
        ready=ready.get(name),
        cwd=settings.project_dir,
        grace_seconds=DRAIN_SECONDS if name == "serve" else GRACE_SECONDS,
    )


def _migrate(settings: Settings) -> list[str]:
    ledger = Ledger(settings.ledger, project=settings.project)
    before, after = ledger.migrate(lock_folder=settings.home)
    ledger.close()
    if before == after:
        return [f"revision {after}"]
    return [f"revision {after} (was {before or 'empty'})", *steps_taken(before, after)]


def _unless(preferred: int, port: int) -> str:
    """Why a part does not listen where it usually does."""
    return "" if preferred in (0, port) else f" ({preferred} is taken)"


def _apply(settings: Settings, *, attempts: int = 5) -> Plan:
    # A server that has just come up may refuse the first writes while its database settles.
    for attempt in range(1, attempts + 1):
        try:
            return apply_project(settings, leave_out=NO_BLOCK)
        except Transient:
            if attempt == attempts:
                raise
            time.sleep(attempt)
    raise NotRunning


def applied_elsewhere(plan: Plan) -> str | None:
    """The folder from which a project of that name was applied before, where it is another than now."""
    folders = (
        difference.old
        for change in plan.changes
        if change.what == "deployment"
        for difference in change.differences
        if difference.path == "job_variables.working_dir"
    )
    return next((str(folder) for folder in folders if folder), None)


def _works(settings: Settings, *, since: datetime) -> bool:
    """Whether the worker that was started has told the server that it is there."""
    user, _, password = settings.prefect_auth.get_secret_value().partition(":")
    url = f"{settings.prefect_api_url}/work_pools/{settings.project}/workers/filter"
    try:
        found = httpx.post(url, json={}, auth=(user, password) if user else None, timeout=2)
    except httpx.HTTPError:
        return False
    if found.status_code != httpx.codes.OK:
        return False
    beats = [worker["last_heartbeat_time"] for worker in found.json() if worker["status"] == "ONLINE"]
    return any(beat and datetime.fromisoformat(beat) >= since for beat in beats)


def _store_answers(port: int, access_key: str, secret_key: str) -> bool:
    """Whether it answers. MinIO sometimes never answers a request that it took while it started, hence the limit."""
    try:
        ObjectStore(f"127.0.0.1:{port}", access_key, secret_key, timeout=2).ping()
    except StoreUnavailable:
        return False
    return True


def _answers(url: str, auth: str) -> bool:
    user, _, password = auth.partition(":")
    try:
        found = httpx.get(url, auth=(user, password) if auth else None, timeout=2)
    except httpx.HTTPError:
        return False
    return found.status_code == httpx.codes.OK
