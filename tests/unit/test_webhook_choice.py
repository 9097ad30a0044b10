"""Which dataset and which further events: decided by the project's words about a sender's data, whatever that is."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import verification
from penstock.envelope import decode, encode
from penstock.errors import DeclarationError
from penstock.model import Delivery, FurtherEvent
from penstock.sources import Emit, Source, dataset_by_path, dataset_by_template
from penstock.webhook.choice import LONGEST_NAME, MOST_PAYLOAD_BYTES, Choice, Unparseable, check, parsed
from tests.examples import examples
from tests.unit.verify_cases import NOW

HEADERS = {"x-github-event": "push", "x-kind": "orders"}
AMONG = {"orders": "orders", "push": "pushes", "7": "seven", "1.5": "half", "true": "yes", "{{ 7*7 }}": "braces"}


def source(dataset: Any = "orders", *emit: Emit) -> Source:
    return Source(name="shop", dataset=dataset, verify=verification.unverified(because="a test"), emit=emit)


@cache
def by_path(path: str) -> Choice:
    return Choice(source(dataset_by_path(path, among=AMONG, otherwise="rest")))


@cache
def by_template(template: str) -> Choice:
    return Choice(source(dataset_by_template(template, among=AMONG, otherwise="rest")))


def events(body: object, *emit: Emit) -> tuple[tuple[FurtherEvent, ...], int]:
    found = Choice(source("orders", *emit)).events(body, HEADERS, delivery="d-1", dataset="orders")
    return found.events, found.dropped


PATHS: Mapping[str, tuple[str, object, str]] = {
    "a field": ("body.type", {"type": "orders"}, "orders"),
    "a header": ('headers."x-github-event"', None, "pushes"),
    "a whole number": ("body.n", {"n": 7}, "seven"),
    "a fraction": ("body.n", {"n": 1.5}, "half"),
    "a boolean": ("body.n", {"n": True}, "yes"),
    "a function": ("length(body.n)", {"n": "x" * 7}, "seven"),
    "one of two": ('body.n || headers."x-kind"', {}, "orders"),
    "an index": ("body[0].n", [{"n": "push"}], "pushes"),
    "braces are text": ("body.n", {"n": "{{ 7*7 }}"}, "braces"),
    "not there": ("body.n.m", {}, "rest"),
    "another": ("body.n", {"n": "else"}, "rest"),
    "null": ("body.n", {"n": None}, "rest"),
    "an object": ("body.n", {"n": {"orders": 1}}, "rest"),
    "an array": ("body.n", {"n": ["orders"]}, "rest"),
    "another type than the function's": ("length(body.n)", {"n": 7}, "rest"),
    "no number": ("to_number(body.n)", {"n": "nan"}, "rest"),
    "another body": ("body.n", "text", "rest"),
}


@pytest.mark.parametrize(("path", "body", "dataset"), PATHS.values(), ids=PATHS)
def test_a_dataset_is_chosen_by_a_path(path: str, body: object, dataset: str) -> None:
    """What the path finds is looked up; whatever is not there feeds the other one."""
    assert by_path(path).dataset(body, HEADERS) == dataset


TEMPLATES: Mapping[str, tuple[str, object, str]] = {
    "a field": ("{{ body.type }}", {"type": "orders"}, "orders"),
    "a header": ("{{ headers['x-github-event'] }}", None, "pushes"),
    "two fields": ("{{ body.a }}{{ body.b }}", {"a": "or", "b": "ders"}, "orders"),
    "a whole number": ("{{ body.n }}", {"n": 7}, "seven"),
    "a boolean": ("{{ body.n }}", {"n": True}, "yes"),
    "a filter": ("{{ body.n | lower | trim }}", {"n": " ORDERS"}, "orders"),
    "replace": ("{{ body.n | replace('.', '') }}", {"n": "or.ders"}, "orders"),
    "a condition": ("{% if body.n in ('a', 'b') %}\n push \n{% else %}orders{% endif %}", {"n": "a"}, "pushes"),
    "a default": ("{{ body.n.m | default(headers['x-kind']) }}", {}, "orders"),
    "a test": ("{{ 'push' if body.n.m is defined else 'orders' }}", {}, "orders"),
    "an index": ("{{ body[-1].n }}", [0, {"n": "push"}], "pushes"),
    "the sender's own items": ("{{ body.items }}", {"items": "orders"}, "orders"),
    "braces are text": ("{{ body.n }}", {"n": "{{ 7*7 }}"}, "braces"),
    "not there": ("{{ body.n.m }}", {}, "rest"),
    "half of it not there": ("orders{{ body.n }}", {}, "rest"),
    "null": ("{{ body.n }}", {"n": None}, "rest"),
    "an object": ("{{ body.n }}", {"n": {}}, "rest"),
    "no attributes of Python": ("{{ body.keys }}", {}, "rest"),
    "no private ones": ("{{ body.__class__ }}", {}, "rest"),
    "no private ones of text": ("{{ body.n['__class__'] }}", {"n": "x"}, "rest"),
    "not of what is undefined": ("{{ body.n.__class__ }}", {}, "rest"),
    "a key of that name": ("{{ body.__class__ }}", {"__class__": "orders"}, "orders"),
    "long": ("{{ body.n }}", {"n": "orders" * 1_000_000}, "rest"),
    "another type than the filter's": ("{{ body.n | first }}", {"n": 7}, "rest"),
}


@pytest.mark.parametrize(("template", "body", "dataset"), TEMPLATES.values(), ids=TEMPLATES)
def test_a_dataset_is_chosen_by_a_template(template: str, body: object, dataset: str) -> None:
    """What the template gives is looked up; where something is undefined the other one is fed."""
    assert by_template(template).dataset(body, HEADERS) == dataset


BODY_NEEDED = {
    "body.type": True,
    'headers."x-kind"': False,
    "headers.body": False,
    "headers | body": False,
    "`1`": False,
    "@": True,
    "*.type": True,
    "[headers.a, body.b]": True,
    "{a: headers.a}": False,
    "headers.a || body.b": True,
    "map(&body, headers.a)": False,
    "length(body)": True,
    "headers.a[?body == 'x']": False,
}


@pytest.mark.parametrize(("path", "needed"), BODY_NEEDED.items())
def test_the_body_is_needed_where_a_path_reads_it(path: str, needed: bool) -> None:
    """Only then must a body be JSON."""
    assert by_path(path).needs_body is needed


def test_the_body_is_needed_where_a_template_or_an_event_reads_it() -> None:
    """A fixed dataset without events needs nothing of it."""
    assert by_template("{{ body.x }}").needs_body
    assert not by_template("{{ headers.x }} body").needs_body
    assert not Choice(source()).needs_body
    assert not Choice(source("orders", Emit(name="a", resource="{{ delivery }}", payload={"s": "source"}))).needs_body
    for emit in (
        Emit(name="{{ body.x }}", resource="r"),
        Emit(name="a", resource="{{ body.x }}"),
        Emit(name="a", resource="r", payload={"x": "body.x"}),
        Emit(name="a", resource="r", when="body.x"),
    ):
        assert Choice(source("orders", emit)).needs_body


WRONG_PATHS = {
    "body.": "no JMESPath",
    "": "path or by a template",
    "bdy.type": "begins with 'bdy'",
    "delivery": "begins with 'delivery'",
    "lenght(body)": "calls lenght",
    "length(body, body)": "gives length",
    "length()": "gives length",
    "merge()": "gives merge",
    "body[?lenght(@) > `1`]": "calls lenght",
    "x" * 3000: "more than",
    "(" * 1500: "no JMESPath",
}


@pytest.mark.parametrize(("path", "reason"), WRONG_PATHS.items(), ids=[name[:20] for name in WRONG_PATHS])
def test_a_path_that_cannot_work_is_said_at_the_start(path: str, reason: str) -> None:
    """Whatever data would come: so that a project with it does not start."""
    with pytest.raises(DeclarationError, match=reason):
        check(source(dataset_by_path(path, among=AMONG, otherwise="rest")))


WRONG_TEMPLATES = {
    "{{ body.x": "does not compile",
    "{{ bdy.x }}": "names 'bdy'",
    "{{ source }}": "names 'source'",
    "{{ body.x | tojosn }}": "does not compile",
    "{{ body.x | map('int') }}": "does not compile",
    "{{ body.x is odd }}": "does not compile",
    "{% for a in body %}x{% endfor %}": "uses For",
    "{% set a = body %}": "uses Assign",
    "{% macro a() %}{% endmacro %}": "uses Macro",
    "{% include 'x' %}": "uses Include",
    "{{ body.x() }}": "uses Call",
    "{{ range(9) }}": "uses Call",
    "{{ body.x * 1000 }}": "uses Mul",
    "{{ 'a' ~ body.x }}": "uses Concat",
    "{{ '%1000000000d' % body.x }}": "uses Mod",
    "{{ 9 ** 9 ** 9 }}": "uses Pow",
    "{{ body.x[1:] }}": "uses Slice",
    "{{ body.x | replace('', body.y) }}": "no constant",
    "{{ body.x | truncate(length=body.y) }}": "no constant",
    "x" * 3000: "more than",
    "{{ " + "(" * 900 + "}}": "does not compile",
}


@pytest.mark.parametrize(("template", "reason"), WRONG_TEMPLATES.items(), ids=[name[:30] for name in WRONG_TEMPLATES])
def test_a_template_that_cannot_work_is_said_at_the_start(template: str, reason: str) -> None:
    """So is one by which data would decide how much is done: loops, calls, arithmetic, data as a filter's argument."""
    with pytest.raises(DeclarationError, match=f"(?s)^source shop: .*{reason}"):
        check(source(dataset_by_template(template, among=AMONG, otherwise="rest")))


def test_what_cannot_work_of_an_event_is_said_at_the_start() -> None:
    """Its templates and its paths alike, and the source is named."""
    for emit in (
        Emit(name="{{ bdy }}", resource="r"),
        Emit(name="a", resource="{{ bdy }}"),
        Emit(name="a", resource="r", payload={"x": "bdy"}),
        Emit(name="a", resource="r", when="bdy"),
    ):
        with pytest.raises(DeclarationError, match=r"^source shop: .*'bdy'"):
            check(source("orders", emit))


ORDER = Emit(
    name="order.{{ body.kind }}",
    resource="shop.{{ source }}.{{ body.id }}",
    payload={
        "total": "body.lines[].price | sum(@)",
        "delivery": "delivery",
        "dataset": "dataset",
        "kind": 'headers."x-kind"',
    },
    when="body.kind != 'test'",
)


def test_an_event_is_made_of_what_came() -> None:
    """Names and resources are rendered, fields found; it survives the envelope."""
    found, dropped = events({"kind": "placed", "id": 7, "lines": [{"price": 1}, {"price": 2}]}, ORDER)
    payload = {"total": 3, "delivery": "d-1", "dataset": "orders", "kind": "orders"}
    assert found == (FurtherEvent(name="order.placed", resource="shop.shop.7", payload=payload),)
    assert dropped == 0


@pytest.mark.parametrize("found", [None, False, "", [], {}, "test"], ids=repr)
def test_an_event_is_only_wanted_when_its_condition_holds(found: object) -> None:
    """What is not wanted is not counted as dropped."""
    when = "body.kind != 'test' && body.kind" if found == "test" else "body.kind"
    assert events({"kind": found}, Emit(name="a", resource="r", when=when)) == ((), 0)
    assert len(events({"kind": 0}, Emit(name="a", resource="r", when="body.kind"))[0]) == 1


DROPPED: Mapping[str, object] = {
    "missing": {},
    "null": {"x": None},
    "empty": {"x": ""},
    "spaces": {"x": "  "},
    "newline": {"x": "a\nprefect.b"},
    "escape": {"x": "a\x1b[2Jb"},
    "right to left": {"x": "a\u202eb"},
    "half a character": {"x": "a\ud800"},
    "long": {"x": "a" * (LONGEST_NAME + 1)},
    "Prefect's": {"x": "prefect.flow-run.Failed"},
    "penstock's": {"x": " penstock.object.arrived"},
    "an object": {"x": {"y": 1}},
}


@pytest.mark.parametrize("body", DROPPED.values(), ids=DROPPED)
def test_a_name_or_resource_that_is_none_makes_no_event(body: object) -> None:
    """Nor may a sender's words be the beginning of what is Prefect's or penstock's own."""
    assert events(body, Emit(name="{{ body.x }}", resource="r")) == ((), 1)
    assert events(body, Emit(name="a", resource="{{ body.x }}")) == ((), 1)


def test_one_event_that_cannot_be_made_does_not_cost_the_others() -> None:
    """The longest name is still one, and the project may itself name a resource of penstock's."""
    long = {"x": "a" * LONGEST_NAME}
    own = Emit(name="{{ body.x }}", resource="penstock.p.dataset.{{ dataset }}")
    found, dropped = events(long, Emit(name="a", resource="{{ body.y }}"), own)
    assert [event.resource for event in found] == ["penstock.p.dataset.orders"]
    assert dropped == 1


def nested(levels: int) -> object:
    found: object = 1
    for _ in range(levels):
        found = [found]
    return found


PAYLOADS: Mapping[str, object] = {
    "missing": ...,
    "null": None,
    "infinite": float("inf"),
    "no number": float("nan"),
    "65 bits": 2**64,
    "NUL": "a\0b",
    "NUL in a key": {"a\0b": 1},
    "half a character": "\udc00",
    "deep": nested(32),
    "very deep": nested(5000),
    "large": "x" * MOST_PAYLOAD_BYTES,
    "large as UTF-8": "€" * (MOST_PAYLOAD_BYTES // 3),
}


@pytest.mark.parametrize("value", PAYLOADS.values(), ids=PAYLOADS)
def test_a_payload_that_somebody_behind_would_not_take_makes_no_event(value: object) -> None:
    """Half characters, NULs, large integers, depth and size stop at the edge, and not in Prefect's database."""
    body = {} if value is ... else {"x": value}
    assert events(body, Emit(name="a", resource="r", payload={"x": "body.x"})) == ((), 1)


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "y", "items", "__class__"]), inner)
    ),
    max_leaves=12,
)
GREEDY = (
    Emit(name="{{ body.x }}", resource="{{ body.y | default(body.items) | lower | truncate(9) }}", payload={"x": "@"}),
    Emit(
        name="a", resource="{{ body.x | int }}", payload={"x": "body.*", "y": "sort_by(body.x, &y)", "z": "max(body.y)"}
    ),
    Emit(name="a", resource="r", payload={"x": "to_string(@)", "y": "join('', body.x)"}, when="body.x > body.y"),
    Emit(name="b", resource="r", payload={"x": "not_null(body.x, body.y, headers)"}),
)


@settings(max_examples=examples(300), deadline=None)
@given(body=JSON_LIKE, name=st.text(st.characters(), max_size=20))
def test_whatever_comes_decides_something_and_raises_nothing(body: object, name: str) -> None:
    """One of the declared datasets is fed, and every event that is made can be kept and read again."""
    decide(body, {"x": name})


@pytest.mark.parametrize("levels", [200, 900, 5_000, 100_000])
def test_a_body_as_deep_as_it_likes_decides_something(levels: int) -> None:
    """However the depth compares to Python's own limit."""
    deep = nested(levels)
    for body in (deep, {"x": deep, "y": nested(levels)}, {"x": [deep, nested(levels)]}):
        decide(body, {})


def decide(body: object, headers: dict[str, str]) -> None:
    for path in (
        "body.x",
        "headers.x",
        "to_string(body)",
        "sum(body.x)",
        "body.x == body.y",
        "contains(body.x, body.y)",
    ):
        assert by_path(path).dataset(body, headers) in {*AMONG.values(), "rest"}
    for template in (
        "{{ body.x }}",
        "{{ body.x | join }}",
        "{{ body | lower }}",
        "{{ body.x == body.y }}",
        "{{ headers.x }}",
    ):
        assert by_template(template).dataset(body, headers) in {*AMONG.values(), "rest"}
    found, dropped = events(body, *GREEDY)
    assert len(found) + dropped <= len(GREEDY)
    for event in found:
        assert event.name.isprintable()
        assert event.resource.isprintable()
        assert len(json.dumps(event.payload, ensure_ascii=False, allow_nan=False).encode()) <= MOST_PAYLOAD_BYTES


def test_a_large_hostile_body_is_decided_soon() -> None:
    """Five megabytes of fields cost some readings of them, not a multiple of their number."""
    body = {"x": "{{ body }}" * 250_000, "y": [{"n": str(n)} for n in range(100_000)]}
    started = time.perf_counter()
    json.loads(json.dumps(body))
    allowed = 20 * (time.perf_counter() - started) + 1
    started = time.perf_counter()
    assert by_template("{{ body.x | replace('{', '((') | upper }}").dataset(body, {}) == "rest"
    assert by_path("body.y[?n == '7'].n | [0]").dataset(body, {}) == "seven"
    assert events(body, *GREEDY)[1]
    assert time.perf_counter() - started < allowed


def test_what_is_rendered_is_cut_off_and_not_put_together_first() -> None:
    """A template that names a large field a hundred times takes no more memory than the field."""
    template, body = by_template("{{ body.x }}" * 100), {"x": "x" * 1_000_000}
    template.dataset({"x": "x"}, {})
    tracemalloc.start()
    try:
        assert template.dataset(body, {}) == "rest"
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


BODIES = {
    b'{"a": 1}': True,
    b'"\xc3\xa9"': True,
    b"": False,
    b"{": False,
    b"NaN": False,
    b"[1e999, -Infinity]": False,
    b"\xff": False,
    b"[" * 100_000: False,
}


@pytest.mark.parametrize(("body", "json_"), BODIES.items(), ids=[repr(body[:20]) for body in BODIES])
def test_a_body_is_json_or_is_refused(body: bytes, json_: bool) -> None:
    """Without a look at it nothing could be decided."""
    if json_:
        assert parsed(body) == json.loads(body)
    else:
        with pytest.raises(Unparseable):
            parsed(body)


def test_a_number_of_thousands_of_digits_is_no_reason_to_refuse() -> None:
    """Python would not make an integer of it; nobody chooses by one."""
    assert parsed(b'{"kind": "a", "n": ' + b"9" * 10_000 + b"}") == {"kind": "a", "n": "9" * 10_000}


def test_an_event_survives_the_envelope() -> None:
    """What is made here is what is read there."""
    body = {"kind": "plac€d", "id": 7, "lines": []}
    found, _ = events(body, Emit(name="order.{{ body.kind }}", resource="r", payload={"body": "body"}))
    delivery = Delivery(
        id="1", source="shop", dataset="orders", received_at=NOW, content_type="", headers={}, body=b"{}", events=found
    )
    assert decode(encode([delivery])) == [delivery]
    assert found[0].payload == {"body": body}
