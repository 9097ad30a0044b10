"""The deliveries that people name, and their bodies: from the ledger, and from the envelopes in the store."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from penstock import envelope
from penstock.cli.show import printable
from penstock.errors import ObjectMissing, Terminal, Unreadable
from penstock.model import Delivery, media_type

if TYPE_CHECKING:
    from penstock.ledger import Ledger
    from penstock.ledger.delivered import Delivered
    from penstock.ledger.rejections import Kept
    from penstock.objects import ObjectStore

SHOWN_BYTES = 4096
REJECTED = "rejected/"


class NotMeant(Terminal):
    """What was given names no delivery, or more than one."""


def named(ledger: Ledger, text: str, *, source: str | None, rejected: bool) -> list[Delivered | Kept]:
    """Everything that `text` means: deliveries by id, `source:id`, full name or request; what was refused by number.

    Raises NotMeant when it means nothing.
    """
    refused = [kept for kept in refused_of(ledger, text, rejected=rejected) if source in (None, kept.rejected.source)]
    by_number = any(kept.number == _number(text, rejected=rejected) for kept in refused)
    accepted = ledger.delivered.find(text, source=source) if not rejected and not by_number else []
    if not accepted and not refused:
        raise NotMeant(_names_nothing(text, rejected=rejected))
    return [*accepted, *refused]


def refused_of(ledger: Ledger, text: str, *, rejected: bool = False) -> list[Kept]:
    """What was refused and is kept, by `rejected/N` (or N, where `rejected` is what is asked for) or by its request."""
    number = _number(text, rejected=rejected)
    kept = [number] if number is not None else []
    kept += [one.number for one in ledger.rejections.of_request(text)]
    return [whole for one in kept if (whole := ledger.rejections.get(one)) is not None]


def _number(text: str, *, rejected: bool) -> int | None:
    number = text.removeprefix(REJECTED)
    named = rejected or number != text
    return int(number) if named and number.isdecimal() and len(number) <= 18 else None


def _names_nothing(text: str, *, rejected: bool) -> str:
    if rejected:
        return f"nothing of the name {text!r} was refused and kept. Look: penstock deliveries ls --rejected"
    numbers = "; a number of --json is only for --before" if text.isdecimal() else ""
    return (
        f"nothing of the name {text!r}: give a delivery's id (source:id where several sources have it), a request's id "
        f"or rejected/N{numbers}. Look: penstock deliveries ls [--rejected]"
    )


def one_of(text: str, found: list[Delivered | Kept]) -> Delivered | Kept:
    """The only one. Raises NotMeant that names each when there are several."""
    if len(found) > 1:
        names = ", ".join(call(one) for one in found[:20]) + (", …" if len(found) > 20 else "")
        raise NotMeant(printable(f"{text!r} means {len(found)}. Say which: {names}"))
    return found[0]


def call(one: Delivered | Kept) -> str:
    """By what it is meant and no other."""
    from penstock.ledger.rejections import Kept

    return f"{REJECTED}{one.number}" if isinstance(one, Kept) else f"{one.source}:{one.delivery}"


def read(store: ObjectStore, found: Delivered) -> Delivery:
    """The delivery itself, from its envelope. Raises ObjectMissing, Unreadable or Transient, and says what to do."""
    name = printable(call(found))
    if found.archived_at is not None:
        raise ObjectMissing(
            f"the body of {name} is gone: retention removed its envelope at {found.archived_at:%Y-%m-%d %H:%M}"
        )
    try:
        content = store.read(found.bucket, found.key, etag=found.etag, version_id=found.version_id)
    except ObjectMissing:
        raise ObjectMissing(
            f"the body of {name} is gone: its envelope {printable(found.name)} is not in the store any more"
        ) from None
    delivery = envelope.decode_line(envelope.entry_line(content, found.entry))
    if (delivery.source, delivery.id) != (found.source, found.delivery):
        raise Unreadable(f"the envelope of {name} holds another delivery at its place: who wrote to the bucket?")
    return delivery


def write_raw(body: bytes) -> None:
    """The bytes to standard output, and nothing else. Raises Terminal where a terminal would obey some of them."""
    if sys.stdout.isatty() and not _harmless(body):
        raise Terminal("the body holds what a terminal would obey: send it to a file, as in --body > body.bin")
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()


def shown(body: bytes, content_type: str, *, pretty: bool) -> str:
    """The beginning of a body as people read it: JSON with line ends if `pretty`, what is no text as its bytes."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        head = body[:SHOWN_BYTES]
        return printable(head.decode("ascii", "backslashreplace")) + _more(len(body) - len(head))
    if pretty and (media_type(content_type).endswith("json") or text.lstrip()[:1] in ("{", "[")):
        with suppress(ValueError, RecursionError):  # then as it came
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    encoded = text.encode("utf-8", "backslashreplace")
    return printable(encoded[:SHOWN_BYTES].decode(errors="ignore")) + _more(len(encoded) - SHOWN_BYTES)


def as_json(body: bytes) -> dict[str, Any]:
    """The body for a program: as text, or in base64 where it is none."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def header_lines(headers: Iterable[tuple[str, str]]) -> list[str]:
    """Headers as lines, in their order."""
    return [printable(f"{name}: {value}".replace("\n", r"\n")) for name, value in headers]


def _harmless(body: bytes) -> bool:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return False
    return all(one.isprintable() or one in "\n\t" for one in text)


def _more(left: int) -> str:
    return f"\n… and {left:,} bytes more: --body writes all of it" if left > 0 else ""
