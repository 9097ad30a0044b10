"""CloudEvents 1.0 over HTTP: binary, structured and batched requests, each event as the same canonical JSON. Pure.

The SDK judges the attributes. It does not read the events: it makes up a missing id, knows no batches, and puts every
number through a float. Here data that is JSON keeps its characters, only white space between them goes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from json import JSONDecoder
from typing import NoReturn
from urllib.parse import quote, unquote_to_bytes

from cloudevents.core.exceptions import BaseCloudEventException, CloudEventValidationError
from cloudevents.core.v1.event import CloudEvent as Checked

from penstock.model import media_type

MEDIA_TYPE = "application/cloudevents+json"
BATCH_MEDIA_TYPE = "application/cloudevents-batch+json"

# Half of what may wait for a group: a batch finds room while others come, too.
MOST_EVENTS = 500
# Each attribute becomes a column, and its name a part of one.
MOST_ATTRIBUTES = 100
LONGEST_NAME = 100
LONGEST_VALUE = 8_192

_LONGEST_INTEGER = 20
_HUGE = 2**64
_FAMILY = "application/cloudevents"
_LONGEST_ID = 255
_REQUIRED = ("specversion", "id", "source", "type")
_ORDER = (*_REQUIRED, "subject", "time", "datacontenttype", "dataschema")
_SPACES = re.compile(r"[ \t\n\r]*")
_STRING_OR_SPACE = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")|[ \t\n\r]+')
_NAME = re.compile(r"[a-z0-9]+")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word for it
_MEDIA = re.compile(rf"({_TOKEN}/{_TOKEN})[ \t]*(?:;.*)?", re.DOTALL)
_CHARSET = re.compile(r";[ \t]*charset=\"?([0-9A-Za-z_.:-]+)\"?[ \t]*(?:;|\Z)", re.IGNORECASE)
# Control characters and what is no character: the specification forbids them in attributes.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
    + "]"
)
_JSON = re.compile(r"[^/]+/(?:json|.+\+json)")
_TEXT = re.compile(r"text/.*|[^/]+/(?:.+\+)?(?:xml|yaml|x-yaml|csv|sql|graphql|javascript|toml|x-www-form-urlencoded)")
_CHARSETS = {"utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "ascii", "iso-8859-1": "latin-1", "windows-1252": "cp1252"}


class BadCloudEvent(Exception):
    """A request is no CloudEvent; the message says why, in words of the specification and never of the request."""


@dataclass(frozen=True, kw_only=True)
class CloudEvent:
    """One event: `id` tells it from every other of whoever sends, `body` is it in the JSON event format."""

    id: str
    body: bytes


@dataclass(frozen=True, kw_only=True)
class _Member:
    """A member of a JSON object: its value, and the characters it was read from."""

    value: object
    raw: str


def events_of(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> list[CloudEvent]:
    """The request's events, all or none; a batch may be empty. `headers` as they came. Raises BadCloudEvent."""
    try:
        content_type = _content_type(headers)
        kind = media_type(content_type)
        if kind == MEDIA_TYPE:
            return [_structured(_object(_text(body)))]
        if kind == BATCH_MEDIA_TYPE:
            return [_structured(members) for members in _batch(_text(body))]
        if kind.startswith(_FAMILY):
            _refuse(f"of the event formats only {MEDIA_TYPE} and {BATCH_MEDIA_TYPE} are taken")
        return [_binary(headers, content_type, body)]
    except RecursionError:
        raise BadCloudEvent("its JSON nests too deep") from None


def event_id(source: str, id_: str) -> str:
    """Visible ASCII of at most 255 characters, another for every other pair; `#` stands between the two."""
    found = f"{quote(source, safe='/:@+=,')}#{quote(id_, safe='/:@+=,')}"
    if len(found) <= _LONGEST_ID:
        return found
    # No other id can be this one: it has no `#`.
    return f"sha256:{hashlib.sha256(found.encode()).hexdigest()}"


def _binary(headers: Sequence[tuple[bytes, bytes]], content_type: str, body: bytes) -> CloudEvent:
    attributes: dict[str, object] = {}
    for raw_name, raw_value in headers:
        header = raw_name.decode("latin-1").lower()
        if not header.startswith("ce-"):
            continue
        name = header.removeprefix("ce-")
        if name in attributes:
            _refuse("an attribute is there twice")
        if name == "datacontenttype":
            _refuse("in binary mode the header Content-Type says the data's type, and there is no ce-datacontenttype")
        attributes[name] = _header_value(raw_value)
    if content_type:
        attributes["datacontenttype"] = content_type
    checked = _checked(attributes)
    return _event(checked, _data_member(body, checked) if body else {})


def _structured(members: Mapping[str, _Member]) -> CloudEvent:
    data, encoded = members.get("data"), members.get("data_base64")
    if encoded is not None and encoded.value is None:
        encoded = None
    if data is not None and encoded is not None:
        _refuse("data and data_base64 are both there")
    checked = _checked({name: member.value for name, member in members.items() if name not in ("data", "data_base64")})
    if encoded is not None:
        return _event(checked, _data_member(_unbase64(encoded.value), checked))
    if data is None:
        return _event(checked, {})
    data_type = _data_type(checked)
    if not isinstance(data.value, str) or _JSON.fullmatch(data_type):
        return _event(checked, {"data": _minified(data.raw)})
    if _TEXT.fullmatch(data_type):
        return _event(checked, {"data": _quoted(data.value)})
    return _event(checked, _data_member(_encoded(data.value), checked))


def _event(checked: Mapping[str, str], data: Mapping[str, str]) -> CloudEvent:
    """What the event is, whichever way it came: attributes in one order and as text, then the data."""
    attributes = dict(checked)
    if data and "datacontenttype" not in attributes:
        attributes["datacontenttype"] = "application/json"  # which is what its absence means
    names = [name for name in _ORDER if name in attributes]
    names += sorted(set(attributes) - set(_ORDER))
    members = [f"{_quoted(name)}:{_quoted(attributes[name])}" for name in names]
    members += [f"{_quoted(name)}:{raw}" for name, raw in data.items()]
    return CloudEvent(id=event_id(attributes["source"], attributes["id"]), body=f"{{{','.join(members)}}}".encode())


def _data_member(content: bytes, checked: Mapping[str, str]) -> dict[str, str]:
    """The member of the JSON format for data that came as bytes, by its type alone: a column keeps what it holds."""
    data_type = _data_type(checked)
    if _JSON.fullmatch(data_type):
        text = _text(content)
        end = _value(text, _after_space(text, 0))[1]
        if _after_space(text, end) != len(text):
            _refuse("its data is not the JSON that its type says")
        return {"data": _minified(text)}
    charset = _CHARSET.search(checked.get("datacontenttype", ""))
    if charset or _TEXT.fullmatch(data_type):
        encoding = _CHARSETS.get(charset[1].lower() if charset else "utf-8")
        if encoding is not None:
            try:
                return {"data": _quoted(content.decode(encoding))}
            except UnicodeDecodeError:
                pass
    return {"data_base64": _quoted(base64.b64encode(content).decode())}


def _checked(attributes: Mapping[str, object]) -> dict[str, str]:
    """The attributes that are set, as the text that the specification gives each type. Raises BadCloudEvent."""
    if len(attributes) > MOST_ATTRIBUTES:
        _refuse(f"it has more than {MOST_ATTRIBUTES} attributes")
    found: dict[str, str] = {}
    for name, value in attributes.items():
        if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
            _refuse(f"an attribute's name is not of a-z and 0-9, or longer than {LONGEST_NAME}")
        if value is not None:
            found[name] = _attribute(name, value)
    # The SDK would make up what is not there.
    for name in _REQUIRED:
        if name not in found:
            _refuse(f"{name} is not there")
    if "time" in found:
        found["time"], moment = _moment(found["time"])
    try:
        Checked({**found, **({"time": moment} if "time" in found else {})})
    except CloudEventValidationError as error:
        _refuse(f"{min(error.errors)} is not what the specification asks for")
    except (BaseCloudEventException, ValueError, TypeError):
        _refuse("its attributes are not what the specification asks for")
    if "datacontenttype" in found and not _MEDIA.fullmatch(found["datacontenttype"]):
        _refuse("datacontenttype is no media type")
    return found


def _attribute(name: str, value: object) -> str:
    if isinstance(value, bool) and name not in _ORDER:
        return "true" if value else "false"
    if isinstance(value, int) and not isinstance(value, bool):
        if name in _ORDER or not -(2**31) <= value < 2**31:
            _refuse("an attribute is a number, but no whole one of 32 bits")
        return str(value)
    if not isinstance(value, str):
        _refuse("an attribute is neither text nor a whole number nor true or false")
    if len(value) > LONGEST_VALUE:
        _refuse(f"an attribute is longer than {LONGEST_VALUE} characters")
    if _FORBIDDEN.search(value):
        _refuse("an attribute holds a character that none may hold")
    return value


def _moment(text: str) -> tuple[str, datetime]:
    """The time as it came, T and Z in capitals, and what it means."""
    parts = _TIME.fullmatch(text)
    if not parts:
        _refuse("time is not of RFC 3339")
    day, clock, fraction, zone = parts.groups()
    zone = zone.upper()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone == 'Z' else zone}")
    except ValueError:
        _refuse("time is no time there is")
    return f"{day}T{clock}{f'.{fraction}' if fraction else ''}{zone}", moment


def _content_type(headers: Sequence[tuple[bytes, bytes]]) -> str:
    found = [value for name, value in headers if name.lower() == b"content-type"]
    if len(found) > 1:
        _refuse("Content-Type is there twice")
    return found[0].decode("latin-1").strip() if found else ""


def _header_value(raw: bytes) -> str:
    value = raw.strip(b" \t")
    if len(value) > 1 and value.startswith(b'"') and value.endswith(b'"'):
        value = re.sub(rb"\\(.)", rb"\1", value[1:-1], flags=re.DOTALL)
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        _refuse("an attribute's header is not UTF-8 when it is decoded")


def _data_type(checked: Mapping[str, str]) -> str:
    return media_type(checked.get("datacontenttype", "application/json"))


def _unbase64(value: object) -> bytes:
    if not isinstance(value, str):
        _refuse("data_base64 is no text")
    try:
        return base64.b64decode(value.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        _refuse("data_base64 is not base64")


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        _refuse("its data holds half a character")


def _quoted(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(text)
    return json.dumps(text, ensure_ascii=False)


def _minified(raw: str) -> str:
    return _STRING_OR_SPACE.sub(lambda found: found[1] or "", raw)


def _text(content: bytes) -> str:
    """JSON is UTF-8, whatever a charset says (RFC 8259)."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        _refuse("its JSON is not UTF-8")


def _batch(text: str) -> list[dict[str, _Member]]:
    found: list[dict[str, _Member]] = []
    at = _expect(text, 0, "[")
    if text.startswith("]", at):
        at += 1
    else:
        while True:
            if len(found) == MOST_EVENTS:
                _refuse(f"a batch holds more than {MOST_EVENTS} events")
            members, at = _members(text, at)
            found.append(members)
            if text.startswith("]", at):
                at += 1
                break
            at = _expect(text, at, ",")
    if _after_space(text, at) != len(text):
        _refuse("something is behind its JSON")
    return found


def _object(text: str) -> dict[str, _Member]:
    members, at = _members(text, 0)
    if at != len(text):
        _refuse("something is behind its JSON")
    return members


def _members(text: str, at: int) -> tuple[dict[str, _Member], int]:
    """An object's members, and where that begins which follows it and white space."""
    found: dict[str, _Member] = {}
    at = _expect(text, at, "{")
    if text.startswith("}", at):
        return found, _after_space(text, at + 1)
    while True:
        if not text.startswith('"', at):
            _refuse("it is not a JSON object")
        key, at = _value(text, at)
        name = str(key)
        begin = _expect(text, at, ":")
        value, end = _value(text, begin)
        if name in found:
            _refuse("an attribute is there twice")
        found[name] = _Member(value=value, raw=text[begin:end])
        at = _after_space(text, end)
        if text.startswith("}", at):
            return found, _after_space(text, at + 1)
        at = _expect(text, at, ",")


def _value(text: str, at: int) -> tuple[object, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except ValueError:
        _refuse("its JSON is none")


def _expect(text: str, at: int, mark: str) -> int:
    at = _after_space(text, at)
    if not text.startswith(mark, at):
        _refuse("it is not the JSON that its type says")
    return _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    return _SPACES.match(text, at).end()  # type: ignore[union-attr]  # nothing is a match too


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _refuse(reason: str) -> NoReturn:
    raise BadCloudEvent(reason)


def _whole(digits: str) -> int:
    """What an attribute may be is small. Data is not made from what is read here, but from its characters."""
    return int(digits) if len(digits) <= _LONGEST_INTEGER else _HUGE


_DECODER = JSONDecoder(parse_int=_whole, parse_constant=_no_constant)
