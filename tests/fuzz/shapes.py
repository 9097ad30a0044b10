"""What a request to the edge is made of, and what is expected of its answer."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from penstock.webhook.verify import sign
from tests.fuzz.project import META_TOKEN, SOURCES
from tests.fuzz.wire import End

# Of these, whatever is signed is taken.
PLAIN = ("standard", "svix", "stripe", "github", "slack", "shopify", "gitlab", "token", "password", "open")
SIGNED = ("standard", "svix", "stripe", "github", "slack", "shopify")
HOOK = ("post", "/hooks/{source}")
NOTIFICATION = ("post", "/notifications/s3")
TEXTS = ("", "a", "é\u2028\u0000", "\ud83d\ude00", "../../etc/passwd", "{{7*7}}", "%00", "'; --", "\r\nX-Injected: 1")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One exchange. `must` are the statuses that it may end with, empty for any; `documented`, whose document says so.

    `taken` is the delivery (source, id) that has to be in the ledger once it is answered with 202, `never` one that
    must not be there, whatever is answered.
    """

    kind: str
    pieces: tuple[bytes, ...]
    end: End = "any"
    must: frozenset[int] = frozenset()
    documented: tuple[str, str] | None = None
    taken: tuple[tuple[str, str], ...] = ()
    never: tuple[str, str] | None = None
    head_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request in parts, before it is bytes."""

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""

    def raw(self, *, ends: bool = True, length: bool = True) -> bytes:
        """Its bytes; with `ends` the server closes the connection after it."""
        lines = [f"{self.method} {self.target} HTTP/1.1".encode(), b"Host: 127.0.0.1"]
        lines += [name + b": " + value for name, value in self.headers]
        if length and (self.body or self.method == "POST"):
            lines.append(b"Content-Length: %d" % len(self.body))
        if ends:
            lines.append(b"Connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body

    def plus(self, *headers: tuple[bytes, bytes]) -> Request:
        """With further headers."""
        return replace(self, headers=(*self.headers, *headers))


class Maker:
    """What the kinds of requests are made of; everything by chance comes from `chance`, for the request number `n`."""

    def __init__(self, seed: int, n: int, secrets: Mapping[str, str]) -> None:
        self.n = n
        self.chance = random.Random(f"{seed} {n}")  # noqa: S311 - to be repeated, not to be secret
        self._secrets = secrets

    def id(self) -> str:
        """A delivery's id that no other number has."""
        return f"f{self.n}"

    def secret(self, source: str) -> str:
        """The secret of a source, empty where it has none."""
        return next((self._secrets[name] for name in SOURCES[source].verify.secrets), "")

    def meta_token(self) -> str:
        """The token of the handshake by GET."""
        return self._secrets[META_TOKEN]

    def value(self, depth: int = 3) -> Any:
        """Some JSON."""
        pick = self.chance.randrange(8 if depth else 5)
        if pick == 0:
            return self.chance.choice((None, True, False))
        if pick == 1:
            return self.chance.choice((0, -1, 2**63, 1e308, 0.1, 10**40, self.n))
        if pick < 5:
            return self.chance.choice(TEXTS) + "x" * self.chance.choice((0, 1, 30))
        if pick == 5:
            return [self.value(depth - 1) for _ in range(self.chance.randrange(4))]
        keys = ("id", "event_id", "type", "kind", "n", "challenge", *TEXTS)
        return {self.chance.choice(keys): self.value(depth - 1) for _ in range(self.chance.randrange(5))}

    def body(self, source: str, delivery: str) -> bytes:
        """A body whose id is where the source's scheme looks for it."""
        found: dict[str, Any] = {"id": delivery, "event_id": delivery, "kind": self.chance.choice(("fuzz", "other", 1))}
        found["more"] = self.value()
        found["n"] = self.n
        return json.dumps(found).encode()

    def signed(self, source: str, *, delivery: str = "", body: bytes | None = None) -> Request:
        """A request as the sender of `source` sends it."""
        delivery = delivery or self.id()
        content = self.body(source, delivery) if body is None else body
        made = sign(SOURCES[source].verify, self.secret(source), delivery, content, datetime.now(UTC))
        headers = [(name.encode(), value.encode()) for name, value in made.items()]
        headers.append((b"Content-Type", b"application/json"))
        return Request(method="POST", target=f"/hooks/{source}", headers=tuple(headers), body=content)

    def flipped(self, value: bytes, *, most: int = 1) -> bytes:
        """With some bits changed."""
        found = bytearray(value)
        for _ in range(self.chance.randint(1, most)):
            found[self.chance.randrange(len(found))] ^= 1 << self.chance.randrange(8)
        return bytes(found)

    def cut(self, raw: bytes) -> list[bytes]:
        """In some pieces."""
        places = sorted(self.chance.randrange(len(raw)) for _ in range(self.chance.randint(1, 6)))
        return [raw[start:end] for start, end in zip([0, *places], [*places, len(raw)], strict=True)]
