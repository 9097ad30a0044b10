"""Real stores for the conformance suites: one of each kind for the whole run, killed at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from penstock.objects import ObjectStore
from tests.real_store import Kind, RealStore, real_store

KINDS: tuple[Kind, ...] = ("minio", "embedded")


@pytest.fixture(scope="session")
def running() -> Iterator[Callable[[Kind], RealStore]]:
    """The store of a kind that all tests share; a test that kills one starts its own."""
    with ExitStack() as stack:
        started: dict[Kind, RealStore] = {}

        def of(kind: Kind) -> RealStore:
            if kind not in started:
                started[kind] = stack.enter_context(real_store(kind))
            return started[kind]

        yield of


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, running: Callable[[Kind], RealStore]) -> RealStore:
    """Each kind of store in turn."""
    return running(request.param)


@pytest.fixture
def store(server: RealStore) -> ObjectStore:
    """A client of `server`."""
    return server.client()


_numbers = count(1)


@pytest.fixture
def bucket(store: ObjectStore) -> str:
    """A new bucket in `store`."""
    name = f"landing-{next(_numbers)}"
    store.ensure_bucket(name)
    return name
