"""Windows: count, mean, least, greatest and 95th percentile of each sensor's readings in every 10 seconds."""

from datetime import timedelta

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed

import penstock
from penstock import Dataset, Deployment

SECONDS = 10  # how long a window is; 60 for one of a minute
LATE = 5  # a window is closed, and judged, once its sensor has a reading from so many seconds after its end

DATASET = Dataset(
    name="windows",
    write="merge",  # a window that is computed anew takes the place of what it was
    key=["sensor", "window_start"],
    order_by="loaded_at",  # whichever run ends last, the one that saw the latest reading stays
    columns={
        "sensor": "VARCHAR",
        "window_start": "TIMESTAMP WITH TIME ZONE",
        "readings": "BIGINT",
        "mean": "DOUBLE",
        "min": "DOUBLE",
        "max": "DOUBLE",
        "p95": "DOUBLE",
        "loaded_at": "TIMESTAMP WITH TIME ZONE",
        "closed": "BOOLEAN",
    },
)

# Nothing is remembered from run to run: what the table `windows` lacks, or has otherwise, is to be done. What a run did
# not do, because it was killed, cancelled or never begun, the next one finds. It looks at windows that got a reading
# within a day, so that its work does not grow with the table; how late that reading was makes no difference.
COLUMNS = "sensor, window_start, readings, mean, min, max, p95, loaded_at, closed"
COMPUTED = f"""
WITH placed AS (
    SELECT sensor, measured_at, celsius, _penstock_loaded_at AS loaded_at,
           to_timestamp(floor(extract(epoch FROM measured_at) / {SECONDS}) * {SECONDS}) AS window_start
    FROM readings
), touched AS (
    SELECT DISTINCT sensor, window_start FROM placed WHERE loaded_at > now() - INTERVAL '1 day'
), newest AS (
    SELECT sensor, max(measured_at) AS newest FROM placed GROUP BY sensor
), found AS (
    SELECT sensor, window_start, count(*) AS readings, avg(celsius) AS mean, min(celsius) AS min, max(celsius) AS max,
           percentile_cont(0.95) WITHIN GROUP (ORDER BY celsius) AS p95, max(loaded_at) AS loaded_at,
           max(newest) >= window_start + INTERVAL '{SECONDS + LATE} seconds' AS closed
    FROM placed JOIN touched USING (sensor, window_start) JOIN newest USING (sensor)
    GROUP BY sensor, window_start
)
SELECT {COLUMNS} FROM found
"""
IN_ORDER = "ORDER BY sensor, window_start"


def changed_windows():
    """Those that the table `windows` lacks, or has otherwise. Raises TableMissing before the first reading."""
    try:
        return penstock.query(f"{COMPUTED} EXCEPT SELECT {COLUMNS} FROM windows {IN_ORDER}")
    except penstock.TableMissing:
        return penstock.query(f"{COMPUTED} {IN_ORDER}")


@flow(retries=2, retry_delay_seconds=2, timeout_seconds=120)
def summarize():
    """Computes the windows whose readings changed, and lands them for `judge`, which loads them."""
    try:
        changed = changed_windows()
    except penstock.TableMissing:
        return Completed(name="Skipped", message="there are no readings yet")
    if not changed.num_rows:
        return Completed(name="Skipped", message="no window changed")
    penstock.land(f"windows/{flow_run.id}.parquet", changed)
    return Completed(name="Processed", message=f"{changed.num_rows} windows")


# The events ask for a run (automations/monitoring.py). As an event may be lost, one comes every minute too. Two at most
# are under way, or slow ones would hold every place of the worker; what a cancelled one was to do the next one finds.
DEPLOYMENTS = [
    Deployment(flow=summarize, every=timedelta(minutes=1), concurrency_limit=2, collision="cancel_new"),
]
