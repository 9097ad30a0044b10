"""Sales: checked row by row, priced and put into categories as they are loaded into the table `sales`."""

from penstock import Dataset

DATASET = Dataset(
    name="sales",  # the table, and the folder inbox/sales/
    columns={  # types; what is not named here is inferred from the first file
        "id": "BIGINT",
        "customer_id": "BIGINT",
        "quantity": "BIGINT",
        "unit_price": "DOUBLE",
        "sold_at": "TIMESTAMP",
    },
    checks={  # a row is good when each is true; the others go to sales__rejected
        "quantity_positive": "quantity > 0",
        "unit_price_positive": "unit_price > 0",
    },
    threshold=0.9,  # with fewer good rows the whole file waits in quarantine
    derive={  # columns of your own, in SQL
        "total": "quantity * unit_price",
        "category": "CASE WHEN total > 500 THEN 'high' WHEN total > 100 THEN 'medium' ELSE 'low' END",
    },
)
