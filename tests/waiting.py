"""Wait for a condition with a deadline: the tests' only way to wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], *, seconds: float = 10.0, what: str = "") -> T:
    """Return the first truthy value of `condition`; AssertionError naming `what` when the deadline passes."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}; last value: {value!r}"
        time.sleep(0.02)  # the pause between two looks, not a wait for something to have happened
