"""Posts a delivery to a URL of the operator's choice, for debugging: `penstock deliveries replay --to`.

Only the command line reaches this; nothing that is served does. No redirect is followed, no proxy or login of the
environment is used, and what answers is bounded in time and bytes and printed escaped.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from penstock.cli.signing import signing_secret
from penstock.errors import DeclarationError, SettingsError, Terminal, Transient, Unverified
from penstock.settings import Settings
from penstock.sources import Source
from penstock.verification import is_secret_header

ANSWER_BYTES = 500
_SECONDS = 10.0
_ALL_SECONDS = 30.0

# What belongs to the connection over which it came, or is no longer so.
_NOT_SENT = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
    }
)
# Whose "signature" is the secret itself.
_HANDS_OVER = frozenset({"bearer", "basic"})


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What the other side said: its status, where it would send us on, and the first bytes."""

    status: int
    location: str
    beginning: bytes

    @property
    def taken(self) -> bool:
        """Whether it was a success."""
        return 200 <= self.status < 300


def checked_url(url: str) -> str:
    """The URL itself. Raises ValueError unless it is http or https, has a host, and no user or password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("it is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("give http://HOST/… or https://HOST/…")
    if "@" in parts.netloc:
        raise ValueError("a user and a password in it would be seen by everybody on this machine: leave them out")
    return url


def shown_url(url: str) -> str:
    """The URL without its query, which may hold a key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}" + ("?…" if parts.query else "")


def headers_to_send(
    kept: Mapping[str, str], content_type: str, source: Source | None, signature: Mapping[str, str], *, inflated: bool
) -> dict[str, str]:
    """The headers of the new request: those kept that are no secret and still true, and the fresh signature.

    An `inflated` body is no longer encoded as it came.
    """
    from penstock.webhook.rejected import REDACTED

    found = {"content-type": content_type} if content_type and content_type.isprintable() else {}
    for name, value in kept.items():
        lower = name.lower()
        secret = source is None or is_secret_header(lower, source.verify)
        gone = lower in _NOT_SENT or (inflated and lower == "content-encoding")
        if not gone and not secret and value != REDACTED and value.isprintable():
            found[lower] = value
    return {**found, **signature}


def fresh_signature(settings: Settings, source: Source, url: str, delivery: str, body: bytes) -> dict[str, str]:
    """The headers with which `source` would send this now. Raises what says why it cannot be signed, and the remedy."""
    from penstock.ledger.database import utc_now
    from penstock.webhook import verify

    if source.verify.scheme in _HANDS_OVER and not _is_here(url):
        raise DeclarationError(
            f"source {source.name} is verified by its secret itself, which is sent to nobody but this machine: "
            "say --unsigned"
        )
    try:
        return verify.sign(source.verify, signing_secret(settings, source), delivery, body, utc_now())
    except SettingsError as error:
        raise SettingsError(f"{error}, or say --unsigned") from None
    except Unverified:
        raise Terminal(f"the id {delivery!r} cannot be signed: say --unsigned") from None


def post(url: str, body: bytes, headers: Mapping[str, str]) -> Answered:
    """Post once. Raises Transient when nothing answers in time."""
    import httpx

    until = time.monotonic() + _ALL_SECONDS
    beginning = b""
    # Not the environment's: a proxy, or a login of ~/.netrc, would see or add what was not asked for.
    with httpx.Client(trust_env=False, follow_redirects=False, timeout=_SECONDS) as client:
        sent = {
            name.encode("latin-1", "replace"): value.encode("latin-1", "replace") for name, value in headers.items()
        }
        try:
            # Uncompressed, and only its beginning: an answer may be a bomb.
            asked = {b"accept-encoding": b"identity", b"user-agent": b"penstock", **sent}
            with client.stream("POST", url, content=body, headers=asked) as answer:
                # As the chunks come: with a size httpx would gather them, however slowly they drip.
                for chunk in answer.iter_raw():
                    beginning += chunk
                    if len(beginning) >= ANSWER_BYTES or time.monotonic() > until:
                        break
                location = answer.headers.get("location", "") if answer.is_redirect else ""
                return Answered(status=answer.status_code, location=location, beginning=beginning[:ANSWER_BYTES])
        except httpx.HTTPError as error:
            raise Transient(f"{shown_url(url)} does not answer: {type(error).__name__}") from None


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
