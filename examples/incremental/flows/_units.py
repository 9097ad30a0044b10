"""What a till's file comes to: pure."""

import pyarrow as pa
import pyarrow.compute as pc

UNITS = pa.schema({"product_id": pa.int64(), "units": pa.int64(), "revenue": pa.float64()})


def per_product(sales: pa.Table) -> pa.Table:
    """Units and revenue of each product in one file's sales, by product."""
    if not sales.num_rows:
        # Of a file that cannot be read no column may be known.
        return UNITS.empty_table()
    revenue = pc.multiply(sales["quantity"], sales["unit_price"])
    sums = sales.append_column("revenue", revenue).group_by("product_id", use_threads=False)
    found = sums.aggregate([("quantity", "sum"), ("revenue", "sum")]).sort_by("product_id")
    return pa.table(
        {
            "product_id": found["product_id"],
            "units": found["quantity_sum"],
            "revenue": pc.round(found["revenue_sum"], 2),
        }
    )


def counted(*, objects: int, rows: int, refused: int) -> dict:
    """A run's result."""
    outcome = "processed" if objects or refused else "skipped"
    return {"outcome": outcome, "objects": objects, "rows": rows, "refused": refused}
