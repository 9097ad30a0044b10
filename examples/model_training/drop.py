"""Drops some days of a CSV into the inbox, as if somebody had just sent them.

python drop.py ../data/seattle-weather.csv 2012                    the days of 2012
python drop.py ../data/seattle-weather.csv 2013 --mislabelled      with sun for rain and rain for sun
python drop.py ../data/seattle-weather.csv 2015-06 --unlabelled    to be predicted: into inbox/forecasts/
"""

import argparse
import csv
from pathlib import Path

INBOX = Path(__file__).parent / "inbox"
SWAPPED = {"sun": "rain", "rain": "sun"}


def main() -> None:
    """Write `inbox/<dataset>/<days>.csv`, also in the place of an earlier one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("days", help="how their dates begin, such as 2012 or 2012-01")
    parser.add_argument("--mislabelled", action="store_true")
    parser.add_argument("--unlabelled", action="store_true")
    asked = parser.parse_args()
    with asked.file.open(newline="") as source:
        rows = [row for row in csv.DictReader(source) if row["date"].startswith(asked.days)]
    if not rows:
        parser.error(f"{asked.file} has no day that begins with {asked.days}")
    for row in rows:
        if asked.unlabelled:
            # What nobody can know beforehand.
            del row["weather"], row["precipitation"]
        elif asked.mislabelled:
            row["weather"] = SWAPPED.get(row["weather"], row["weather"])
    file = INBOX / ("forecasts" if asked.unlabelled else "weather") / f"{asked.days}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as target:
        writer = csv.DictWriter(target, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
