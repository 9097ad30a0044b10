"""An S3 endpoint that knows how to list, and nothing else: very many keys, a page of a thousand at a time.

Keys and etags are those of `bench.parts`. The pages are as MinIO's are, so that a client parses what it would parse.
Prints its address, and serves until killed.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from bench import parts

_PAGE = 1000
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_BUCKETS = f"<ListAllMyBucketsResult {_NAMESPACE}><Buckets></Buckets></ListAllMyBucketsResult>"
_ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&#34;{etag}&#34;</ETag>"
    "<Size>100</Size><Owner><ID></ID><DisplayName></DisplayName></Owner><StorageClass>STANDARD</StorageClass>"
    "</Contents>"
)


def page(count: int, after: int) -> str:
    """The page that begins after the `after`-th of `count` keys; the number of its last key is the next token."""
    last = min(count, after + _PAGE)
    entries = "".join(_ENTRY.format(key=parts.key_of(n), etag=parts.etag_of(n)) for n in range(after + 1, last + 1))
    more = last < count
    token = f"<NextContinuationToken>{last}</NextContinuationToken>" if more else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult {_NAMESPACE}><Name>{parts.BUCKET}</Name>'
        f"<Prefix></Prefix><KeyCount>{last - after}</KeyCount><MaxKeys>{_PAGE}</MaxKeys>"
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}</ListBucketResult>"
    )


class Handler(BaseHTTPRequestHandler):
    """Answers a listing of the bucket, and of all buckets."""

    protocol_version = "HTTP/1.1"
    count = 0

    def do_GET(self) -> None:
        """A page, or the buckets."""
        asked = urlsplit(self.path)
        query = parse_qs(asked.query)
        token = query.get("continuation-token", [""])[0]
        after = query.get("start-after", [""])[0]
        start = int(token) if token else int(after.rpartition("/")[2].partition(".")[0]) if after else 0
        body = (_BUCKETS if asked.path == "/" else page(self.count, start)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    Handler.count = int(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
