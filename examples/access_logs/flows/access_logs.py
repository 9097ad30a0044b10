"""Access logs: each line a row, then figures of each hour that got lines, and an event when too many ended in a 5xx."""

import time
from datetime import UTC, timedelta

from flows._figures import (
    ALL,
    as_table,
    behind,
    event_id,
    moments,
    of_hours,
    too_many_errors,
    with_hour_and_route,
    with_those_gone,
)
from prefect import flow, get_client, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.events import emit_event
from prefect.events.filters import EventFilter, EventIDFilter
from prefect.states import Completed

import penstock
from penstock import Dataset, Deployment

HIGH = "access_logs.errors.high"
# Prefect writes what it was sent every few seconds.
TOLD_SECONDS = 60

DATASET = Dataset(
    name="access_logs",
    format="log",
    # nginx's combined form with $request_time, in seconds, at the end. What is no request of HTTP does not match.
    pattern=r"(?P<client>\S+) \S+ (?P<user>\S+) \[(?P<time>[^\]]+)\] "
    r'"(?P<method>[A-Z]+) (?P<path>[^ "]+) HTTP/[0-9.]+" (?P<status>[0-9]{3}) (?P<bytes>[0-9]+|-) '
    r'"(?P<referer>(?:[^"\\]|\\.)*)" "(?P<user_agent>(?:[^"\\]|\\.)*)" (?P<seconds>[0-9]+\.[0-9]+)',
    columns={
        "time": "TIMESTAMP WITH TIME ZONE",
        "status": "BIGINT",
        "bytes": "BIGINT",
        "user": "VARCHAR",
        "seconds": "DOUBLE",
    },
    derive={"latency_ms": "CAST(round(seconds * 1000) AS BIGINT)"},
    threshold=0.9,
)


@task(task_run_name="parse {one.key}", retries=2)
def parsed(one):
    """One file's lines; those that do not match the pattern go to access_logs__rejected."""
    return with_hour_and_route(one.arrow())


@task(task_run_name="alert {found[hour]}", retries=2, retry_delay_seconds=5)
def alert(found):
    """Sends the event of an hour unless Prefect has it, and ends when Prefect has: once, however often it is run."""
    resource = f"{runtime.deployment.name}.hour.{found['hour']}"
    event = event_id(HIGH, resource)
    with get_client(sync_client=True) as client:
        if is_there(client, event):
            return
        about = {"prefect.resource.id": resource, "prefect.resource.name": found["hour"]}
        emit_event(HIGH, resource=about, payload=found, id=event)
        # That only queued it.
        deadline = time.monotonic() + TOLD_SECONDS
        while not is_there(client, event):
            if time.monotonic() > deadline:
                raise TimeoutError(f"Prefect has no {HIGH} of {found['hour']} after {TOLD_SECONDS} s")
            time.sleep(0.5)


def is_there(client, event):
    """Whether Prefect has written an event of this id."""
    return client.read_events(EventFilter(id=EventIDFilter(id=[event])), limit=1).total > 0


@flow(timeout_seconds=1800)
def analyse(threshold: float = 0.05, at_least: int = 100):
    """Loads what is new; then tells of the hours that got lines and have too many errors, and lands their figures."""
    with penstock.claim("access_logs") as claim:
        files = claim.objects
        for one, lines in zip(files, parsed.map(files).result(), strict=True):
            claim.load(lines, of=one)
    # From the table, not from what this run loaded: an hour may come in several files, and an earlier run may have
    # died just here.
    hours, as_of = hours_behind()
    if not hours:
        return Completed(message=f"{len(files)} files; the figures of all hours are there")
    figures = figures_of(hours)
    bad = too_many_errors(figures, threshold, at_least)
    alert.map(bad).result()
    # Last: with it nothing is left to do for these hours.
    penstock.land(
        f"access_hours/{as_of.astimezone(UTC):%Y%m%dT%H%M%S.%f}.parquet", [{**row, "as_of": as_of} for row in figures]
    )
    create_table_artifact(as_table(figures), key="access-hours", description="The hours that got lines")
    return Completed(message=f"{len(files)} files; figures of {len(hours)} hours, {len(bad)} with too many errors")


def hours_behind():
    """The hours whose figures have not seen all of their lines, and the load up to which they will have."""
    # Asked for first: what is loaded meanwhile is seen again.
    newest = asked(
        "_penstock_objects", "SELECT max(loaded_at) AS at FROM _penstock_objects WHERE dataset = 'access_logs'"
    )
    if not newest or newest[0]["at"] is None:
        return [], None
    lines = "SELECT hour, count(*) AS requests, max(_penstock_loaded_at) AS at FROM access_logs GROUP BY hour"
    known = f"SELECT hour, requests, as_of AS at FROM access_hours WHERE route = '{ALL}'"
    both = (asked("access_logs", lines), asked("access_hours", known))
    return behind(*({row["hour"]: (row["requests"], row["at"]) for row in rows} for rows in both)), newest[0]["at"]


def figures_of(hours):
    """The figures of these hours and of their routes."""
    before = asked("access_hours", f"SELECT hour, route FROM access_hours WHERE hour IN ({moments(hours)})")
    return with_those_gone(asked("access_logs", of_hours(hours)), before)


def asked(table, sql):
    """The rows of the answer; none while there is no such table yet."""
    try:
        return penstock.query(sql).to_pylist()
    except penstock.QueryRefused:
        # Anything else that is wrong must not look like an hour without requests.
        if is_table(table):
            raise
        return []


def is_table(name):
    """Whether the warehouse has the table; a new project has no warehouse yet."""
    try:
        tables = penstock.query("SELECT table_name FROM information_schema.tables")
    except penstock.QueryRefused:
        return False
    return name in tables["table_name"].to_pylist()


# A file that is dropped runs it (automations/access_logs.py). The schedule makes up for a run that died with its lines
# loaded and its figures not.
DEPLOYMENTS = [
    Deployment(
        flow=analyse,
        consumes="access_logs",
        parameters={"threshold": 0.05, "at_least": 100},
        every=timedelta(minutes=15),
    )
]
