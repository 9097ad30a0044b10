"""`penstock serve`: the webhook, in one process or in several that share a socket."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import click

from penstock.cli.main import start_logging
from penstock.settings import Settings, load_settings

if TYPE_CHECKING:
    import socket

log = logging.getLogger(__name__)

# What the workers have to answer what they took: more than `webhook.serve.SHUTDOWN_SECONDS`, less than `stack` gives.
WORKERS_SECONDS = 33.0


@click.command()
@click.option("--socket", "descriptor", type=int, hidden=True)
@click.option("--leash", type=int, hidden=True)
@click.option("--metrics", "shared_metrics", type=click.Path(path_type=Path), hidden=True)
@click.option("--number", type=int, default=0, hidden=True)
@click.pass_obj
def serve(
    project_dir: Path, descriptor: int | None, leash: int | None, shared_metrics: Path | None, number: int
) -> None:
    """Run the webhook on PENSTOCK_HOST:PENSTOCK_PORT, in PENSTOCK_WEBHOOK_WORKERS processes."""
    from penstock.cli.workers import end_with_parent
    from penstock.project import load_project
    from penstock.webhook.serve import inherited, listen

    settings = load_settings(project_dir)
    start_logging(settings.log_level)
    load_project(settings.project_dir, only=())
    if leash is not None:
        end_with_parent(leash)
    if descriptor is not None:
        _serve(settings, inherited(descriptor), shared_metrics, number)
    elif settings.webhook_workers > 1:
        _serve_in_several(settings, listen(settings.host, settings.port))
    else:
        _serve(settings, listen(settings.host, settings.port))


def _serve_in_several(settings: Settings, bound: socket.socket) -> None:
    from penstock.cli.workers import Workers, worker_argv

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    workers = Workers(
        count=settings.webhook_workers,
        argv=worker_argv(settings.project_dir),
        env={**os.environ, "PENSTOCK_HOME": str(settings.home)},
        bound=bound,
        # By the port: two servers of one project have metrics of their own.
        metrics=settings.home / f"metrics-{bound.getsockname()[1]}",
        grace_seconds=WORKERS_SECONDS,
    )
    sys.exit(workers.run(stop))


def _serve(settings: Settings, bound: socket.socket, shared_metrics: Path | None = None, number: int = 0) -> None:
    from starlette.types import ASGIApp
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    from penstock.declarations import Bucket
    from penstock.ledger.database import utc_now
    from penstock.project import load_project
    from penstock.watchdog import Watchdog
    from penstock.webhook.access import Access, start_access_log
    from penstock.webhook.app import Limits, create_app
    from penstock.webhook.crowd import Crowd
    from penstock.webhook.guard import Guard, is_loopback
    from penstock.webhook.metrics import Metrics
    from penstock.webhook.rejected import Keeper
    from penstock.webhook.secrets import open_secrets
    from penstock.webhook.serve import MOST_REQUESTS, run
    from penstock.wiring import open_landing, open_ledger, open_store

    project = load_project(settings.project_dir, only=["flows", "sensors", "webhook"])
    unverified = [source for source in project.sources if source.verify.scheme == "none"]
    for source in unverified:
        log.warning("anybody may post to /hooks/%s, which verifies nothing: %s", source.name, source.verify.because)
    loopback, token = is_loopback(settings.host), settings.api_token.get_secret_value()
    if not token and (not loopback or settings.proxies):
        log.warning(
            "readiness, metrics and own routes answer nobody, for the webhook listens on %s and is asked from "
            "elsewhere: set PENSTOCK_API_TOKEN and send it as a bearer token",
            settings.host,
        )

    metrics = Metrics(shared_metrics, number)

    def around(app: ASGIApp) -> ASGIApp:
        guarded = Guard(
            app,
            loopback=loopback,
            token=token,
            proxied=bool(settings.proxies),
            verified=[source.name for source in project.sources if source not in unverified],
            unverified=[source.name for source in unverified],
            refused=metrics.guarded,
        )
        crowd = Crowd(guarded, most=MOST_REQUESTS)
        trusted = [str(network) for network in settings.proxies]
        return Access(
            # Within: an id is believed of who connects, the address is who a proxy says it is.
            ProxyHeadersMiddleware(crowd, trusted) if trusted else crowd,  # type: ignore[arg-type]
            unique=lambda: token_hex(16),
            clock=utc_now,
            trusted=settings.proxies,
            sources=[source.name for source in project.sources],
        )

    secrets = open_secrets(settings, project.sources)
    secrets.keep_fresh()
    ledger = open_ledger(settings)
    store = open_store(settings)
    keeper = Keeper(
        days={source.name: source.keep_rejected_days for source in project.sources},
        keep=ledger.rejections.keep,
        expire=ledger.rejections.expire,
        missed=metrics.rejected_missed,
    )
    watchdog = Watchdog(settings.stall_seconds, monotonic=time.monotonic)
    app = create_app(
        sources=project.sources,
        intake=open_landing(settings, project, store, ledger),
        resolve_secret=secrets.value,
        notify_token=settings.notify_token.get_secret_value(),
        buckets=[watched.name or settings.bucket for watched in project.buckets or (Bucket(),)],
        clock=utc_now,
        version=version("penstock"),
        limits=Limits(stuck_seconds=settings.stall_seconds),
        alive=watchdog.loop("webhook"),
        metrics=metrics,
        reject=keeper.offer,
        processes=settings.webhook_workers,
        around=around,
    )
    if (settings.project_dir / "webhook" / "app.py").exists():
        importlib.import_module("webhook.app").extend(app)
    end_access_log = start_access_log(sys.stdout, on=settings.access_log)

    def stopped() -> None:
        keeper.close()
        end_access_log()

    keeper.start()
    watchdog.start()
    run(app, bound, on_ready=partial(log.info, "process %d is up at %s", os.getpid()), on_stopped=stopped)
