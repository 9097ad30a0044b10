"""Stock Prefect doing what penstock does with a dropped file, as its documentation would have it.

`serve`: a flow that loads one file into DuckDB, served with an event trigger. `watch FOLDER`: watchdog, an event for
each file that is moved in. What it does not do: an object store, a ledger, checks, exactly once.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import duckdb
from prefect import flow
from prefect.events import DeploymentEventTrigger, emit_event
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

EVENT = "bench.file.dropped"
HOME_NAME = "BENCH_STOCK_HOME"
WATCHING = "watching"


@flow
def load_file(path: str) -> None:
    """Load one file, and note when that was committed."""
    home = Path(os.environ[HOME_NAME])
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        columns = "{'id': 'BIGINT', 'name': 'VARCHAR', 'amount': 'DOUBLE', 'moment': 'TIMESTAMP'}"
        read = f"read_csv('{path}', header = true, auto_detect = false, columns = {columns})"
        connection.execute(f"CREATE TABLE IF NOT EXISTS drops AS SELECT * FROM {read} LIMIT 0")
        connection.execute(f"INSERT INTO drops SELECT * FROM {read}")
        at = time.time()
    with (home / "committed").open("a") as log:
        log.write(f"{Path(path).name} {at!r}\n")


class _Emit(FileSystemEventHandler):
    def on_moved(self, event: FileSystemEvent) -> None:
        """Tell of a file that was renamed within the folder."""
        self._tell(os.fsdecode(event.dest_path))

    def on_created(self, event: FileSystemEvent) -> None:
        """Tell of a file that was moved in from elsewhere."""
        self._tell(os.fsdecode(event.src_path))

    def _tell(self, path: str) -> None:
        emit_event(EVENT, resource={"prefect.resource.id": f"file.{Path(path).name}"}, payload={"path": path})


def watch(folder: str) -> None:
    """Emit an event for each file that comes to a folder, until killed."""
    observer = Observer()
    observer.schedule(_Emit(), folder)
    observer.start()
    print(WATCHING, flush=True)
    threading.Event().wait()


def serve() -> None:
    """Serve the flow, with a trigger, until killed."""
    trigger = DeploymentEventTrigger(expect={EVENT}, parameters={"path": "{{ event.payload.path }}"})
    load_file.serve(name="stock", triggers=[trigger])


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        watch(sys.argv[2])
    else:
        serve()
