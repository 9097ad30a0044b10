"""The other two ways in, a PUT to the bucket and a signed webhook, from sending to the warehouse's commit."""

from __future__ import annotations

import secrets
import time

import httpx

from bench import project, rows
from bench.drops import figures, timed_of
from bench.figures import Result, Wrong, spread
from bench.peers.stock_drops import measure_stock
from bench.session import Session
from penstock.ledger.database import utc_now
from penstock.verification import standard_webhooks
from penstock.webhook import verify


def run(session: Session) -> Result:
    """PUT objects and post deliveries at random moments, and compare."""
    count = session.pick(50, 3)
    with session.running("ways") as world:
        world.warm("drops")
        began = world.count("drops")
        ids = world.ids.take(count)
        session.say(f"{count} PUTs to the bucket")
        put: dict[str, float] = {}
        for number in ids:
            session.pause(0.5, 2.0)
            key = f"drops/put-{number:05}.csv"
            put[key] = world.put(key, rows.csv([number]))
        world.wait_loaded("drops", began + count, seconds=120)
        verified = world.verify("drops", ids, objects=count)
        putted = timed_of(world, "drops", put)

        session.say(f"{count} signed deliveries")
        posts = world.ids.take(count + 1)
        posted: dict[str, float] = {}
        with httpx.Client(base_url=f"http://127.0.0.1:{world.settings.port}", timeout=30) as client:
            # The first makes the table; it is not timed.
            before = world.count("posts")
            post(client, "posts", posts.start)
            world.wait_loaded("posts", before + 1, seconds=60)
            for number in posts[1:]:
                session.pause(0.5, 2.0)
                delivery, at = post(client, "posts", number)
                posted[delivery] = at
        world.wait_loaded("posts", before + count + 1, seconds=120)
        verified += "; " + world.verify("posts", posts, objects=count + 1, delivered=True)
        delivered = timed_of(world, "posts", posted)
        world.check()
    stock = session.once("stock", lambda: measure_stock(session))
    return Result(
        name="ways",
        title="A PUT to the bucket, and a signed webhook → committed in the warehouse",
        method=(
            "As with drops. Seconds run from just before the PUT or the request is sent, so that the PUT itself, or "
            "the wait for the 202, is in them."
        ),
        figures=[
            *figures("put", "PUT → commit", putted, stock),
            *figures("webhook", "signed delivery → commit", delivered, stock),
        ],
        spread={"put": spread(putted.seconds), "webhook": spread(delivered.seconds)},
        detail={"put_stages_p50": putted.stages, "webhook_stages_p50": delivered.stages},
        verified=verified,
    )


def post(client: httpx.Client, source: str, number: int) -> tuple[str, float]:
    """Post one signed delivery; returns its id and when it was sent."""
    delivery = f"delivery-{number}-{secrets.token_hex(4)}"
    body = rows.json_row(number)
    signed = verify.sign(standard_webhooks(project.SECRET_NAME), project.SECRET, delivery, body, utc_now())
    headers = {"content-type": "application/json", **signed}
    at = time.time()
    answer = client.post(f"/hooks/{source}", content=body, headers=headers)
    if answer.status_code != httpx.codes.ACCEPTED:
        raise Wrong(f"the webhook answered {answer.status_code}: {answer.text[:200]}")
    return delivery, at
