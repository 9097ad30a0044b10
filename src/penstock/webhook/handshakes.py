"""What senders ask before they send: answered with 200, and nothing is delivered. Pure.

Sources: Slack's `url_verification` event; GitHub's `ping` event; Meta's `hub.mode=subscribe`; section 4 of 'HTTP 1.1
Web Hooks for Event Delivery', version 1.0.2 of CloudEvents.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.sources import Source
from penstock.webhook.problems import Refusal

METHODS = ("GET", "OPTIONS")

_CHALLENGE = re.compile(r"[\x21-\x7e]{1,256}")
_ORIGIN = re.compile(r"[\x21-\x7e]{1,255}")
_PER_MINUTE = {"second": 60, "minute": 1, "hour": 1 / 60, "day": 1 / 1440}


def in_body(source: Source, headers: Mapping[str, str], body: Any) -> dict[str, str] | None:
    """What answers a verified POST that is a handshake and no delivery; None for a delivery.

    `body` is the parsed JSON, or None where it is none.
    """
    if not isinstance(body, dict):
        return None
    if source.verify.scheme == "slack" and body.get("type") == "url_verification":
        challenge = body.get("challenge")
        return {"challenge": challenge if isinstance(challenge, str) and _CHALLENGE.fullmatch(challenge) else ""}
    if _is_ping(source, headers):
        return {"handshake": "ping"}
    return None


def may_be_in_body(source: Source, headers: Mapping[str, str]) -> bool:
    """Whether the body has to be parsed to know that a POST is none."""
    return source.verify.scheme == "slack" or _is_ping(source, headers)


def by_get(query: Sequence[tuple[str, str]], secret: str) -> str:
    """The challenge that answers a GET handshake. Raises Refusal unless it was made with the source's secret."""
    asked = dict(query)
    given = asked.get("hub.verify_token", "").encode("utf-8", "surrogateescape")
    same = hmac.compare_digest(given, secret.encode())
    challenge = asked.get("hub.challenge", "")
    if (
        not same
        or len(asked) < len(query)
        or asked.get("hub.mode") != "subscribe"
        or not _CHALLENGE.fullmatch(challenge)
    ):
        raise Refusal(
            "unverified", "The handshake is not made with this source's token.", {"WWW-Authenticate": "Token"}
        )
    return challenge


def by_options(source: Source, headers: Mapping[str, str]) -> dict[str, str] | None:
    """The headers that answer an OPTIONS request of a CloudEvents sender; None for one who may not, or asks nothing."""
    origin = headers.get("webhook-request-origin", "")
    if not source.cloudevents or not _ORIGIN.fullmatch(origin):
        return None
    if "*" not in source.origins and origin not in source.origins:
        return None
    allowed = {"WebHook-Allowed-Origin": origin, "Allow": "POST, OPTIONS"}
    if "webhook-request-rate" in headers or source.rate:
        allowed["WebHook-Allowed-Rate"] = _per_minute(source.rate)
    return allowed


def _is_ping(source: Source, headers: Mapping[str, str]) -> bool:
    return source.verify.scheme == "github" and headers.get("x-github-event") == "ping"


def _per_minute(rate: str) -> str:
    if not rate:
        return "*"
    amount, _, unit = rate.partition("/")
    return str(max(1, int(int(amount) * _PER_MINUTE[unit])))
