"""What the API's pages say, and where the next sync begins: no network, no clock."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TypedDict
from urllib.parse import urlencode

import httpx

# A customer that is changed may show up a while after the time that its change bears.
OVERLAP = timedelta(seconds=30)
_LONGEST_PAUSE = timedelta(minutes=1)


class Known(TypedDict):
    """What is remembered of a page: its ETag, and the address of the one behind it."""

    etag: str | None
    next: str | None


UNKNOWN: Known = {"etag": None, "next": None}


class Memory(TypedDict):
    """What is kept from one sync to the next.

    Of the changes up to `until`, the server's time, all have landed. `pages` are those that were asked for since.
    """

    api: str
    until: str | None
    pages: dict[str, Known]


@dataclass(frozen=True, kw_only=True)
class Page:
    """What an answer says: the server's time when it was asked for, and where it is new, the rest."""

    asked_at: datetime
    etag: str | None = None
    newest: datetime | None = None
    next: str | None = None


def nothing_yet(api: str) -> Memory:
    """What is remembered of an API that was never asked."""
    return {"api": api, "until": None, "pages": {}}


def address(memory: Memory, limit: int, after: str | None = None) -> str:
    """Of the page behind the customer `after`; of the first one without."""
    asked = {"limit": limit}
    if memory["until"]:
        asked["updated_since"] = (datetime.fromisoformat(memory["until"]) - OVERLAP).isoformat()
    return f"{memory['api']}/customers?{urlencode(asked | ({'after': after} if after else {}))}"


def asked_at(answer: httpx.Response) -> datetime:
    """The server's time when it was asked: before it looked, which its own answer may have come long after."""
    return parsedate_to_datetime(answer.headers["Date"]) - answer.elapsed


def read(answer: httpx.Response) -> Page:
    """What a page says. Raises ValueError for what is none, such as a proxy's, which must not land."""
    try:
        found = json.loads(answer.content)
        changed = [datetime.fromisoformat(customer["updated_at"]) for customer in found["customers"]]
        return Page(
            asked_at=asked_at(answer),
            etag=answer.headers.get("ETag"),
            newest=max(changed, default=None),
            next=found["next"],
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{answer.url} answered with no page of customers: {error!r}") from error


def next_memory(memory: Memory, walked: Sequence[Page], pages: dict[str, Known]) -> Memory:
    """What the next sync is to know, after all pages were asked for.

    The mark moves to when the first of them was: what changes while the others are read is newer, wherever it moves to.
    While nothing is newer than it, the mark stays, and with it the addresses that the ETags are of.
    """
    newest = max((page.newest for page in walked if page.newest), default=None)
    until = memory["until"]
    if newest is None or (until and newest <= datetime.fromisoformat(until)):
        return {**memory, "pages": pages}
    return {**memory, "until": walked[0].asked_at.isoformat(), "pages": {}}


def key_of(body: bytes) -> str:
    """Where a page lands: by its content, so that a page that comes again is the object that is there already."""
    return f"customers/{hashlib.sha256(body).hexdigest()[:32]}.json"


def pause_asked_for(answer: httpx.Response) -> float:
    """The seconds that a 429 or 503 asks to wait, a minute at most; 0 for any other answer."""
    said = answer.headers.get("Retry-After", "")
    if answer.status_code not in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE) or not said:
        return 0.0
    try:
        pause = timedelta(seconds=int(said))
    except ValueError:
        try:
            pause = parsedate_to_datetime(said) - parsedate_to_datetime(answer.headers["Date"])
        except (ValueError, KeyError):
            return 0.0
    return min(max(pause, timedelta()), _LONGEST_PAUSE).total_seconds()


def will_pass(error: BaseException) -> bool:
    """Whether asking again may help: not when the request is at fault, which is a 4xx other than 429 (and 408)."""
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status >= httpx.codes.INTERNAL_SERVER_ERROR or status in (
            httpx.codes.TOO_MANY_REQUESTS,
            httpx.codes.REQUEST_TIMEOUT,
        )
    return isinstance(error, httpx.TransportError | ValueError)
