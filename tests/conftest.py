"""How the tests are shared out by `pytest -n`, and what Hypothesis tries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped]

# The same examples each time, so that no run fails by chance; `make test-slow` tries others, and more.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile("same")

# One `penstock up` for all of them.
_ONE_UP = ["tests/acceptance/test_rubbish.py", "tests/acceptance/test_tree.py", "tests/acceptance/test_ways_in.py"]
# What begins late ends last: the slow modules and those that have a Prefect server come first, the longest at the top.
_LONGEST = [
    "tests/acceptance/test_seams.py",
    "tests/acceptance/test_outside.py",
    "tests/acceptance/test_soak.py",
    "tests/acceptance/test_compose_processes.py",
    "tests/acceptance/test_new_project.py",
    "tests/pipelines/test_docs_commands.py",
    "tests/pipelines/test_example_model_training.py",
    "tests/pipelines/test_example_monitoring.py",
    "tests/pipelines/test_example_incremental.py",
    "tests/pipelines/test_stock_prefect.py",
    "tests/pipelines/test_example_api_sync.py",
    "tests/pipelines/test_example_sales_etl.py",
    "tests/pipelines/test_example_access_logs.py",
    "tests/pipelines/test_claim_on_postgres.py",
    "tests/acceptance/test_bench.py",
    "tests/acceptance/test_webhook_fuzz.py",
    "tests/acceptance/test_webhook_kill.py",
    "tests/integration/test_worker_runs.py",
    "tests/integration/test_claim.py",
    *_ONE_UP,
    "tests/integration/test_worker_kinds.py",
    "tests/integration/test_relay_outage.py",
    "tests/integration/test_plan.py",
    "tests/integration/test_simulate_contract.py",
    "tests/integration/test_seeing.py",
    "tests/integration/test_sources_send.py",
]


class Modules(LoadScopeScheduling):  # type: ignore[misc]
    """The tests of a module run in one process, one after another, so that what they share is started once.

    pytest-xdist's `--dist loadgroup` does not do it: version 3.8 loses the groups with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        module, _, test = nodeid.partition("::")
        if module in _ONE_UP:
            return _ONE_UP[0]
        return f"{module} on PostgreSQL" if "[PostgreSQL" in test else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Modules:
    """Whatever `--dist` says."""
    config.option.loadscopereorder = False
    return Modules(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that take longest first, or the other processes would wait for them in the end."""
    places = {module: place for place, module in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))
