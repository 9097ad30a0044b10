"""Sales that never happened: a seeded generator for the demo, the tests and the benches.

`python -m penstock.testing.sales --rows 1000 --seed 7` prints a CSV file.
"""

from __future__ import annotations

import argparse
import random
import sys
from datetime import datetime, timedelta

HEADER = "id,customer_id,product_id,quantity,unit_price,sold_at"
_BEGIN = datetime(2026, 1, 1)  # noqa: DTZ001 - sales carry a shop's local time, without a zone


def sales_csv(*, rows: int, seed: int, bad: int = 0) -> str:
    """A CSV of `rows` sales, `bad` of which are not valid (no quantity, a negative price, or no customer).

    The same arguments give the same bytes.
    """
    if not 0 <= bad <= rows:
        raise ValueError(f"bad must be from 0 to rows ({rows}), not {bad}")
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    spoiled = set(chance.sample(range(rows), bad))
    lines = [HEADER]
    for number in range(rows):
        customer = chance.randint(1, 500)
        quantity = chance.randint(1, 12)
        price = round(chance.lognormvariate(3, 1.1), 2) + 0.01
        if number in spoiled:
            fault = chance.randrange(3)
            customer = 0 if fault == 0 else customer
            quantity = 0 if fault == 1 else quantity
            price = -price if fault == 2 else price
        sold_at = _BEGIN + timedelta(seconds=chance.randrange(365 * 86_400))
        lines.append(f"{seed * 1_000_000 + number},{customer},{chance.randint(1, 80)},{quantity},{price:.2f},{sold_at}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print sales."""
    parser = argparse.ArgumentParser(description="Print sales that never happened, as CSV.")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--bad", type=int, default=0)
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    sys.stdout.write(sales_csv(rows=asked.rows, seed=asked.seed, bad=asked.bad))


if __name__ == "__main__":
    main()
