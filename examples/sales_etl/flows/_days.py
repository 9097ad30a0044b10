"""What the daily report is made of: pure, with rows as dicts."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal

CATEGORIES = ("high", "medium", "low")
NOTHING = {"sales": 0, "total": Decimal("0.00")}


def every_category(found: Sequence[dict], also: Iterable[date], as_of: datetime) -> list[dict]:
    """A row for each category of each day that was found, or is one of `also`; zeros where nothing was sold.

    A merge deletes nothing: what a corrected file took away again has to be said.
    """
    sold = {(row["day"], row["category"]): row for row in found}
    days = sorted({day for day, _ in sold} | set(also))
    return [
        {"day": day, "category": category, **_figures(sold.get((day, category), NOTHING)), "as_of": as_of}
        for day in days
        for category in CATEGORIES
    ]


def latest_days(rows: Sequence[dict], most: int) -> list[dict]:
    """The last `most` days with sales, one row each, the newest first; what JSON knows."""
    days: dict[date, dict[str, dict]] = {}
    for row in rows:
        if row["sales"]:
            days.setdefault(row["day"], {})[row["category"]] = row
    return [
        {
            "day": day.isoformat(),
            **{category: sold.get(category, NOTHING)["sales"] for category in CATEGORIES},
            "sales": sum(row["sales"] for row in sold.values()),
            "total": str(sum(row["total"] for row in sold.values())),
        }
        for day, sold in sorted(days.items(), reverse=True)[:most]
    ]


def by_category(rows: Sequence[dict]) -> list[dict]:
    """Sales, their share and their total of each category, over all days."""
    everything = sum(row["sales"] for row in rows)
    found = []
    for category in CATEGORIES:
        sales = sum(row["sales"] for row in rows if row["category"] == category)
        total = sum((row["total"] for row in rows if row["category"] == category), Decimal("0.00"))
        share = sales / everything if everything else 0.0
        found.append({"category": category, "sales": sales, "share": share, "total": total})
    return found


def as_markdown(rows: Sequence[dict], as_of: datetime) -> str:
    """The distribution by category, to be read by people."""
    lines = [
        f"As of the load of {as_of:%Y-%m-%d %H:%M:%S} UTC.",
        "",
        "| category | sales | share | total |",
        "| --- | ---: | ---: | ---: |",
    ]
    for one in by_category(rows):
        lines.append(f"| {one['category']} | {one['sales']:,} | {one['share']:.1%} | {one['total']:,} |")
    return "\n".join(lines)


def _figures(row: dict) -> dict:
    return {"sales": row["sales"], "total": row["total"]}
