"""The long-running parts, each a command of its own: `sensors`, `relay`, `worker`, and `serve` (`serve.py`)."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.main import start_logging
from penstock.declarations import Bucket, Folder
from penstock.errors import CannotListen, PenstockError
from penstock.settings import Settings, load_settings
from penstock.watchdog import Watchdog

if TYPE_CHECKING:
    from penstock.sensors.bucket import BucketSensor

log = logging.getLogger(__name__)

# A bucket that cannot notify is swept this often.
_BLIND_SWEEP_SECONDS = 1.0
# After a sweep nine tenths and more of the time are a pause: a bucket of millions must not be listed without end.
_PAUSE_PER_SWEEP = 10
_FOLDER_SCAN_SECONDS = 30.0


@click.command()
@click.pass_obj
def sensors(project_dir: Path) -> None:
    """Run the sensors that the project declares, and the sweep."""
    from penstock.ledger.database import utc_now
    from penstock.project import load_project
    from penstock.sensors.bucket import BucketSensor, StoreFolderSensor
    from penstock.sensors.folder import FolderSensor
    from penstock.sensors.sweep import Sweep
    from penstock.wiring import open_landing, open_ledger, open_store

    settings = load_settings(project_dir)
    start_logging(settings.log_level)
    # Sources too: the sweep takes up deliveries that a crash left, with the events that their source asks for.
    project = load_project(settings.project_dir, only=["flows", "sensors", "webhook"])
    ledger = open_ledger(settings)
    store = open_store(settings)
    landing = open_landing(settings, project, store, ledger)
    watchdog = Watchdog(settings.stall_seconds, monotonic=time.monotonic)
    stop = _stop_on_signals()
    threads: list[threading.Thread] = []

    def start(name: str, run: Callable[[], None]) -> None:
        # A part that dies ends the process: the supervisor starts it again, whole.
        def guarded() -> None:
            try:
                run()
            finally:
                stop.set()

        thread = threading.Thread(target=guarded, name=name)
        thread.start()
        threads.append(thread)

    for declared in project.folders:
        folder = FolderSensor(
            _folder_path(settings, declared),
            landing=landing,
            arrivals=ledger.arrivals,
            declared=declared,
            monotonic=time.monotonic,
            alive=watchdog.loop(f"folder {declared.path or settings.inbox}"),
            roots=[_folder_path(settings, one) for one in project.folders],
        )
        start(f"folder {folder.root}", partial(folder.run, stop, scan_every=_FOLDER_SCAN_SECONDS))
    for watched in project.buckets or (Bucket(),):
        bucket = watched.name or settings.bucket
        sweep = Sweep(
            bucket,
            store=store,
            ledger=ledger,
            landing=landing,
            datasets=project.datasets,
            clock=utc_now,
            alive=watchdog.loop(f"sweep {bucket}"),
        )
        blind = threading.Event()
        if settings.bucket_events == "none":
            blind.set()
        elif settings.bucket_events == "folder":
            folder_of_store = StoreFolderSensor(
                bucket,
                settings.home / "store" / bucket,
                landing=landing,
                sweep_soon=sweep.soon,
                alive=watchdog.loop(f"store folder {bucket}"),
            )
            start(f"store folder {bucket}", partial(folder_of_store.run, stop))
        elif settings.bucket_events == "listen":
            listener = BucketSensor(bucket, store=store, landing=landing, sweep_soon=sweep.soon)
            start(f"listen {bucket}", partial(_listen, listener, stop, blind, sweep.soon))
        start(
            f"sweep {bucket}",
            partial(sweep.run, stop, every=partial(_pause, watched, blind), monotonic=time.monotonic),
        )
    watchdog.start()
    stop.wait()
    for thread in threads:
        thread.join()


@click.command()
@click.pass_obj
def relay(project_dir: Path) -> None:
    """Run the relay, which carries wake-ups and events to Prefect."""
    from penstock.bell import bell_path, listening
    from penstock.outbox.relay import Relay
    from penstock.wiring import open_ledger, open_prefect

    settings = load_settings(project_dir)
    start_logging(settings.log_level)
    watchdog = Watchdog(settings.stall_seconds, monotonic=time.monotonic)
    worker = Relay(
        open_ledger(settings),
        open_prefect(settings),
        project=settings.project,
        unanswered_after=timedelta(seconds=settings.wakeup_seconds),
        alive=watchdog.loop("relay"),
        consumers=_consumers(settings),
    )
    watchdog.start()
    with listening(bell_path(settings.home)) as wait:
        worker.run(_stop_on_signals(), monotonic=time.monotonic, wait=wait)


@click.command()
@click.pass_obj
def worker(project_dir: Path) -> None:
    """Run Prefect's worker on the project's pool."""
    from penstock.cli.prefect_processes import client_env, without_tls, worker_argv
    from penstock.wiring import open_prefect

    settings = load_settings(project_dir)
    open_prefect(settings).close()
    argv = worker_argv()
    env = {**client_env(os.environ, settings), **without_tls(settings)}
    os.execve(argv[0], argv, env)  # noqa: S606 - no shell is wanted


def _consumers(settings: Settings) -> Mapping[str, str]:
    """The flows that consume datasets; a broken file of the project must not keep the relay from waking the others."""
    from penstock.project import load_project

    try:
        return load_project(settings.project_dir, only=["flows"]).consumers
    except PenstockError as error:
        log.warning("%s; until the relay is started again it takes every dataset to be loaded by ingest", error)
        return {}


def _listen(
    listener: BucketSensor, stop: threading.Event, blind: threading.Event, sweep_soon: Callable[[], None]
) -> None:
    try:
        listener.run(stop)
    except CannotListen as error:
        log.warning("%s The bucket is listed every few seconds instead; see PENSTOCK_BUCKET_EVENTS", error)
        blind.set()
        sweep_soon()
        stop.wait()


def _pause(watched: Bucket, blind: threading.Event, took: float) -> float:
    """Seconds until the next sweep, after one that took so long."""
    usual = watched.every.total_seconds()
    return max(min(usual, _BLIND_SWEEP_SECONDS) if blind.is_set() else usual, took * _PAUSE_PER_SWEEP)


def _folder_path(settings: Settings, declared: Folder) -> Path:
    if declared.path is None:
        return settings.inbox.resolve()
    return (settings.project_dir / declared.path).resolve()


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
