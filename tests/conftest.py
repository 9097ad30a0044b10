"""For `pytest -n`: what shares a module's parts stays in one process, unless a test says otherwise."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the group of its module, as `--dist loadfile` would, where it has none of its own."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
