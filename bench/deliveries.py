"""Signed deliveries at 64 connections, every 202 durable; against a route that does nothing on the same server."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import http_load, project, rows
from bench.figures import Figure, Result, Target, Wrong, middle
from bench.session import Session
from bench.world import World
from penstock.ledger.database import utc_now
from penstock.verification import standard_webhooks
from penstock.webhook import verify

_CONNECTIONS = 64
_BODY_BYTES = 1000
_MOST_P99 = 0.1


def run(session: Session) -> Result:
    """The route that does nothing before and after; deliveries whose loads wait, and those that load at once."""
    count = session.pick(20_000, 300)
    with session.running("webhook") as world, _noop(world.folder) as noop:
        nothing = [_send(noop, "noop", range(1, count + 1))]
        session.say(f"{count} deliveries whose loads wait")
        before = world.count("held")
        held_ids = world.ids.take(count)
        held = _send(_edge(world), "held", held_ids)
        world.run_by_hand("held")
        world.wait_loaded("held", before + count, seconds=300)
        verified = world.verify("held", held_ids, objects=count, delivered=True)
        session.say(f"{count} deliveries that are loaded meanwhile")
        before = world.count("posts")
        live_ids = world.ids.take(count)
        live = _send(_edge(world), "posts", live_ids)
        world.wait_loaded("posts", before + count, seconds=300)
        verified += "; " + world.verify("posts", live_ids, objects=count, delivered=True)
        nothing.append(_send(noop, "noop", range(1, count + 1)))
        world.check()
    bare = middle([found.per_second for found in nothing])
    return Result(
        name="webhook",
        title=f"Signed deliveries of 1 KB at {_CONNECTIONS} connections",
        method=(
            f"{count:,} deliveries, signed and rendered before the first is sent, each with an id of its own; the same "
            "sender (one process, on the same cores) against a FastAPI route that reads the body and answers 202, "
            "under the same uvicorn settings. Each 202 means: in the object store and in the ledger. Once with the "
            "loads held back until all were accepted, once with the whole of it loading meanwhile."
        ),
        figures=[
            *_figures("webhook_held", "loads held back", held, bare),
            *_figures("webhook_live", "loading meanwhile", live, bare),
        ],
        detail={"noop_per_second": [found.per_second for found in nothing], "noop_p99": [n.p99 for n in nothing]},
        verified=f"{verified}; every answer was a 202",
    )


def _figures(name: str, how: str, found: http_load.Result, bare: float) -> list[Figure]:
    return [
        Figure(
            name=name,
            what=f"deliveries a second, {how}",
            value=found.per_second,
            unit="/s",
            against="a route that does nothing",
            peer=bare,
            target=Target(on="times", bound=0.5, at_least=True),
        ),
        Figure(
            name=f"{name}_p99",
            what=f"seconds to the 202, p99, {how}",
            value=found.p99,
            unit="s",
            target=Target(on="value", bound=_MOST_P99),
            note=f"p50 {found.p50:.3f} s",
        ),
    ]


def _edge(world: World) -> str:
    return f"http://127.0.0.1:{world.settings.port}"


def _send(url: str, source: str, ids: range) -> http_load.Result:
    how, run = standard_webhooks(project.SECRET_NAME), secrets.token_hex(4)
    host = url.removeprefix("http://")
    requests = []
    for number in ids:
        body = rows.json_row(number, size=_BODY_BYTES)
        signed = verify.sign(how, project.SECRET, f"{run}-{number}", body, utc_now())
        headers = {"content-type": "application/json", **signed}
        requests.append(http_load.render(f"/hooks/{source}", host, headers, body))
    found = http_load.run(url, requests, _CONNECTIONS)
    if set(found.statuses) != {202}:
        raise Wrong(f"{source} answered {dict(found.statuses)}, and not 202 alone")
    return found


@contextmanager
def _noop(folder: Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.peers.noop_route"], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise Wrong("the route that does nothing did not start")
        yield url
    finally:
        process.terminate()
        process.wait(30)
