"""Events from a file of JSON lines, and from a few words on the command line. Pure, but for reading the file."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from penstock import events
from penstock.automations.samples import Event, made, sample
from penstock.automations.simulate import as_event
from penstock.errors import DeclarationError

_SHORT = {
    "arrived": events.OBJECT_ARRIVED,
    "pending": events.DATASET_PENDING,
    "loaded": events.DATASET_LOADED,
    "schema_changed": events.SCHEMA_CHANGED,
    "quarantined": events.OBJECT_QUARANTINED,
    "lost": events.OBJECT_LOST,
    "accepted": events.DELIVERY_ACCEPTED,
}
_OWN = frozenset(_SHORT.values())
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)")
_ID = "prefect.resource.id"
_ROLE = "prefect.resource.role"
_MOST_TIMES = 100_000
_DIGITS = 8
_LONGEST = timedelta(days=36_500)


def span(text: str) -> timedelta:
    """`90s`, `10m`, `6h`, `2d`, or several (`1h30m`). Raises ValueError for anything else."""
    found = _SPAN.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text.replace(" ", ""):
        raise ValueError(f"{text!r} is no length of time: write it like 90s, 10m, 6h or 2d")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in found)
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"{text!r} is too long: at most {_LONGEST.days}d")
    return timedelta(seconds=seconds)


def from_lines(path: Path) -> list[Event]:
    """The events of a file, one in Prefect's JSON to a line. Raises DeclarationError naming the file and the line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(f"{path}: {error}") from error
    return [_line(line, where=f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def described(texts: Sequence[str], *, project: str, begin: datetime) -> list[Event]:
    """The events that are described, the first at `begin` and each with the one before it unless it says `+10m`.

    A description is a name (`loaded` is `penstock.dataset.loaded`), a dataset where it is one of penstock's (a source
    for `accepted`), and words: `resource=ID`, `label.NAME=VALUE`, `related.ROLE=ID`, `+10m` for so long after the one
    before, `x3` for three of them; any other `NAME=VALUE` is a field of the payload. Raises DeclarationError.
    """
    found: list[Event] = []
    at = begin
    for text in texts:
        read = _Described(text, project)
        for index in range(read.times):
            try:
                at += read.offset if index == 0 or read.times > 1 else timedelta(0)
            except OverflowError:
                raise DeclarationError(f"event {text!r}: it is beyond the end of all calendars") from None
            found.append(read.event(at))
    return found


class _Described:
    """One description, read."""

    def __init__(self, text: str, project: str) -> None:
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise self._wrong(text, str(error)) from error
        if not words:
            raise self._wrong(text, "it is empty")
        self._text, self._project = text, project
        self._name = _SHORT.get(words[0], words[0])
        self._subject = ""
        self.offset, self.times = timedelta(0), 1
        self._labels: dict[str, str] = {}
        self._related: list[dict[str, str]] = []
        self._payload: dict[str, Any] = {}
        if "." not in self._name and self._name not in _OWN and not any(word.startswith("resource=") for word in words):
            near = get_close_matches(self._name, _SHORT, n=1)
            meant = f"did you mean {near[0]}? A" if near else "a"
            short = ", ".join(sorted(_SHORT))
            raise self._wrong(
                text, f"{self._name} is none of the short names ({short}); {meant}ny other event needs resource=ID"
            )
        for word in words[1:]:
            self._take(word)
        if self._name in _OWN and not self._subject and _ID not in self._labels:
            raise self._wrong(text, f"{self._name} needs a dataset, such as: {words[0]} sales")
        if self._name not in _OWN and _ID not in self._labels:
            raise self._wrong(text, f"{self._name} needs a resource, such as: {words[0]} resource=my.thing.1")

    def event(self, occurred: datetime) -> Event:
        """The event, with an id of its own."""
        if self._name not in _OWN or not self._subject:
            resource, related = self._labels, self._related
            return made(self._name, resource, related=related, payload=self._payload, occurred=occurred)
        payload = dict(self._payload)
        key = payload.get("key")
        event = sample(
            self._name,
            self._subject,
            project=self._project,
            occurred=occurred,
            key=key if isinstance(key, str) else None,
            payload=payload,
        )
        event["resource"].update(self._labels)
        event["related"] += self._related
        return event

    def _take(self, word: str) -> None:
        name, equals, value = word.partition("=")
        if not equals:
            self._take_bare(word)
        elif name == "resource":
            self._labels[_ID] = value
        elif name.startswith("label."):
            self._labels[name.removeprefix("label.")] = value
        elif name.startswith("related."):
            self._related.append({_ID: value, _ROLE: name.removeprefix("related.")})
        else:
            self._payload[name] = _value(value)

    def _take_bare(self, word: str) -> None:
        if word.startswith("+"):
            try:
                self.offset = span(word[1:])
            except ValueError as error:
                raise self._wrong(self._text, str(error)) from error
        elif re.fullmatch(r"x\d+", word):
            self.times = int(word[1:]) if len(word) <= _DIGITS else _MOST_TIMES + 1
            if not 0 < self.times <= _MOST_TIMES:
                raise self._wrong(self._text, f"{word!r} is not between x1 and x{_MOST_TIMES}")
        elif self._subject or self._name not in _OWN:
            raise self._wrong(self._text, f"{word!r} is neither NAME=VALUE, nor +10m, nor x3")
        else:
            self._subject = word

    @staticmethod
    def _wrong(text: str, why: str) -> DeclarationError:
        return DeclarationError(f"event {text!r}: {why}")


def _line(line: str, *, where: str) -> Event:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise DeclarationError(f"{where}: no JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(found, dict):
        raise DeclarationError(f"{where}: an event is an object with `occurred`, `event` and `resource`")
    if missing := [f"`{name}`" for name in ("occurred", "event", "resource") if name not in found]:
        raise DeclarationError(
            f"{where}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: "
            "an event is an object with `occurred`, `event` and `resource`"
        )
    return as_event(found, where=where)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
