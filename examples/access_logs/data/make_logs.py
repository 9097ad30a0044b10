"""Four hours of a shop's access logs, as two web servers would write and rotate them; the same every time.

    python data/make_logs.py FOLDER           the first server's: 08 to 11 h, one gzipped file an hour; 10 h is bad
    python data/make_logs.py FOLDER --late    the second server's: 09 and 10 h

An hour's file goes on into the first minute of the next hour, as rotation is never exact. Some lines are no requests.
"""

import argparse
import gzip
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

DAY = datetime(2026, 3, 2, tzinfo=UTC)
# How often, how fast in the middle (ms).
ROUTES = (
    (0.40, "GET /", 35),
    (0.70, "GET /products/{}", 60),
    (0.85, "GET /search?q=lamp&page={}", 120),
    (0.95, "POST /cart/{}/items", 80),
    (1.01, "POST /checkout", 240),
)
AGENTS = ("Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (iPhone)", "curl/8.5.0", "shop-app/4.2")
# Of all, and of the checkout: the share that ends in a 5xx.
GOOD, BAD = (0.01, 0.02), (0.06, 0.9)
NO_REQUESTS = (
    '198.51.100.7 - - [{}] "\\x16\\x03\\x01\\x02\\x00\\x01\\x00" 400 157 "-" "-" 0.002',
    '203.0.113.9 - - [{}] "GET /products/17 HT',
)


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--late", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    server, hours = ("web2", (9, 10)) if asked.late else ("web1", (8, 9, 10, 11))
    for hour in hours:
        text = "".join(f"{line}\n" for line in lines(server, hour))
        packed = gzip.compress(text.encode(), mtime=0)
        (asked.folder / f"{server}-{DAY:%Y%m%d}T{hour:02}.log.gz").write_bytes(packed)


def lines(server: str, hour: int) -> list[str]:
    """What the server writes from the second minute of an hour to the first one of the next."""
    # random() is what every Python promises to repeat.
    chance = Random(f"{server} {hour}").random  # noqa: S311
    start = DAY + timedelta(hours=hour, minutes=1)
    offsets = sorted(3600 * chance() for _ in range(300 + int(100 * chance())))
    moments = [start + timedelta(seconds=offset) for offset in offsets]
    found = [request(chance, moment, *(BAD if hour == 10 else GOOD)) for moment in moments]
    for number, text in enumerate(NO_REQUESTS):
        found.insert(100 * (number + 1), text.format(stamp(moments[100 * (number + 1)])))
    return found


def request(chance, moment: datetime, failing: float, failing_checkout: float) -> str:
    """A line; so many of all, and of the checkouts, fail."""
    which = chance()
    (_, asked, middle) = next(route for route in ROUTES if which < route[0])
    # Most are near the middle and a few take much longer.
    seconds = middle / 1000 * math.exp(1.5 * (chance() + chance() + chance() - 1.5))
    status = 200
    if chance() < (failing_checkout if "checkout" in asked else failing):
        status, seconds = 503, 5 + seconds
    elif chance() < 0.03:
        status = 404
    method, path = asked.format(1 + int(500 * chance())).split(" ")
    client, size, agent = f"192.0.2.{1 + int(250 * chance())}", int(20_000 * chance()), AGENTS[int(4 * chance())]
    return f'{client} - - [{stamp(moment)}] "{method} {path} HTTP/1.1" {status} {size} "-" "{agent}" {seconds:.3f}'


def stamp(moment: datetime) -> str:
    """The time as web servers write it."""
    return f"{moment:%d/%b/%Y:%H:%M:%S} +0000"


if __name__ == "__main__":
    main()
