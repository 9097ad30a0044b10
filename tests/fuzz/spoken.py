"""Requests that are whole: what senders, stores and operators send, true or not."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from typing import Any

from tests.acceptance.served import BUCKET, NOTIFY_TOKEN
from tests.fuzz.project import MAX_BYTES
from tests.fuzz.shapes import HOOK, NOTIFICATION, PLAIN, SIGNED, TEXTS, Maker, Request, Shape

# Forty times the limit, and what holds it; and a member that holds nothing.
_BOMB = gzip.compress(bytes(MAX_BYTES * 40))
_BOMB_IN_GZIP = gzip.compress(_BOMB)
_EMPTY = gzip.compress(b"")


def good(make: Maker) -> Shape:
    source = make.chance.choice(PLAIN)
    return Shape(
        kind="good",
        pieces=(make.signed(source).raw(),),
        end="answer",
        must=frozenset((202,)),
        documented=HOOK,
        taken=((source, make.id()),),
    )


def again(make: Maker) -> Shape:
    source, delivery = make.chance.choice(PLAIN), f"again{make.chance.randrange(200)}"
    return Shape(
        kind="again",
        pieces=(
            make.signed(
                source, delivery=delivery, body=b'{"id":"%b","event_id":"%b"}' % ((delivery.encode(),) * 2)
            ).raw(),
        ),
        end="answer",
        must=frozenset((202,)),
        documented=HOOK,
        taken=((source, delivery),),
    )


def chosen(make: Maker) -> Shape:
    source = make.chance.choice(("path", "template", "typed"))
    return Shape(
        kind="chosen",
        pieces=(make.signed(source).raw(),),
        end="answer",
        must=frozenset((202,)),
        documented=HOOK,
        taken=((source, make.id()),),
    )


def odd_body(make: Maker) -> Shape:
    """Signed, and no JSON, or JSON that is not what anybody expects."""
    source = make.chance.choice(("path", "template", "typed", *PLAIN))
    bodies = (
        b"{",
        b"[" * make.chance.choice((1, 100, 100_000)),
        b"NaN",
        b'{"a": 1e999}',
        b"\xff\xfe\x00",
        b'"\\ud800"',
        b"9" * 5000,
        json.dumps(make.value()).encode(),
        make.chance.randbytes(make.chance.randrange(1, 400)),
        b'{"kind": "' + b"x" * 10_000 + b'"}',
    )
    request = make.signed(source, body=make.chance.choice(bodies))
    return Shape(kind="odd body", pieces=(request.raw(),), end="answer", documented=HOOK)


def unsigned(make: Maker) -> Shape:
    """A body with a bit changed."""
    source = make.chance.choice(SIGNED)
    request = make.signed(source)
    return Shape(
        kind="unsigned",
        pieces=(replace(request, body=make.flipped(request.body)).raw(),),
        end="answer",
        must=frozenset((401,)),
        documented=HOOK,
        # The id may stand where the bit was changed; of those that sign an id it cannot.
        never=(source, make.id()),
    )


def pipelined(make: Maker) -> Shape:
    """Several good requests in one go."""
    ids = [f"{make.id()}-{number}" for number in range(make.chance.randint(2, 5))]
    sources = [make.chance.choice(PLAIN) for _ in ids]
    raws = [
        make.signed(source, delivery=found).raw(ends=found == ids[-1])
        for source, found in zip(sources, ids, strict=True)
    ]
    return Shape(
        kind="pipelined",
        pieces=tuple(make.cut(b"".join(raws))),
        end="answer",
        must=frozenset((202,)),
        documented=HOOK,
        taken=tuple(zip(sources, ids, strict=True)),
    )


def pieces(make: Maker) -> Shape:
    """A good request in small pieces."""
    source = make.chance.choice(PLAIN)
    return Shape(
        kind="in pieces",
        pieces=tuple(make.cut(make.signed(source).raw())),
        end="answer",
        must=frozenset((202,)),
        documented=HOOK,
        taken=((source, make.id()),),
    )


def gzipped(make: Maker) -> Shape:
    """Gzip: good, cut off, spoilt, bombs, many members, and encodings that are not taken."""
    source = make.chance.choice(PLAIN)
    body = make.body(source, make.id())
    packed = gzip.compress(body)
    good = frozenset((202,))
    bad = frozenset((400, 401, 413, 415))
    content, encoding, must = make.chance.choice(
        (
            (packed, b"gzip", good),
            (packed, b"GZIP", good),
            (packed[: make.chance.randrange(1, len(packed))], b"gzip", bad),
            (make.flipped(packed), b"gzip", bad | good),
            (body, b"gzip", bad),
            (_BOMB, b"gzip", bad),
            (_EMPTY * 5000, b"gzip", bad),
            (_BOMB_IN_GZIP, b"gzip", bad | good),
            (packed + b"rubbish", b"gzip", bad),
            (gzip.compress(packed), b"gzip, gzip", bad),
            (body, b"deflate", bad),
            (body, b"br", bad),
            (body, b"identity", good),
            (body, b"\xff", bad),
        )
    )
    # A sender signs what it sends, or what it packs: both are to be had.
    signed = make.signed(source, body=content if make.chance.random() < 0.5 else body)
    request = replace(signed, body=content).plus((b"Content-Encoding", encoding))
    either = must if source in ("gitlab", "token", "password", "open") else must | {401}
    return Shape(kind="gzip", pieces=(request.raw(),), end="answer", must=either, documented=HOOK)


def large(make: Maker) -> Shape:
    """A body about as large as the limit."""
    source = make.chance.choice(("open", "standard"))
    size = MAX_BYTES + make.chance.choice((-1, 0, 1, 50_000))
    body = b'"' + b"x" * (size - 2) + b'"'
    return Shape(
        kind="large",
        pieces=(make.signed(source, body=body).raw(),),
        end="answer",
        must=frozenset((202,) if size <= MAX_BYTES else (413,)),
        documented=HOOK,
    )


def limited(make: Maker) -> Shape:
    source = make.chance.choice(("limited", "each", "retired"))
    must = (410,) if source == "retired" else (202, 429)
    return Shape(kind=source, pieces=(make.signed(source).raw(),), end="answer", must=frozenset(must), documented=HOOK)


def cloudevent(make: Maker) -> Shape:
    """CloudEvents, binary, structured and in batches, good and not."""

    def event(number: int) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            "id": f"{make.id()}-{number}",
            "source": "/fuzz",
            "type": "t",
            "data": make.value(),
        }

    token = (b"Authorization", b"Bearer " + make.secret("events").encode())
    bad = make.chance.random() < 0.5
    mode = make.chance.choice(("binary", "structured", "batch"))
    spoil = make.chance.choice(("id", "source", "type", "specversion"))
    wrong: Any = make.chance.choice((None, "", 1, [], "\ud800", "x" * 70_000, "9.9", "é"))
    headers: tuple[tuple[bytes, bytes], ...]
    if mode == "binary":
        values = {key: str(value) for key, value in event(0).items() if key != "data"}
        if bad:
            values[spoil] = make.chance.choice(("", "%", "%ff", "%C3%A9", "\x01", "9.9", "x" * 5000))
            values["Über-%"] = "x"
        headers = tuple((f"ce-{key}".encode(), value.encode()) for key, value in values.items())
        headers = (*headers, (b"Content-Type", b"application/json"))
        body = json.dumps(make.value()).encode()
    else:
        events = [event(number) for number in range(make.chance.choice((1, 2, 50)) if mode == "batch" else 1)]
        if bad:
            make.chance.choice(events)[spoil] = wrong
        content: Any = events if mode == "batch" else events[0]
        if bad and make.chance.random() < 0.3:
            content = make.value()
        kind = b"application/cloudevents-batch+json" if mode == "batch" else b"application/cloudevents+json"
        headers = ((b"Content-Type", make.chance.choice((kind, kind + b"; charset=utf-8"))),)
        body = json.dumps(content).encode()
    request = Request(method="POST", target="/hooks/events", headers=(token, *headers), body=body)
    return Shape(
        kind=f"CloudEvents, {mode}",
        pieces=(request.raw(),),
        end="answer",
        must=frozenset() if bad else frozenset((202,)),
        documented=HOOK,
    )


def notification(make: Maker) -> Shape:
    """What a store tells of its bucket, true or not. Once the token is right it has to be taken."""
    keys = (
        "a.csv",
        "..%2F..%2Fetc",
        "%00",
        "%ff",
        "_penstock/deliveries/fuzz/x.ndjson",
        "+",
        "%2f",
        "é",
        "x" * 2000,
        "/",
        ".",
    )

    def record() -> Any:
        if make.chance.random() < 0.2:
            return make.value()
        event = make.chance.choice(("s3:ObjectCreated:Put", "ObjectRemoved:Delete", "s3:ObjectRestore:Post", "", 7))
        named = {"key": make.chance.choice((*keys, make.value())), "size": make.value(1), "sequencer": make.value(1)}
        bucket = make.chance.choice((BUCKET, "other", "..", "", make.value(1)))
        return {"eventName": event, "s3": {"bucket": {"name": bucket}, "object": named}}

    body = make.chance.choice(
        (
            json.dumps({"Records": [record() for _ in range(make.chance.choice((0, 1, 3)))]}).encode(),
            json.dumps({"Event": "s3:TestEvent"}).encode(),
            json.dumps(make.value()).encode(),
            b"[" * 50_000,
            b"\xff",
            b"",
        )
    )
    token = make.chance.choice((NOTIFY_TOKEN,) * 4 + ("", "wrong", "é"))
    headers = ((b"Authorization", b"Bearer " + token.encode()), (b"Content-Type", b"application/json"))
    request = Request(method="POST", target="/notifications/s3", headers=headers, body=body)
    must = frozenset((200, 202) if token == NOTIFY_TOKEN else (401,))
    return Shape(kind="notification", pieces=(request.raw(),), end="answer", must=must, documented=NOTIFICATION)


def operation(make: Maker) -> Shape:
    """What those who run it ask, from here and from pages of elsewhere."""
    path = make.chance.choice(("/healthz", "/readyz", "/metrics", "/openapi.json", "/notifications/s3"))
    headers = make.chance.choice(
        (
            (),
            ((b"Origin", b"https://elsewhere.example"),),
            ((b"Sec-Fetch-Site", b"cross-site"),),
            ((b"X-Forwarded-For", b"10.0.0.1"), (b"X-Forwarded-Proto", b"https")),
            ((b"Forwarded", b"for=\0"),),
            ((b"X-Request-Id", b"a\tb" + b"x" * 100),),
            ((b"Authorization", b"Bearer " + make.chance.randbytes(9).replace(b"\n", b"").replace(b"\r", b"")),),
            ((b"Range", b"bytes=0-1,5-"), (b"If-None-Match", b"*"), (b"Accept", b"\xff")),
        )
    )
    request = Request(method=make.chance.choice(("GET", "GET", "HEAD", "OPTIONS")), target=path, headers=headers)
    return Shape(kind="operation", pieces=(request.raw(),), head_only=request.method == "HEAD")


def handshake(make: Maker) -> Shape:
    """What senders ask before they send."""
    pick = make.chance.randrange(4)
    if pick == 0:
        body = json.dumps({"type": "url_verification", "challenge": make.chance.choice(("abc", *TEXTS))}).encode()
        return Shape(
            kind="handshake", pieces=(make.signed("slack", body=body).raw(),), end="answer", must=frozenset((200,))
        )
    if pick == 1:
        ping = make.signed("github", body=b'{"zen": "x"}').plus((b"X-GitHub-Event", b"ping"))
        return Shape(kind="handshake", pieces=(ping.raw(),), end="answer", must=frozenset((200,)))
    if pick == 2:
        origin = make.chance.choice(("sender.example", "a b", "x" * 400, "é", "a%0d%0aX-Injected: 1"))
        asked = Request(
            method="OPTIONS",
            target=f"/hooks/{make.chance.choice(('events', 'open', 'none'))}",
            headers=((b"WebHook-Request-Origin", origin.encode()), (b"WebHook-Request-Rate", b"120")),
        )
        return Shape(kind="handshake", pieces=(asked.raw(),))
    token = make.chance.choice((make.meta_token(), "wrong", "%ff", "%ed%a0%80"))
    said = make.chance.choice(("1158201444", "%0d%0aX-Injected:1", "<script>", "%00"))
    query = f"hub.mode=subscribe&hub.verify_token={token}&hub.challenge={said}"
    return Shape(
        kind="handshake", pieces=(Request(method="GET", target=f"/hooks/token?{query}", headers=()).raw(),), end="any"
    )


def authorization(make: Maker) -> Shape:
    """Credentials that are none."""
    said = make.chance.choice(
        (
            b"Bearer",
            b"Bearer  ",
            b"Basic " + base64.b64encode(make.chance.randbytes(10)),
            b"Basic \xff",
            b"Bearer " + b"x" * 9000,
            b"Bearer \xed\xa0\x80",
            b"Digest a",
        )
    )
    request = Request(
        method="POST",
        target=f"/hooks/{make.chance.choice(('token', 'password', 'events', 'limited'))}",
        headers=((b"Authorization", said),),
        body=b"{}",
    )
    return Shape(
        kind="authorization", pieces=(request.raw(),), end="answer", must=frozenset((400, 401)), documented=HOOK
    )
