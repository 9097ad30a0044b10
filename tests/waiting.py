"""Wait for a condition with a deadline: the tests' only way to wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], *, seconds: float = 30.0, what: str = "") -> T:
    """Return the first truthy value of `condition`; AssertionError naming `what` when the deadline passes.

    `seconds` is how long a busy machine may take, and not how fast it has to be: that is for `make bench`.
    """
    deadline = time.monotonic() + seconds
    while True:
        looked = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        assert now < deadline, f"not within {seconds} s: {what or condition}; last value: {value!r}"
        # The pause between two looks, not a wait for something to have happened. Looking that takes long takes no more
        # than half of the time, which those who are waited for need.
        time.sleep(min(max(0.02, now - looked), 1.0))
