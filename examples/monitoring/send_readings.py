"""Posts what two kilns read, once a second, as a thermometer would: `python send_readings.py`. Standard library only.

kiln-1 heats up over 80 °C and cools down again, kiln-2 stays as it is. The secret and the address are those that
`penstock up` made, unless READINGS_WEBHOOK_SECRET and READINGS_URL say others. With --begin the readings are of that
time and are posted without waiting.
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import math
import os
import random
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

HOME = Path(os.environ.get("PENSTOCK_HOME", Path(__file__).parent / ".penstock"))
TRIES = 5
AGAIN = (408, 429, 503)


def readings(begin, seconds, seed):
    """For each second what the kilns read; kiln-1 is hot in the middle of the first four fifths."""
    noise = random.Random(seed)  # noqa: S311 - it makes no secret
    for second in range(seconds):
        heat = 30 * max(0.0, math.sin(math.pi * second / (0.8 * seconds)))
        for sensor, celsius in (("kiln-1", 60 + heat), ("kiln-2", 65)):
            yield {
                "sensor": sensor,
                "measured_at": (begin + timedelta(seconds=second)).isoformat(),
                "celsius": round(celsius + noise.uniform(-1.5, 1.5), 2),
            }


def signed(secret, delivery, body, now):
    """The headers of Standard Webhooks. The same delivery again is known by its id and loaded once."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{delivery}.{now}.".encode() + body, hashlib.sha256)
    return {
        "content-type": "application/json",
        "webhook-id": delivery,
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def post(url, secret, records):
    """Post records as one delivery; what is not taken just now is sent again."""
    to = urlsplit(url)
    kind = http.client.HTTPSConnection if to.scheme == "https" else http.client.HTTPConnection
    body = json.dumps(records).encode()
    delivery = hashlib.sha256(body).hexdigest()
    for left in reversed(range(TRIES)):
        try:
            with closing(kind(to.netloc, timeout=10)) as connection:
                connection.request("POST", to.path, body, signed(secret, delivery, body, int(time.time())))
                answer = connection.getresponse()
                said = answer.read().decode(errors="replace")
        except OSError as error:
            pause, wrong = 1.0, f"does not answer ({error}): does `penstock up` run?"
        else:
            if answer.status == 202:
                return
            pause, wrong = float(answer.headers.get("Retry-After", 1)), f"answered {answer.status}: {said}"
            if answer.status not in AGAIN:
                break
        if left:
            time.sleep(pause)
    raise SystemExit(f"{url} {wrong}")


def made(file, name):
    """What `penstock up` made here."""
    try:
        return json.loads((HOME / file).read_text())[name]
    except (OSError, KeyError):
        raise SystemExit(f"{HOME / file} has no {name}: start `penstock up` first") from None


def main():
    """Post what was asked for, a delivery with a reading of each kiln at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=240, help="of how many seconds (default: 240)")
    parser.add_argument("--seed", type=int, default=1, help="another number is other noise (default: 1)")
    parser.add_argument("--begin", type=datetime.fromisoformat, help="such as 2026-03-01T12:00:00+00:00")
    asked = parser.parse_args()
    secret = os.environ.get("READINGS_WEBHOOK_SECRET") or made("secrets.json", "READINGS_WEBHOOK_SECRET")
    url = os.environ.get("READINGS_URL") or f"http://127.0.0.1:{made('up.json', 'PENSTOCK_PORT')}/hooks/readings"
    found = list(readings(asked.begin or datetime.now(UTC).replace(microsecond=0), asked.seconds, asked.seed))
    for first, second in zip(found[::2], found[1::2], strict=True):
        post(url, secret, [first, second])
        if not asked.begin:
            sys.stdout.write(f"{first['measured_at']}  {first['celsius']:.1f} °C  {second['celsius']:.1f} °C\n")
            time.sleep(1)
    sys.stdout.write(f"posted {len(found)} readings\n")


if __name__ == "__main__":
    main()
