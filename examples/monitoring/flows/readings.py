"""Readings: a row for each, in the order in which they come, which need not be that in which they were measured."""

from penstock import Dataset, not_null

DATASET = Dataset(
    name="readings",
    columns={"sensor": "VARCHAR", "measured_at": "TIMESTAMP WITH TIME ZONE", "celsius": "DOUBLE"},
    checks={
        "has_a_sensor": not_null("sensor"),
        "has_a_time": not_null("measured_at"),
        "is_not_ahead": "measured_at < now() + INTERVAL 5 MINUTE",  # a clock that is wrong would end windows too early
        "is_a_temperature": "celsius BETWEEN -273 AND 3000",
    },
)
