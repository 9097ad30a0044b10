"""The word that was meant, where one is much like what was said. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(found: object, words: Iterable[str], *, shown: str = "{!r}") -> str:
    """What to add to a message; nothing where no word is near. `shown` is how the word is written."""
    by_lower = {word.lower(): word for word in words}
    near = difflib.get_close_matches(found.lower(), by_lower, n=1) if isinstance(found, str) else []
    return f"; did you mean {shown.format(by_lower[near[0]])}?" if near else ""
