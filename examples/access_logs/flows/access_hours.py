"""Each hour's figures, as a whole (route `*`) and by route: what the flow in access_logs.py lands."""

from penstock import Dataset

DATASET = Dataset(
    name="access_hours",
    write="merge",
    key=["hour", "route"],
    # Of two runs at once the figures of the one that saw more stay, whichever lands last.
    order_by="as_of",
    # All but the counts may be missing in an object: an hour without a line has no percentiles.
    columns={"p50_ms": "BIGINT", "p95_ms": "BIGINT", "p99_ms": "BIGINT"},
    retain_days=30,
)
