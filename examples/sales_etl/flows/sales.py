"""Sales: checked row by row, priced and put into categories as they are loaded."""

from penstock import Dataset

DATASET = Dataset(
    name="sales",
    columns={
        "id": "BIGINT",
        "customer_id": "BIGINT",
        "product_id": "BIGINT",
        "quantity": "BIGINT",
        "unit_price": "DOUBLE",
        "sold_at": "TIMESTAMP",
    },
    checks={
        "quantity_positive": "quantity > 0",
        "unit_price_positive": "unit_price > 0",
        "customer_known": "customer_id > 0",
        "day_known": "sold_at IS NOT NULL",
    },
    threshold=0.9,
    derive={
        "total": "quantity * unit_price",
        "category": "CASE WHEN total > 500 THEN 'high' WHEN total > 100 THEN 'medium' ELSE 'low' END",
    },
)
