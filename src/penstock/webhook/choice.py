"""Which dataset a delivery feeds, and which further events it is worth: decided by what it says. Pure.

Paths and templates are the project's and compiled once; the data is anybody's and never compiled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.errors import DeclarationError
from penstock.events import RESERVED
from penstock.model import FurtherEvent
from penstock.sources import Chosen, Emit, Source

# Prefect takes event names of 1,024 characters and keeps resource ids in an index.
LONGEST_NAME = 255
MOST_PAYLOAD_BYTES = 64_000
# Whoever passes an event on reads it again, some with less depth than Python's; their integers have 64 bits.
DEEPEST_PAYLOAD = 32
_MOST_DIGITS = 4000
_LARGEST_INTEGER = 2**63 - 1

_CHOICE_NAMES = ("body", "headers")
_EVENT_NAMES = ("body", "headers", "delivery", "source", "dataset")


class Unparseable(ValueError):
    """The body is no JSON."""


@dataclass(frozen=True, kw_only=True)
class Further:
    """The events that could be made, and how many could not: something was undefined, too long, or not to be sent."""

    events: tuple[FurtherEvent, ...]
    dropped: int


class _Compiled(Protocol):
    roots: set[str]


class _Finds(_Compiled, Protocol):
    def find(self, data: Mapping[str, object]) -> object: ...


class _Renders(_Compiled, Protocol):
    def render(self, data: Mapping[str, object], most: int) -> str | None: ...


def check(source: Source) -> None:
    """Raises DeclarationError, naming the source, for a path or a template that cannot work."""
    Choice(source)


def parsed(body: bytes) -> object:
    """The JSON of a body, for `Choice`. Raises Unparseable."""
    try:
        return json.loads(body.decode(), parse_constant=_no_constant, parse_int=_whole)
    except (ValueError, RecursionError):
        raise Unparseable from None


class Choice:
    """What `source` has to be decided for each delivery, compiled. Raises DeclarationError as `check` does.

    Unless it `looks`, nothing of a delivery is asked for.
    With `chosen_by_body` a delivery whose body is no JSON cannot be decided and is to be refused; with `needs_body`
    it is parsed, because an event asks for it.
    """

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._fixed = source.dataset if isinstance(source.dataset, str) else ""
        self._chosen = source.dataset if isinstance(source.dataset, Chosen) else None
        try:
            self._path = _path(self._chosen.path, _CHOICE_NAMES) if self._chosen and self._chosen.path else None
            self._template = (
                _template(self._chosen.template, _CHOICE_NAMES) if self._chosen and self._chosen.template else None
            )
            self._emitted = [_Event(emit) for emit in source.emit]
        except DeclarationError as error:
            raise DeclarationError(f"source {source.name}: {error}") from None
        compiled: list[_Compiled] = [one for one in (self._path, self._template) if one]
        compiled += [one for event in self._emitted for one in event.compiled]
        self.looks = bool(compiled)
        self.needs_body = any("body" in one.roots for one in compiled)
        self.chosen_by_body = any("body" in one.roots for one in (self._path, self._template) if one)

    def decide(self, content: bytes, headers: Mapping[str, str], *, delivery: str) -> tuple[str, Further]:
        """The dataset of a delivery with this body, and its further events. Raises Unparseable as the class says."""
        body = None
        if self.needs_body:
            try:
                body = parsed(content)
            except Unparseable:
                if self.chosen_by_body:
                    raise
        dataset = self.dataset(body, headers)
        return dataset, self.events(body, headers, delivery=delivery, dataset=dataset)

    def dataset(self, body: object, headers: Mapping[str, str]) -> str:
        """The dataset it feeds; `body` is the parsed JSON, None unless `needs_body`. Never raises."""
        if self._chosen is None:
            return self._fixed
        data = {"body": body, "headers": headers}
        found: str | None = None
        if self._path:
            found = _text(self._path.find(data))
        elif self._template:
            found = self._template.render(data, LONGEST_NAME)
        return (
            self._chosen.among.get(found, self._chosen.otherwise)
            if isinstance(found, str)
            else (self._chosen.otherwise)
        )

    def events(self, body: object, headers: Mapping[str, str], *, delivery: str, dataset: str) -> Further:
        """The further events of a delivery. Never raises."""
        if not self._emitted:
            return Further(events=(), dropped=0)
        data = {"body": body, "headers": headers, "delivery": delivery, "source": self._name, "dataset": dataset}
        wanted = [event for event in self._emitted if event.wanted(data)]
        made = [found for event in wanted if (found := event.made(data)) is not None]
        return Further(events=tuple(made), dropped=len(wanted) - len(made))


class _Event:
    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._name = _template(emit.name, _EVENT_NAMES)
        self._resource = _template(emit.resource, _EVENT_NAMES)
        self._payload = {name: _path(path, _EVENT_NAMES) for name, path in emit.payload.items()}
        self._when = _path(emit.when, _EVENT_NAMES) if emit.when else None
        self.compiled: list[_Compiled] = [self._name, self._resource, *self._payload.values()]
        if self._when:
            self.compiled.append(self._when)

    def wanted(self, data: Mapping[str, object]) -> bool:
        if self._when is None:
            return True
        found = self._when.find(data)
        # What JMESPath calls true: a nought is, an empty text, array or object is not.
        return found is not None and found is not False and found not in ("", [], {})

    def made(self, data: Mapping[str, object]) -> FurtherEvent | None:
        name = _label(self._name.render(data, LONGEST_NAME), self._emit.name)
        resource = _label(self._resource.render(data, LONGEST_NAME), self._emit.resource)
        if name is None or resource is None:
            return None
        payload: dict[str, Any] = {field: path.find(data) for field, path in self._payload.items()}
        return FurtherEvent(name=name, resource=resource, payload=payload) if _is_sendable(payload) else None


def _label(found: str | None, template: str) -> str | None:
    """The name or resource, unless it is none. A sender's words may not begin what is Prefect's or penstock's."""
    if not found or not found.isprintable():
        return None
    return None if found.startswith(RESERVED) and not template.startswith(RESERVED) else found


def _is_sendable(payload: Mapping[str, object]) -> bool:
    """Whether it is JSON that everybody on the way to Prefect's database takes, and each field has a value."""
    if any(value is None for value in payload.values()):
        return False
    try:
        # First of all its size: what is larger than that is not looked through.
        size = len(json.dumps(payload, ensure_ascii=False, allow_nan=False).encode())
    # No number, half a character, a number of too many digits; deep nesting.
    except (ValueError, RecursionError):
        return False
    return size <= MOST_PAYLOAD_BYTES and _is_plain(payload, DEEPEST_PAYLOAD)


def _is_plain(value: object, levels: int) -> bool:
    if isinstance(value, str):
        return "\0" not in value  # which PostgreSQL does not take
    if isinstance(value, int):
        return abs(value) <= _LARGEST_INTEGER
    if value is None or isinstance(value, float):
        return True
    inner = [*value, *value.values()] if isinstance(value, Mapping) else value
    return isinstance(inner, list) and levels > 0 and all(_is_plain(one, levels - 1) for one in inner)


def _text(found: object) -> str | None:
    """A text as it is, a number or a boolean as JSON writes it."""
    if isinstance(found, str):
        return found
    if isinstance(found, bool | int | float):
        try:
            return json.dumps(found, allow_nan=False)
        except ValueError:
            return None
    return None


def _path(path: str, names: tuple[str, ...]) -> _Finds:
    # JMESPath and Jinja take a while to import: only where a source asks for them.
    from penstock.webhook.paths import Path

    return Path(path, names)


def _template(template: str, names: tuple[str, ...]) -> _Renders:
    from penstock.webhook.templates import Template

    return Template(template, names)


def _whole(digits: str) -> int | str:
    """Python refuses to make an integer of thousands of digits; the delivery is not to be lost by one."""
    return int(digits) if len(digits) <= _MOST_DIGITS else digits


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
