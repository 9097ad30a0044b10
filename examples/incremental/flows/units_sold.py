"""Units sold: every 45 seconds a flow looks into `tills/`, and takes only what no run has taken before."""

import os
from datetime import timedelta

from flows._units import counted, per_product
from prefect import flow
from prefect.states import Completed

import penstock
from penstock import Dataset, Deployment

EVERY = timedelta(seconds=float(os.environ.get("LOOK_SECONDS", "45")))

DATASET = Dataset(
    name="units_sold",
    prefix="tills/",
    columns={"product_id": "BIGINT", "quantity": "BIGINT", "unit_price": "DOUBLE"},
    checks={"quantity_positive": "quantity > 0", "unit_price_positive": "unit_price > 0"},
)


@flow(timeout_seconds=600, persist_result=True, result_serializer="json")
def count_units():
    """Takes one batch of what is new; what waits beyond it is the next run's."""
    with penstock.claim("units_sold") as claim:
        taken, rows = len(claim.objects), 0
        for one in claim.objects:
            units = per_product(one.arrow())
            claim.load(units, of=one)
            rows += units.num_rows
        refused = len(claim.quarantined)
    objects = taken - refused
    result = counted(objects=objects, rows=rows, refused=refused)
    if not taken:
        return Completed(name="Skipped", message="nothing is new, or another run has it", data=result)
    return Completed(name="Processed", message=f"files: {objects}, rows: {rows}, refused: {refused}", data=result)


# No automation runs it: time does.
DEPLOYMENTS = [Deployment(flow=count_units, consumes="units_sold", every=EVERY)]
