"""Each day's sales by category, reported anew after every load: an artifact in Prefect, and a table of its own."""

from datetime import UTC

from flows._days import as_markdown, by_category, every_category, latest_days
from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.states import Completed

import penstock
from penstock import Dataset, Deployment

# What the report has seen: the moment of the newest load of sales.
NEWEST_LOAD = "SELECT max(loaded_at) AS as_of FROM _penstock_objects WHERE dataset = 'sales'"
# One statement, so that all of it is of one moment: without sales it is one row that has no day. Cents add up to the
# same sum in any order; floating point does not.
SALES_BY_DAY = f"""
SELECT day, category, sales, total, as_of FROM ({NEWEST_LOAD}) AS newest LEFT JOIN (
    SELECT CAST(sold_at AS DATE) AS day, category, count(*) AS sales, sum(CAST(total AS DECIMAL(18, 2))) AS total
    FROM sales GROUP BY 1, 2
) AS sold ON true
"""

DATASET = Dataset(
    name="daily_sales",
    columns={"total": "DECIMAL(18, 2)"},
    write="merge",
    key=["day", "category"],
    # Of two reports that ran at once the one that saw the newer load stays, whichever lands last.
    order_by="as_of",
    retain_days=30,
)


@flow(retries=2, retry_delay_seconds=10, timeout_seconds=300)
def daily_report():
    """Reports on all of `sales` as it is now; a second time the same is the same object, and no new one."""
    answer = asked(SALES_BY_DAY)
    found, reported = [row for row in answer if row["day"]], reported_days()
    if not found and not reported:
        return Completed(name="Skipped", message="there are no sales")
    as_of = answer[0]["as_of"].astimezone(UTC)
    rows = every_category(found, reported, as_of)
    penstock.land(f"daily_sales/{as_of:%Y%m%dT%H%M%S.%f}.parquet", rows)
    if penstock.query(NEWEST_LOAD).to_pylist()[0]["as_of"] != as_of:
        # Artifacts have no order_by: the last one made is the one that is shown.
        return Completed(name="Superseded", message="sales were loaded meanwhile; the report on these is the next one")
    create_table_artifact(latest_days(rows, 31), key="daily-sales", description=f"Sales by day, as of {as_of}")
    create_markdown_artifact(as_markdown(rows, as_of), key="sales-by-category", description="Sales by category")
    sold = {one["category"]: one["sales"] for one in by_category(rows)}
    return Completed(name="Reported", message=f"{len(rows)} rows; {sold}", data=sold)


def reported_days():
    """The days of earlier reports: one that has no sales any more is to become zeros."""
    return [row["day"] for row in asked("SELECT DISTINCT day FROM daily_sales")]


def asked(sql):
    """The rows of the answer; none before the first load of what is asked about."""
    try:
        return penstock.query(sql).to_pylist()
    except penstock.TableMissing:
        return []


# Every load runs it (automations/report.py). An automation's action is done at most once: each morning makes up for one
# that was lost.
DEPLOYMENTS = [Deployment(flow=daily_report, cron=["30 6 * * *"])]
