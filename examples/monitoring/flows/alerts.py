"""Alerts: one row each, without `until` while it lasts. The flow `judge` makes them of the windows."""

import pyarrow as pa
from flows._hysteresis import Limits, State, decide
from flows._telling import tell
from prefect import flow
from prefect.states import Completed

import penstock
from penstock import Dataset, Deployment

# Above 80 °C in three windows (half a minute) in a row; over with the first one below 70 °C.
LIMITS = Limits(upper=80.0, lower=70.0, windows=3)

DATASET = Dataset(
    name="alerts",
    write="merge",
    key=["alert"],
    order_by="until",  # an alert that has ended stays ended
    columns={
        "alert": "VARCHAR",
        "sensor": "VARCHAR",
        "since": "TIMESTAMP WITH TIME ZONE",
        "until": "TIMESTAMP WITH TIME ZONE",
        "mean": "DOUBLE",
    },
)
STATE = [pa.field("streak", pa.int64()), pa.field("alert_since", pa.timestamp("us", tz="UTC"))]


def judged_before(tables):
    """How each sensor stood after the last window that was judged, and after those that come again, by their key."""
    starts = [start for table in tables for start in table["window_start"].to_pylist()]
    if not starts:
        return {}
    try:
        found = penstock.query(f"""
            SELECT sensor, window_start, streak, alert_since FROM windows
            WHERE streak IS NOT NULL AND (window_start >= '{min(starts).isoformat()}' OR (sensor, window_start) IN (
                SELECT sensor, max(window_start) FROM windows WHERE streak IS NOT NULL GROUP BY sensor
            ))
        """)
    except penstock.TableMissing:  # these are the first
        return {}
    return {
        (row["sensor"], row["window_start"]): State(streak=row["streak"], alert_since=row["alert_since"])
        for row in found.to_pylist()
    }


@flow(timeout_seconds=300)
def judge():
    """Loads the windows that are new, each with how its sensor stands after it, and tells what changed.

    That is written with the windows, in one transaction, and only one run at a time has them. Telling comes before it:
    a run that is killed in between leaves the windows as they were, and the next one tells the same again.
    """
    with penstock.claim("windows") as claim:
        tables = [(one, one.arrow()) for one in claim.objects]
        known = judged_before([table for _, table in tables])
        told = 0
        for one, table in tables:
            rows, changes = decide(table.to_pylist(), known, LIMITS)
            claim.load(pa.Table.from_pylist(rows, schema=pa.schema([*table.schema, *STATE])), of=one)
            for change in changes:
                tell(change)
            told += len(changes)
    if not tables:
        return Completed(name="Skipped", message="no window is new")
    return Completed(name="Processed", message=f"{told} alerts began or ended")


DEPLOYMENTS = [Deployment(flow=judge, consumes="windows")]
