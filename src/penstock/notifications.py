"""What an S3 store's notification says of objects. Pure.

Read are AWS's event message, versions 2.x, which MinIO, Ceph and others send too, Amazon EventBridge's events, and
either of them in an envelope of Amazon SNS. A notification is a hint: it leads to a stat and is believed in nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

MAX_KEY_BYTES = 1024  # S3's own limit
# How much of what cannot be used is shown.
EXCERPT_BYTES = 4096

# How many parts that cannot be used are told of one by one; the others are counted.
_MOST_PARTS = 20
_SEQUENCER = re.compile(r"[0-9a-f]{1,64}")
# The beginnings of event names, without `s3:` and in lower case. Expirations are called otherwise by AWS, MinIO, Ceph.
_CREATED = ("objectcreated:", "objectsynced:create")
_REMOVED = (
    "objectremoved:",
    "lifecycleexpiration:",
    "lifecycledelmarkerexpiration:",
    "objectlifecycle:expiration",
    "reducedredundancylostobject",
)
_BRIDGED = {"object created": False, "object deleted": True}
_CONFIRMATIONS = ("SubscriptionConfirmation", "UnsubscribeConfirmation")


@dataclass(frozen=True, kw_only=True)
class Change:
    """An object was put, or with `removed` deleted or expired. `sequencer` is empty where it tells no order."""

    bucket: str
    key: str
    removed: bool = False
    sequencer: str = ""


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """A part of a notification, or all of it, that nothing can be done with. `reason` quotes nothing unescaped."""

    reason: str
    part: bytes

    @property
    def digest(self) -> str:
        """The same for the same bytes."""
        return hashlib.sha256(self.part).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class Hints:
    """The latest change of each key, in the order in which they were made, as far as that is known.

    `skipped` say nothing of an object's coming or going; of the `unusable`, `parts` are the first few distinct ones.
    """

    changes: list[Change] = field(default_factory=list)
    skipped: int = 0
    unusable: int = 0
    parts: list[Unusable] = field(default_factory=list)

    @property
    def created(self) -> list[tuple[str, str]]:
        """(bucket, key) of what was put."""
        return [(change.bucket, change.key) for change in self.changes if not change.removed]

    @property
    def removed(self) -> list[tuple[str, str]]:
        """(bucket, key) of what was removed."""
        return [(change.bucket, change.key) for change in self.changes if change.removed]


def parse(body: bytes, *, escaped: bool = True) -> Hints:
    """Read a notification's body; nothing raises. Not `escaped` are the keys in MinIO's stream for listeners.

    An empty body is somebody who asks whether this is alive.
    """
    if not body.strip():
        return Hints(skipped=1)
    return _parse(body, escaped=escaped, in_envelope=False)


def excerpt(part: bytes) -> str:
    """The beginning of `part` as one line of printable characters; the others are escaped."""
    text = part[:EXCERPT_BYTES].decode("utf-8", "backslashreplace")
    return _escape(text) + (" …" if len(part) > EXCERPT_BYTES else "")


class _NoUseError(Exception):
    """Why a record cannot be used."""


def _parse(body: bytes, *, escaped: bool, in_envelope: bool) -> Hints:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return _useless("the body is no JSON", body)
    if not in_envelope and _get(found, "Type") in ("Notification", *_CONFIRMATIONS):
        return _from_sns(found, body)
    if _get(found, "Event") == "s3:TestEvent":
        return Hints(skipped=1)
    if isinstance(_get(found, "detail-type"), str):
        return _read([found], _bridged)
    records = _get(found, "Records")
    if isinstance(records, list):
        return _read(records, lambda record: _recorded(record, escaped=escaped))
    return _useless("it is no S3 notification: it has neither Records nor a detail-type", body)


def _from_sns(found: Any, body: bytes) -> Hints:
    """The address in a confirmation is not asked for: whoever has the token could have us ask any address."""
    kind, message = _get(found, "Type"), _get(found, "Message")
    if kind in _CONFIRMATIONS:
        named = _get(found, "TopicArn")
        topic = _escape(named[:200]) if isinstance(named, str) else "without a name"
        what = (
            "wants its subscription confirmed" if kind == _CONFIRMATIONS[0] else "tells that it ends its subscription"
        )
        return _useless(
            f"the SNS topic {topic} {what}: penstock opens no address that a request names; "
            "if the topic is yours, open the SubscribeURL yourself, and drop this",
            body,
        )
    if not isinstance(message, str):
        return _useless("the SNS envelope has no Message", body)
    return _parse(message.encode("utf-8", "backslashreplace"), escaped=True, in_envelope=True)


def _read(records: Sequence[Any], change_of: Callable[[Any], Change | None]) -> Hints:
    changes: list[Change] = []
    parts: dict[str, Unusable] = {}
    skipped = unusable = 0
    for record in records:
        try:
            change = change_of(record)
        except _NoUseError as error:
            unusable += 1
            if len(parts) < _MOST_PARTS:
                one = Unusable(reason=str(error), part=_bytes_of(record))
                parts[one.digest] = one
            continue
        if change is None:
            skipped += 1
        else:
            changes.append(change)
    return Hints(changes=_latest(changes), skipped=skipped, unusable=unusable, parts=list(parts.values()))


def _recorded(record: Any, *, escaped: bool) -> Change | None:
    """The change in one of AWS's records; None for other events. One without a name leads to a stat too."""
    name = _get(record, "eventName")
    if name is not None and not isinstance(name, str):
        raise _NoUseError("a record's eventName is no text")
    event = (name or _CREATED[0]).lower().removeprefix("s3:")
    if not event.startswith(_CREATED + _REMOVED):
        return None
    s3 = _get(record, "s3")
    return _change(_get(s3, "bucket"), _get(s3, "object"), removed=event.startswith(_REMOVED), escaped=escaped)


def _bridged(event: Any) -> Change | None:
    """The change in an event of EventBridge, whose keys are not escaped; None for other events of S3."""
    kind, source = _get(event, "detail-type"), _get(event, "source")
    removed = _BRIDGED.get(str(kind).lower())
    if source not in (None, "aws.s3"):
        raise _NoUseError("it is an EventBridge event of another service than S3")
    if removed is None:
        return None
    detail = _get(event, "detail")
    return _change(_get(detail, "bucket"), _get(detail, "object"), removed=removed, escaped=False)


def _change(bucket: Any, found: Any, *, removed: bool, escaped: bool) -> Change:
    name, key, sequencer = _get(bucket, "name"), _get(found, "key"), _get(found, "sequencer")
    if not isinstance(name, str) or not name or not isinstance(key, str):
        raise _NoUseError("a record names no bucket and key")
    try:
        # A key that is no UTF-8 must not turn into another key.
        key = unquote_plus(key, errors="strict") if escaped else key
        name.encode()
        size = len(key.encode())
    except UnicodeError:
        raise _NoUseError("a record's bucket or key is no UTF-8") from None
    if not 1 <= size <= MAX_KEY_BYTES:
        raise _NoUseError(f"a record's key is empty or longer than {MAX_KEY_BYTES} bytes")
    order = sequencer.lower() if isinstance(sequencer, str) else ""
    return Change(bucket=name, key=key, removed=removed, sequencer=order if _SEQUENCER.fullmatch(order) else "")


def _latest(changes: Sequence[Change]) -> list[Change]:
    """The latest change of each key, where it stands. AWS's sequencers tell nothing about the order of two keys."""
    latest: dict[tuple[str, str], Change] = {}
    for change in changes:
        name = (change.bucket, change.key)
        known = latest.get(name)
        if known is None or _follows(change, known):
            latest.pop(name, None)
            latest[name] = change
    return list(latest.values())


def _follows(change: Change, known: Change) -> bool:
    """Whether `change` came after `known`, which stands before it in the notification.

    The shorter sequencer is filled up with zeros on its right, as AWS documents it.
    """
    one, other = change.sequencer, known.sequencer
    if not one or not other:
        return True
    width = max(len(one), len(other))
    one, other = one.ljust(width, "0"), other.ljust(width, "0")
    return one > other or (one == other and change.removed != known.removed)


def _get(found: Any, name: str) -> Any:
    """A field, however its name's letters are written; None where there is none."""
    if not isinstance(found, dict):
        return None
    if name in found:
        return found[name]
    lower = name.lower()
    return next((value for other, value in found.items() if other.lower() == lower), None)


def _useless(reason: str, body: bytes) -> Hints:
    return Hints(unusable=1, parts=[Unusable(reason=reason, part=body)])


def _bytes_of(record: Any) -> bytes:
    try:
        return json.dumps(record, sort_keys=True).encode()
    except RecursionError:
        return b"(nested too deep to be shown)"


def _escape(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
