"""CloudEvents: whichever way an event comes it is the same one, and what is none is refused with a reason."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings import http
from cloudevents.core.v1.event import CloudEvent as Theirs
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.webhook.cloudevents import (
    BATCH_MEDIA_TYPE,
    MEDIA_TYPE,
    MOST_ATTRIBUTES,
    MOST_EVENTS,
    BadCloudEvent,
    CloudEvent,
    event_id,
    events_of,
)
from tests.examples import examples

Headers = list[tuple[bytes, bytes]]

PLAIN = {"specversion": "1.0", "id": "A234-1234-1234", "source": "/mycontext", "type": "com.example.someevent"}
CANONICAL = '"specversion":"1.0","id":"A234-1234-1234","source":"/mycontext","type":"com.example.someevent"'


def typed(content_type: str, **attributes: str) -> Headers:
    return [
        (b"Content-Type", content_type.encode()),
        *((f"Ce-{name}".encode(), value.encode()) for name, value in attributes.items()),
    ]


def structured(text: str | bytes, content_type: str = MEDIA_TYPE) -> CloudEvent:
    (event,) = events_of(typed(content_type), text.encode() if isinstance(text, str) else text)
    return event


def binary(body: bytes, content_type: str = "application/json", **attributes: str) -> CloudEvent:
    (event,) = events_of(typed(content_type, **PLAIN, **attributes), body)
    return event


def with_member(member: str) -> str:
    return f"{json.dumps(PLAIN)[:-1]}, {member}}}"


def sent(message: http.HTTPMessage) -> tuple[Headers, bytes]:
    return [(name.encode(), value.encode()) for name, value in message.headers.items()], message.body


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=30).filter(
    lambda text: text == text.strip()
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TIMES = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)).map(  # noqa: DTZ001
    lambda moment: moment.replace(tzinfo=UTC)
)
NAMES = st.from_regex(r"x[a-z0-9]{1,10}", fullmatch=True)


@st.composite
def attributes_of(draw: Callable[[Any], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "specversion": "1.0",
        "id": draw(TEXTS),
        "source": draw(TEXTS),
        "type": draw(TEXTS),
        "time": draw(TIMES),
    }
    for name in draw(st.sets(st.sampled_from(["subject", "dataschema"]))):
        found[name] = draw(TEXTS)
    found.update(draw(st.dictionaries(NAMES, TEXTS | st.integers(-(2**31), 2**31 - 1), max_size=3)))
    return found


DATA = st.one_of(
    st.tuples(st.just("application/json"), st.dictionaries(st.text(max_size=5), JSON_VALUES, min_size=1, max_size=3)),
    st.tuples(
        st.just("application/vnd.x+json; charset=utf-8"), st.dictionaries(st.text(max_size=5), JSON_VALUES, min_size=1)
    ),
    st.tuples(
        st.sampled_from(["text/plain", "application/xml"]),
        st.text(min_size=1, max_size=30).filter(lambda t: t.encode("utf-8", "replace").decode() == t),
    ),
    st.tuples(
        st.sampled_from(["application/octet-stream", "image/png", "text/plain"]), st.binary(min_size=1, max_size=30)
    ),
    st.tuples(st.just("application/vnd.apache.thrift.binary"), st.just("a text all the same")),
    st.tuples(st.just("application/json"), st.none()),
)


@settings(max_examples=examples(150), deadline=None)
@given(attributes=attributes_of(), data=DATA)
def test_what_the_sdk_writes_is_the_same_event_in_every_mode(attributes: dict[str, Any], data: tuple[str, Any]) -> None:
    """Binary, structured and batched by the official SDK: one id, one body, and everything in it."""
    theirs = Theirs({**attributes, "datacontenttype": data[0]}, data[1])
    as_structured = sent(http.to_structured_event(theirs))
    as_batch = typed(f"{BATCH_MEDIA_TYPE}; charset=utf-8"), b"[" + as_structured[1] + b"]"
    (one,), (two,), (three,) = (
        events_of(*way) for way in (sent(http.to_binary_event(theirs)), as_structured, as_batch)
    )
    assert one == two == three
    found = json.loads(one.body)
    assert one.id == event_id(attributes["source"], attributes["id"])
    time = attributes.pop("time")
    assert datetime.fromisoformat(found["time"]) == time
    assert {name: found[name] for name in attributes} == {name: str(value) for name, value in attributes.items()}
    content = data[1]
    if "data_base64" in found:
        raw = base64.b64decode(found["data_base64"])
        assert raw == (content.encode() if isinstance(content, str) else content)
    elif content is None:
        assert "data" not in found
    else:
        assert found["data"] == (content.decode() if isinstance(content, bytes) else content)


EXTENSIONS = {"comexampleextension1": "value", "comexampleothervalue": "5"}
SPECIFIED: Mapping[str, tuple[str, str, bytes]] = {
    "thrift": (
        '"datacontenttype":"application/vnd.apache.thrift.binary","data_base64":"AP8B"',
        "application/vnd.apache.thrift.binary",
        b"\0\xff\1",
    ),
    "xml": (
        '"unsetextension":null,"datacontenttype":"application/xml","data":"<much wow=\\"xml\\"/>"',
        "application/xml",
        b'<much wow="xml"/>',
    ),
    "json": (
        '"subject":null,"datacontenttype":"application/json","data":{"appinfoA" : "abc", "appinfoB" : 123, "c" : true}',
        "application/json",
        b'{\n  "appinfoA":"abc",\n  "appinfoB" :123, "c":true }',
    ),
    "a string without a type": ('"data" : "I\'m just a string"', "application/json", b'"I\'m just a string"'),
}


@pytest.mark.parametrize(("members", "content_type", "body"), SPECIFIED.values(), ids=SPECIFIED)
def test_the_pairs_of_the_specification(members: str, content_type: str, body: bytes) -> None:
    """What the JSON format's examples show as the same event in two modes is the same event."""
    event = structured(with_member(f'"comexampleextension1":"value","comexampleothervalue":5,{members}'))
    assert event == binary(body, content_type, **EXTENSIONS)
    assert event.id == "/mycontext#A234-1234-1234"


NUMBERS = ["12345678901234567890123", "0.1", "0.10", "1e400", "-0", "1E+2", "9" * 5000]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:25])
def test_no_number_is_harmed(number: str) -> None:
    """Numbers in the data keep every character, in all modes; so do escapes and keys that come twice."""
    data = f'{{"n": [{number}, "\\u00e9 \\" , "], "n": {number}}}'
    kept = f'{{"n":[{number},"\\u00e9 \\" , "],"n":{number}}}'
    event = structured(with_member(f'"data": {data}'))
    assert event.body.decode() == f'{{{CANONICAL},"datacontenttype":"application/json","data":{kept}}}'
    assert event == binary(data.encode())


@pytest.mark.parametrize(
    ("sent_as", "kept"),
    {
        "2018-04-05T17:31:00Z": "2018-04-05T17:31:00Z",
        "2018-04-05t17:31:00.123456789z": "2018-04-05T17:31:00.123456789Z",
        "2018-04-05T17:31:00.5-05:30": "2018-04-05T17:31:00.5-05:30",
    }.items(),
)
def test_a_time_is_kept_as_it_came_but_for_its_capitals(sent_as: str, kept: str) -> None:
    """DuckDB reads T and Z in capitals only; fractions and offsets are the sender's."""
    for event in (structured(json.dumps({**PLAIN, "time": sent_as})), binary(b"", time=sent_as)):
        assert json.loads(event.body)["time"] == kept


def test_header_values_are_decoded_as_the_binding_says() -> None:
    """Per cent, quoted and plain UTF-8 values are the same; a bare per cent stays."""
    expected = json.loads(binary(b"", subject="Euro%20%E2%82%AC%20%F0%9F%98%80").body)["subject"]
    assert expected == "Euro € 😀"
    for value in ('"Euro %e2%82%ac 😀"', '"Eur\\o € 😀"', "  Euro € %f0%9f%98%80 "):
        assert json.loads(binary(b"", subject=value).body)["subject"] == expected
    assert json.loads(binary(b"", subject="100%").body)["subject"] == "100%"


@pytest.mark.parametrize(
    ("content_type", "modes"),
    {
        "application/cloudevents+json": 1,
        "Application/CloudEvents+JSON;charset=UTF-8": 1,
        "application/cloudevents-batch+json ; charset=utf-8": 2,
        "application/json": 0,
    }.items(),
)
def test_the_mode_is_told_by_the_content_type(content_type: str, modes: int) -> None:
    """Parameters and case do not matter; headers that repeat a structured event's attributes are not looked at."""
    event = json.dumps({**PLAIN, "data": 1})
    body = {0: "1", 1: event, 2: f"[{event},{event}]"}[modes]
    found = events_of(typed(content_type, **PLAIN), body.encode())
    assert len(found) == (modes or 1)
    assert len(set(found)) == 1


def test_an_empty_batch_holds_nothing() -> None:
    """The specification allows it."""
    assert events_of(typed(BATCH_MEDIA_TYPE), b" [ ] ") == []


def test_a_batch_is_bounded_and_taken_whole_or_not() -> None:
    """A thousand events are taken, one more or one bad one refuses them all."""
    one = json.dumps(PLAIN)
    full = "[" + ",".join([one] * MOST_EVENTS) + "]"
    assert len(events_of(typed(BATCH_MEDIA_TYPE), full.encode())) == MOST_EVENTS
    for bad in (f"[{one},{full[1:]}", f"[{one}, {{}}]", f"[{one},]", f"[{one}] {one}", one, f"[[{one}]]"):
        with pytest.raises(BadCloudEvent):
            events_of(typed(BATCH_MEDIA_TYPE), bad.encode())


def test_an_event_without_data_needs_no_body() -> None:
    """In binary mode no body is no data; an explicit null is one."""
    assert b'"data' not in binary(b"").body.replace(b'"datacontenttype"', b"")
    assert structured(with_member('"data": null')).body.endswith(b'"data":null}')
    assert events_of([header for header in typed("", **PLAIN) if header[1]], b"") == [structured(json.dumps(PLAIN))]


BAD: Mapping[str, tuple[str, str]] = {
    **{f"no {name}": (json.dumps({k: v for k, v in PLAIN.items() if k != name}), "is not there") for name in PLAIN},
    **{f"null {name}": (json.dumps({**PLAIN, name: None}), "is not there") for name in PLAIN},
    **{f"empty {name}": (json.dumps({**PLAIN, name: ""}), "what the specification asks for") for name in PLAIN},
    **{f"number {name}": (json.dumps({**PLAIN, name: 1}), "whole one") for name in PLAIN},
    "other version": (json.dumps({**PLAIN, "specversion": "0.3"}), "specversion"),
    "empty subject": (json.dumps({**PLAIN, "subject": ""}), "subject"),
    "capitals": (json.dumps({**PLAIN, "eventType": "x"}), "name"),
    "underscore": (json.dumps({**PLAIN, "x_y": "x"}), "name"),
    "empty name": (json.dumps({**PLAIN, "": "x"}), "name"),
    "newline in a name": (json.dumps({**PLAIN, "x\n": "x"}), "name"),
    "long name": (json.dumps({**PLAIN, "x" * 101: "x"}), "name"),
    "long value": (json.dumps({**PLAIN, "x": "x" * 8193}), "longer"),
    "many": (json.dumps(PLAIN | {f"x{i}": "" for i in range(MOST_ATTRIBUTES)}), "more than"),
    "control character": (json.dumps({**PLAIN, "subject": "a\nb"}), "character"),
    "no character": (json.dumps({**PLAIN, "subject": "\uffff"}), "character"),
    "half a character": (with_member('"subject":"\\ud800"'), "character"),
    "object": (json.dumps({**PLAIN, "x": {}}), "neither"),
    "array": (json.dumps({**PLAIN, "x": []}), "neither"),
    "fraction": (json.dumps({**PLAIN, "x": 1.5}), "whole"),
    "33 bits": (json.dumps({**PLAIN, "x": 2**31}), "32 bits"),
    "long number": (with_member(f'"x": {"9" * 5000}'), "32 bits"),
    "time without zone": (json.dumps({**PLAIN, "time": "2018-04-05T17:31:00"}), "RFC 3339"),
    "time by itself": (json.dumps({**PLAIN, "time": "17:31:00Z"}), "RFC 3339"),
    "week date": (json.dumps({**PLAIN, "time": "2018-W14-4T17:31:00Z"}), "RFC 3339"),
    "no such day": (json.dumps({**PLAIN, "time": "2018-02-30T17:31:00Z"}), "no time"),
    "no such zone": (json.dumps({**PLAIN, "time": "2018-02-28T17:31:00+25:00"}), "no time"),
    "media type": (json.dumps({**PLAIN, "datacontenttype": "json"}), "media type"),
    "both data": (with_member('"data": 1, "data_base64": "AA=="'), "both"),
    "bad base64": (with_member('"data_base64": "A"'), "base64"),
    "base64 is a number": (with_member('"data_base64": 1234'), "no text"),
    "base64 is no JSON": (with_member('"data_base64": "AAAA"'), "JSON"),
    "twice": (with_member('"id": "x"'), "twice"),
    "twice by an escape": (with_member('"i\\u0064": "x"'), "twice"),
    "NaN": (with_member('"data": NaN'), "JSON"),
    "deep": (with_member(f'"data": {"[" * 100_000}'), "deep"),
    "trailing": (json.dumps(PLAIN) + "x", "behind"),
    "an array": (f"[{json.dumps(PLAIN)}]", "JSON"),
    "nothing": ("", "JSON"),
    "half": (json.dumps(PLAIN)[:-1], "JSON"),
    "no name": ("{1: 2}", "JSON"),
}


@pytest.mark.parametrize(("text", "reason"), BAD.values(), ids=BAD)
def test_what_is_no_event_is_refused_with_a_reason(text: str, reason: str) -> None:
    """Whatever is wrong is said in words, and nothing of what came is repeated."""
    with pytest.raises(BadCloudEvent, match=reason):
        structured(text)


BAD_REQUESTS: Mapping[str, tuple[Headers, bytes]] = {
    "no attributes": (typed("application/json"), b"{}"),
    "data is no JSON": (typed("application/json", **PLAIN), b"{"),
    "data has more behind it": (typed("application/json", **PLAIN), b"{} {}"),
    "data is empty JSON": (typed("application/json", **PLAIN), b" "),
    "no type and no JSON": (typed("", **PLAIN)[1:], b"text"),
    "overlong UTF-8": (typed("text/plain", **PLAIN, subject="%C0%A0"), b""),
    "latin-1": ([*typed("text/plain", **PLAIN), (b"ce-subject", b"\xe9")], b""),
    "the type twice": ([*typed("text/plain", **PLAIN), (b"content-type", b"text/csv")], b""),
    "an attribute twice": ([*typed("text/plain", **PLAIN), (b"ce-id", b"2")], b""),
    "ce-datacontenttype": (typed("text/plain", **PLAIN, datacontenttype="text/csv"), b""),
    "ce-data": (typed("text/plain", **PLAIN, data="1"), b""),
    "a hyphen": (typed("text/plain", **{**PLAIN, "a-b": "1"}), b""),
    "avro": (typed("application/cloudevents+avro", **PLAIN), b""),
    "no format": (typed("application/cloudevents", **PLAIN), json.dumps(PLAIN).encode()),
    "not UTF-8": (typed(MEDIA_TYPE), json.dumps(PLAIN).encode("utf-16")),
}


@pytest.mark.parametrize(("headers", "body"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_requests_that_are_no_event(headers: Headers, body: bytes) -> None:
    """Headers and modes that the binding forbids are refused."""
    with pytest.raises(BadCloudEvent) as refused:
        events_of(headers, body)
    assert re.fullmatch(r"[\x20-\x7e]{1,200}", str(refused.value))


MUTATED = st.sampled_from(
    [json.dumps({**PLAIN, "time": "2018-04-05T17:31:00Z", "x": 5, "data": {"a": [1.5, "é"]}}).encode()]
)
MEDIA_TYPES = st.sampled_from([MEDIA_TYPE.encode(), BATCH_MEDIA_TYPE.encode(), b"text/plain;charset=punycode", b""])
NAMES_SENT = st.sampled_from([b"content-type", *(f"ce-{n}".encode() for n in [*PLAIN, "time", "x", "datacontenttype"])])


@st.composite
def spoilt(draw: Callable[[Any], Any]) -> bytes:
    body: bytes = draw(MUTATED)
    at = draw(st.integers(0, len(body)))
    changed: bytes = body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 3)) :]
    return b"[" + changed + b"]" if draw(st.booleans()) else changed


@settings(max_examples=examples(400), deadline=None)
@given(
    headers=st.lists(st.tuples(NAMES_SENT | st.binary(max_size=8), st.binary(max_size=12)), max_size=8),
    media_type=MEDIA_TYPES,
    body=st.binary(max_size=60) | spoilt(),
    attributes=st.booleans(),
)
@example(headers=[(b"ce-time", b"0000-01-01T00:00:00Z")], media_type=b"", body=b"1", attributes=True)
@example(headers=[(b"ce-time", b"0001-01-01T00:00:00+23:59")], media_type=b"", body=b"1", attributes=True)
def test_any_request_is_events_or_is_refused(
    headers: Headers, media_type: bytes, body: bytes, attributes: bool
) -> None:
    """Nothing but BadCloudEvent is ever raised, and what is taken is JSON with an id that can be kept."""
    given_headers = [(b"content-type", media_type), *(typed("", **PLAIN)[1:] if attributes else ()), *headers]
    try:
        found = events_of([header for header in given_headers if header[1]], body)
    except BadCloudEvent:
        return
    for event in found:
        assert re.fullmatch(r"[\x21-\x7e]{1,255}", event.id)
        assert {"specversion", "id", "source", "type"} <= json.loads(event.body, parse_int=str).keys()
        assert structured(event.body) == event


@given(one=st.tuples(st.text(), st.text()), two=st.tuples(st.text(), st.text()))
@example(one=("a#b", "c"), two=("a", "b#c"))
@example(one=("a%23b", "c"), two=("a#b", "c"))
@example(one=("a" * 300, "b"), two=("a" * 300, "c"))
@example(one=("a" * 299, "ab"), two=("a" * 300, "b"))
def test_no_two_events_have_one_id(one: tuple[str, str], two: tuple[str, str]) -> None:
    """Each pair of source and id has its own, which is visible ASCII and not too long."""
    assert re.fullmatch(r"[\x21-\x7e]{1,255}", event_id(*one))
    assert (event_id(*one) == event_id(*two)) == (one == two)


def test_a_short_id_can_be_read() -> None:
    """It is what the sender calls its event."""
    assert event_id("https://example.com/shop", "A-1") == "https://example.com/shop#A-1"
