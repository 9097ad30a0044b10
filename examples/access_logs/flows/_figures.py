"""What is made of log lines: pure, with lines as Arrow tables and figures as dicts."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

# The row of an hour that stands for all of its routes.
ALL = "*"
_NEVER = datetime.min.replace(tzinfo=UTC)
_NOTHING = (0, _NEVER)
_NO_REQUESTS = {"requests": 0, "errors_4xx": 0, "errors_5xx": 0, "p50_ms": None, "p95_ms": None, "p99_ms": None}


def with_hour_and_route(lines: pa.Table) -> pa.Table:
    """The lines with the hour that they fall into, in UTC, and the path with what differs in each request left out."""
    if not lines.num_rows:
        return lines
    hour = pc.floor_temporal(pc.cast(lines["time"], pa.timestamp("us", "UTC")), unit="hour")
    path = pc.replace_substring_regex(lines["path"], r"\?.*", "")
    route = pc.replace_substring_regex(path, r"/[0-9]+", "/{id}")
    return lines.append_column("hour", hour).append_column("route", route)


def behind(
    lines: Mapping[datetime, tuple[int, datetime]], known: Mapping[datetime, tuple[int, datetime]]
) -> list[datetime]:
    """The hours whose figures are not those of their lines.

    `lines` are by hour how many there are and when the last of them was loaded; `known` what the figures say of them,
    and up to which load they have seen everything.
    """
    found = []
    for hour in sorted({*lines, *known}):
        count, loaded = lines.get(hour, _NOTHING)
        counted, as_of = known.get(hour, _NOTHING)
        if count != counted or loaded > as_of:
            found.append(hour)
    return found


def of_hours(hours: Sequence[datetime]) -> str:
    """The figures of these hours, in SQL that DuckDB and PostgreSQL share: of each as a whole, and by route.

    Percentiles are of all lines of the hour, since those of two files cannot be put together: the least latency that so
    many of the requests did not exceed.
    """
    return f"""
SELECT hour, coalesce(route, '{ALL}') AS route, count(*) AS requests,
    count(*) FILTER (WHERE status BETWEEN 400 AND 499) AS errors_4xx,
    count(*) FILTER (WHERE status >= 500) AS errors_5xx,
    percentile_disc(0.50) WITHIN GROUP (ORDER BY latency_ms) AS p50_ms,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY latency_ms) AS p95_ms,
    percentile_disc(0.99) WITHIN GROUP (ORDER BY latency_ms) AS p99_ms
FROM access_logs WHERE hour IN ({moments(hours)})
GROUP BY GROUPING SETS ((hour), (hour, route)) ORDER BY 1, 2
"""


def moments(hours: Sequence[datetime]) -> str:
    """Hours as a list in SQL."""
    return ", ".join(f"CAST('{hour.astimezone(UTC).isoformat()}' AS TIMESTAMP WITH TIME ZONE)" for hour in hours)


def with_those_gone(found: Sequence[dict], before: Sequence[dict]) -> list[dict]:
    """The figures, with zeros for what had some `before`, by hour and route, and has no line now.

    A merge deletes nothing: what a corrected file took away has to be said.
    """
    there = {(row["hour"], row["route"]) for row in found}
    gone = [row for row in before if (row["hour"], row["route"]) not in there]
    return [*found, *({"hour": row["hour"], "route": row["route"], **_NO_REQUESTS} for row in gone)]


def too_many_errors(figures: Sequence[dict], threshold: float, at_least: int) -> list[dict]:
    """The hours of at least so many requests, more than `threshold` of which ended in a 5xx; as an event tells it."""
    worst: dict[datetime, dict] = {}
    for row in figures:
        if row["route"] != ALL and row["errors_5xx"] > worst.get(row["hour"], _NO_REQUESTS)["errors_5xx"]:
            worst[row["hour"]] = row
    found = []
    for row in figures:
        if row["route"] != ALL or row["requests"] < at_least or row["errors_5xx"] <= threshold * row["requests"]:
            continue
        hour = f"{row['hour'].astimezone(UTC):%Y-%m-%dT%H}"
        percent = round(100 * row["errors_5xx"] / row["requests"], 1)
        route = worst[row["hour"]]["route"]
        text = f"{percent} % of {row['requests']} requests failed in the hour {hour} (UTC), most of them {route}"
        found.append(
            {"hour": hour, "percent": percent, "errors": row["errors_5xx"], "p95_ms": row["p95_ms"], "text": text}
        )
    return found


def as_table(figures: Sequence[dict]) -> list[dict]:
    """The hours as a whole, as an artifact shows them."""
    return [{**row, "hour": f"{row['hour'].astimezone(UTC):%Y-%m-%d %H:00}"} for row in figures if row["route"] == ALL]


def event_id(event: str, resource: str) -> uuid.UUID:
    """The same event of the same thing has the same id, so that Prefect can tell that it was sent before."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{event}#{resource}")
