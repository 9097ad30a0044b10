"""Requests that are broken as HTTP, or that their sender breaks off."""

from __future__ import annotations

from dataclasses import replace

from tests.fuzz.project import MAX_BYTES, SOURCES
from tests.fuzz.shapes import HOOK, PLAIN, Maker, Request, Shape


def scrambled(make: Maker) -> Shape:
    """Bits changed anywhere in a good request."""
    raw = make.signed(make.chance.choice(tuple(SOURCES))).raw()
    return Shape(kind="scrambled", pieces=(make.flipped(raw, most=8),))


def spliced(make: Maker) -> Shape:
    """A good request with a piece left out, doubled, moved, or with rubbish in it."""
    raw = make.signed(make.chance.choice(tuple(SOURCES))).raw()
    one, other = sorted(make.chance.randrange(len(raw)) for _ in range(2))
    rubbish = make.chance.choice((b"\0", b"\r", b"\n", b"\r\n\r\n", b"\xff" * 9, make.chance.randbytes(20)))
    changed = make.chance.choice(
        (
            raw[:one] + raw[other:],
            raw[:other] + raw[one:],
            raw[one:] + raw[:one],
            raw[:one] + rubbish + raw[one:],
            raw[:one],
        )
    )
    return Shape(kind="spliced", pieces=(changed,))


def head(make: Maker) -> Shape:
    """A head that is none, or not of this protocol."""
    request = make.signed("open")
    raw = request.raw()
    heads = (
        b"\0" * 50,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + make.chance.randbytes(200),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + make.chance.randbytes(40),
        b"GET /hooks/open\r\n\r\n",
        raw.replace(b"HTTP/1.1", make.chance.choice((b"HTTP/0.9", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"ICY/1.0"))),
        raw.replace(b"\r\n", b"\n"),
        raw.replace(b"\r\n", b"\r"),
        raw.replace(b"Host: 127.0.0.1\r\n", b""),
        raw.replace(b"Host: 127.0.0.1", b"Host: a\r\nHost: b"),
        raw.replace(b"Host:", b" Host:"),
        raw.replace(b"Content-Type: ", b"Content-Type: a\r\n folded: "),
        raw.replace(b"Content-Type", b"Content\0Type"),
        raw.replace(b"application/json", b"text/\0\xff\xed\xa0\x80"),
        raw.replace(b"POST", make.chance.choice((b"post", b"P\0ST", b"BREW", b"CONNECT", b"TRACE", b"x" * 5000))),
        raw.replace(b"Connection: close", b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"),
        raw.replace(
            b"Connection: close", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA"
        ),
        raw.replace(b"Connection: close", b"Expect: 100-continue\r\nConnection: close"),
        raw.replace(b"Connection: close", b"Expect: 200-maybe\r\nConnection: close"),
        make.chance.randbytes(make.chance.randrange(1, 3000)),
    )
    return Shape(kind="head", pieces=(make.chance.choice(heads),))


def huge_head(make: Maker) -> Shape:
    request = make.signed("open")
    size = make.chance.choice((8_000, 70_000, 300_000))
    many = make.chance.choice(
        (
            ((b"X-Long", b"a" * size),),
            ((b"X" * size, b"a"),),
            tuple((b"X-%d" % number, b"a" * 50) for number in range(size // 60)),
            tuple((b"Cookie", b"a=b; " * 100) for _ in range(size // 500)),
        )
    )
    target = make.chance.choice((request.target, "/" + "a" * size, "/hooks/open?" + "a=b&" * (size // 4)))
    return Shape(kind="huge head", pieces=(replace(request, target=target).plus(*many).raw(),))


def length(make: Maker) -> Shape:
    """A Content-Length that is none, or is not that of the body."""
    request = make.signed(make.chance.choice(("open", "standard")))
    good = len(request.body)
    said = make.chance.choice(
        (
            str(good - 1),
            str(good + 1),
            str(MAX_BYTES + 1),
            str(10**18),
            "9" * 30,
            str(2**64 + good),
            "-1",
            f"+{good}",
            f"0x{good:x}",
            f"{good}.0",
            f"{good}, {good}",
            f"{good} ",
            f"0{good}",
            "",
            "many",
            "٣",
        )
    )
    raw = request.plus((b"Content-Length", said.encode())).raw(length=False)
    return Shape(kind="length", pieces=(raw,))


def chunked(make: Maker) -> Shape:
    """A chunked body, and such as are none."""
    source = make.chance.choice(("open", "standard"))
    request = make.signed(source)
    coded = request.plus((b"Transfer-Encoding", b"chunked"))
    head = replace(coded, body=b"").raw(length=False)
    body = request.body
    at = make.chance.randrange(1, len(body))
    whole = b"%x\r\n%b\r\n%X;name=value\r\n%b\r\n0\r\n\r\n" % (at, body[:at], len(body) - at, body[at:])
    if make.chance.random() < 0.3:
        return Shape(
            kind="chunked, good",
            pieces=(head, *make.cut(whole)),
            end="answer",
            must=frozenset((202,)),
            documented=HOOK,
            taken=((source, make.id()),),
        )
    garbage = make.chance.choice(
        (
            b"zz\r\n" + body,
            b"-1\r\n\r\n",
            b"ffffffffffffffffff\r\n" + body,
            b"%x\r\n%b0\r\n\r\n" % (len(body), body),
            b"%x;%b\r\n%b\r\n0\r\n\r\n" % (len(body), b"x" * 100_000, body),
            b"1\r\na\r\n" * 20_000,
            b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(body), body, b"X-Trailer: a\r\n" * 2000),
            b"0\r\n\r\n",
            b"\r\n",
            b"1\n%b\n0\n\n" % body[:1],
            make.flipped(whole, most=4),
        )
    )
    return Shape(kind="chunked, bad", pieces=(head, garbage))


def smuggled(make: Maker) -> Shape:
    """Two that do not agree how long the body is: what one of them takes for a second request must not be taken."""
    hidden = make.signed("open", delivery=f"smuggled{make.n}").raw()
    codings = (
        b"chunked",
        b"Chunked",
        b"chunked, identity",
        b"identity, chunked",
        b"xchunked",
        b"\tchunked",
        b"chunked\x0b",
    )
    coding = make.chance.choice(codings)
    tail = b"0\r\n\r\n" + hidden
    name = make.chance.choice(
        (b"Transfer-Encoding", b"transfer-encoding ", b"Transfer_Encoding", b"\tTransfer-Encoding")
    )
    head = Request(method="POST", target="/hooks/open", headers=((name, coding),), body=tail)
    zero = Request(method="POST", target="/hooks/open", headers=((b"Content-Length", b"0"),), body=hidden)
    raw = make.chance.choice(
        (
            head.raw(ends=False),
            head.plus((b"Transfer-Encoding", b"identity")).raw(ends=False),
            zero.raw(ends=False),
            zero.plus((b"content-length", b"%d" % len(hidden))).raw(ends=False, length=False),
        )
    )
    return Shape(kind="smuggled", pieces=(raw,), never=("open", f"smuggled{make.n}"))


def left(make: Maker) -> Shape:
    """The sender leaves, anywhere in the request."""
    raw = make.signed(make.chance.choice(PLAIN)).raw()
    return Shape(kind="left", pieces=(raw[: make.chance.randrange(1, len(raw) + 1)],), end="gone")


def slow(make: Maker) -> Shape:
    """A head that never ends: the server closes the connection by itself."""
    raw = make.signed("open").raw()
    return Shape(kind="slow head", pieces=(raw[: make.chance.choice((0, 1, 10, raw.index(b"\r\n\r\n")))],), end="slow")


def target(make: Maker) -> Shape:
    """Paths that lead elsewhere, and methods that are not meant."""
    request = make.signed("open", delivery=f"nowhere{make.n}")
    name = make.chance.choice(
        (
            *(
                "../open",
                "..%2fopen",
                "%2e%2e/open",
                "open/",
                "open/..",
                "open%00",
                "OPEN",
                "open;a=b",
                "open%0d%0aX-Injected:%201",
            ),
            *("//open", "\\open", "%ff", "%", "%zz", "a" * 3000, "{{7*7}}", "é", "%c3%a9", "_penstock", "none", ""),
        )
    )
    target = make.chance.choice(
        (
            *(f"/hooks/{name}",) * 4,
            *(
                "*",
                "/",
                "//",
                "/hooks",
                "/docs",
                "/redoc",
                "/.env",
                "/hooks/../metrics",
                "/openapi.json/",
                "http://a/b",
            ),
            "http://127.0.0.1/hooks/none",
            "/notifications/s3/../../hooks/none",
        )
    )
    method = make.chance.choice(("POST", "GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"))
    return Shape(kind="target", pieces=(replace(request, target=target, method=method).raw(),))
