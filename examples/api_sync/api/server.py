"""A small API of customers that fails at times. Standard library only; it listens on loopback and forgets at its end.

    python api/server.py --failures 0.2
    curl 'http://127.0.0.1:8600/customers?limit=2'
    curl --request PATCH --data '{"city": "Oslo"}' http://127.0.0.1:8600/customers/7

A page is `{"customers": […], "next": ID or null}`, in the order of their ids: `after=ID` is the one behind it,
`updated_since=TIME` leaves out what did not change since. `If-None-Match: ETAG` is answered with 304 where nothing did.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

Trouble = Literal["error", "busy", "stall"]
BUSY_SECONDS = 1
LARGEST_PAGE = 500
_BORN = datetime(2024, 1, 1, tzinfo=UTC)
_NAMES = ("Ada", "Berta", "Carl", "Dora", "Emil", "Frida", "Gustav", "Hanna", "Ivan", "Julia", "Karin", "Lars")
_CITIES = ("Bergen", "Graz", "Lyon", "Porto", "Riga", "Utrecht")


class Customers:
    """Who there is, made from a seed; changes bear the time at which they are made."""

    def __init__(self, number: int, seed: int, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        chance = random.Random(seed)  # noqa: S311 - made-up people, the same ones each time
        self._clock = clock
        self._lock = threading.Lock()
        self._by_id = {one: _made(one, chance) for one in range(1, number + 1)}

    def change(self, ids: Sequence[int], fields: dict[str, Any]) -> list[dict[str, Any]]:
        """Change customers together, or add those that are not there. Returns them."""
        with self._lock:
            now = _said(self._clock())
            for one in ids:
                self._by_id[one] = {**self._by_id.get(one, {}), **fields, "id": one, "updated_at": now}
            return [self._by_id[one] for one in ids]

    def all(self) -> list[dict[str, Any]]:
        """Everybody, in the order of the ids."""
        with self._lock:
            return [self._by_id[one] for one in sorted(self._by_id)]

    def page(self, limit: int, after: int, since: datetime | None) -> dict[str, Any]:
        """At most `limit` of those behind `after` that changed at `since` or later."""
        found = [
            one
            for one in self.all()
            if one["id"] > after and (since is None or datetime.fromisoformat(one["updated_at"]) >= since)
        ]
        return {"customers": found[:limit], "next": found[limit - 1]["id"] if len(found) > limit else None}


def seeded(share: float, seed: int) -> Callable[[int, str], Trouble | None]:
    """What goes wrong with a GET by its number: so many of them fail, always the same."""
    kinds: tuple[Trouble, ...] = ("error", "error", "busy", "stall")

    def trouble(number: int, path: str) -> Trouble | None:
        chance = random.Random(f"{seed}:{number}")  # noqa: S311 - as above
        return chance.choice(kinds) if chance.random() < share else None

    return trouble


class Api(ThreadingHTTPServer):
    """The server. `trouble` says of each GET, by number and path, what goes wrong; `answered` is told of answers."""

    daemon_threads = True

    def __init__(
        self,
        customers: Customers,
        *,
        port: int = 0,
        trouble: Callable[[int, str], Trouble | None] = lambda number, path: None,
        answered: Callable[[str, int], None] = lambda path, status: None,
        stall_seconds: float = 30,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.customers = customers
        self.trouble = trouble
        self.answered = answered
        self.stall_seconds = stall_seconds
        self._lock = threading.Lock()
        self._asked = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def next_trouble(self, path: str) -> Trouble | None:
        """What goes wrong with the GET that has just come."""
        with self._lock:
            self._asked += 1
            number = self._asked
        return self.trouble(number, path)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Api

    def do_GET(self) -> None:
        looked_at = datetime.now(UTC)
        trouble = self.server.next_trouble(self.path)
        if trouble == "error":
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "something went wrong"})
        elif trouble == "busy":
            self._answer(HTTPStatus.TOO_MANY_REQUESTS, {"error": "too fast"}, {"Retry-After": str(BUSY_SECONDS)})
        elif trouble == "stall":
            # No answer: the client's patience is what ends it.
            time.sleep(self.server.stall_seconds)
            self.close_connection = True
        elif urlsplit(self.path).path != "/customers":
            self._answer(HTTPStatus.NOT_FOUND, {"error": "there is /customers"})
        else:
            self._page(looked_at)

    def do_PATCH(self) -> None:
        one = self.path.removeprefix("/customers/")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self._answer(HTTPStatus.OK, self.server.customers.change([int(one)], dict(json.loads(body)))[0])
        except (ValueError, TypeError):
            self._answer(HTTPStatus.BAD_REQUEST, {"error": "PATCH /customers/ID takes an object of fields"})

    def _page(self, looked_at: datetime) -> None:
        asked = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
        try:
            limit = min(max(1, int(asked.get("limit", "100"))), LARGEST_PAGE)
            since = datetime.fromisoformat(asked["updated_since"]) if "updated_since" in asked else None
            found = self.server.customers.page(limit, int(asked.get("after", "0")), since)
        except (ValueError, TypeError) as error:
            self._answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})
            return
        etag = f'"{hashlib.sha256(_encoded(found)).hexdigest()[:20]}"'
        headers = {"ETag": etag, "Date": format_datetime(looked_at, usegmt=True)}
        if self.headers.get("If-None-Match") == etag:
            self._answer(HTTPStatus.NOT_MODIFIED, None, headers)
        else:
            self._answer(HTTPStatus.OK, found, headers)

    def _answer(self, status: HTTPStatus, what: Any, headers: dict[str, str] | None = None) -> None:
        body = b"" if what is None else _encoded(what)
        self.send_response_only(status)
        for name, value in ({"Date": self.date_time_string()} | (headers or {})).items():
            self.send_header(name, value)
        if what is not None:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.log_request(status)
        self.server.answered(self.path, status)


def _encoded(what: Any) -> bytes:
    return json.dumps(what, indent=1).encode()


def _said(when: datetime) -> str:
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _made(one: int, chance: random.Random) -> dict[str, Any]:
    name = chance.choice(_NAMES)
    return {
        "id": one,
        "name": name,
        "email": f"{name.lower()}.{one}@example.org",
        "city": chance.choice(_CITIES),
        "updated_at": _said(_BORN + timedelta(seconds=chance.randrange(10_000_000))),
    }


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8600)
    parser.add_argument("--customers", type=int, default=230)
    parser.add_argument("--failures", type=float, default=0.2, help="the share of the GETs that fail")
    parser.add_argument("--seed", type=int, default=7)
    said = parser.parse_args()
    customers = Customers(said.customers, said.seed)
    with Api(customers, port=said.port, trouble=seeded(said.failures, said.seed)) as api:
        print(f"{said.customers} customers at {api.url}/customers", flush=True)  # noqa: T201 - a program
        with contextlib.suppress(KeyboardInterrupt):
            api.serve_forever()


if __name__ == "__main__":
    main()
