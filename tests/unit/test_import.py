"""Where `penstock import` writes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.cli.import_ import is_loaded


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("automations/sales.py", True),
        ("automations/_sales.py", False),
        ("automations/two words.py", False),
        ("automations/sales.txt", False),
        ("automations/deep/sales.py", False),
        ("flows/sales.py", False),
        ("sales.py", False),
        ("automations/../flows/sales.py", False),
    ],
)
def test_only_what_is_loaded_is_written(path: str, expected: bool) -> None:
    """A file that `plan` would not read is refused before it is written."""
    assert is_loaded(Path(path)) is expected
