"""A gzip body of very many members costs no more than its length."""

from __future__ import annotations

import gzip

import pytest

from penstock.webhook.bodies import inflate


# Half a second. Where what is left over is copied for each member, half a minute, which holds up every request.
@pytest.mark.timeout(15)
def test_very_many_members_take_no_longer_than_their_bytes() -> None:
    """A quarter of a million empty members in five megabytes hold nothing, which is soon known."""
    body = gzip.compress(b"", mtime=0) * 250_000
    assert len(body) == 5_000_000
    assert inflate(body, limit=5_000_000) == b""
