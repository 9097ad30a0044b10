"""The bench's own arithmetic: percentiles, ratios, targets, what counts as a drop, and the tables that tell of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.drops import created_by_automation, stages
from bench.figures import Figure, On, Result, Target, Wrong, middle, percentile, spread
from bench.world import Loaded


def test_a_percentile_is_one_of_the_values() -> None:
    """By nearest rank: the smallest value that so large a share does not exceed; nothing is interpolated."""
    values = [float(number) for number in range(200, 0, -1)]
    assert percentile(values, 0.5) == 100
    assert percentile(values, 0.95) == 190
    assert percentile(values, 0.99) == 198
    assert percentile(values, 1.0) == 200
    assert percentile([7.0], 0.01) == 7.0


def test_nothing_measured_has_no_percentile_and_no_median() -> None:
    """An empty list of times is a fault of the bench, not a time of 0."""
    with pytest.raises(Wrong):
        percentile([], 0.5)
    with pytest.raises(Wrong):
        middle([])


def test_a_spread_names_its_ends() -> None:
    """How many, least, greatest, and the percentiles between."""
    assert spread([3.0, 1.0, 2.0]) == {"n": 3, "min": 1.0, "p50": 2.0, "p95": 3.0, "p99": 3.0, "max": 3.0}


def figure(value: float, peer: float | None, target: Target | None, *, unit: str = "s") -> Figure:
    """A figure against another."""
    return Figure(name="f", what="loading", value=value, unit=unit, against="the limit", peer=peer, target=target)


@pytest.mark.parametrize(
    ("on", "bound", "at_least", "value", "peer", "reached"),
    [
        ("value", 0.8, False, 0.8, None, True),
        ("value", 0.8, False, 0.81, 100.0, False),
        ("times", 2.0, False, 4.0, 2.0, True),
        ("times", 2.0, False, 4.1, 2.0, False),
        ("times", 0.5, True, 50.0, 100.0, True),
        ("times", 0.5, True, 49.0, 100.0, False),
        ("faster", 10.0, True, 0.5, 5.0, True),
        ("faster", 10.0, True, 0.6, 5.0, False),
    ],
)
def test_a_target_is_reached_at_its_bound(
    on: On, bound: float, at_least: bool, value: float, peer: float | None, reached: bool
) -> None:
    """`times` is the value over the peer's, `faster` the other way round, and the bound itself is enough."""
    assert figure(value, peer, Target(on=on, bound=bound, at_least=at_least)).reached is reached


def test_what_was_not_compared_is_not_reached() -> None:
    """A ratio without a peer reaches nothing; without a target nothing is judged."""
    assert figure(1.0, None, Target(on="times", bound=2.0)).reached is False
    assert figure(1.0, 1.0, None).reached is None


def test_a_peer_of_nothing_makes_no_error() -> None:
    """A peer of 0 is infinitely quick, and so is whatever takes 0 beside it."""
    assert figure(1.0, 0.0, Target(on="times", bound=2.0)).reached is False
    assert figure(0.0, 1.0, Target(on="faster", bound=10.0, at_least=True)).reached is True


@pytest.mark.parametrize(
    ("run", "counts"),
    [
        ({"tags": [], "created_by": {"type": "AUTOMATION"}}, True),
        ({"tags": ["penstock:fallback"], "created_by": None}, False),
        ({"tags": ["penstock:fallback"], "created_by": {"type": "AUTOMATION"}}, False),
        ({"tags": [], "created_by": None}, False),
        ({"tags": [], "created_by": {"type": "DEPLOYMENT"}}, False),
        (None, False),
    ],
)
def test_only_a_run_of_the_automation_counts(run: dict[str, Any] | None, counts: bool) -> None:
    """Neither the relay's fallback, nor a schedule, nor somebody's button, nor a run that Prefect does not know."""
    assert created_by_automation(run) is counts


def test_the_stages_leave_out_what_met_a_run() -> None:
    """A drop that a run took which was there before it has no stages; the others' are medians."""
    run = {"created": "2026-01-01T00:00:01.300+00:00", "start_time": "2026-01-01T00:00:01.700Z"}
    began = 1767225601.0  # 2026-01-01 00:00:01 UTC
    found = [
        (began, Loaded(recorded=began + 0.1, at=began + 1.0, run="r"), run),
        (began + 0.5, Loaded(recorded=began + 0.6, at=began + 1.0, run="r"), run),
    ]
    assert stages(found) == pytest.approx(
        {"sent → recorded": 0.1, "→ run created": 0.2, "→ running": 0.4, "→ committed": 0.3}, abs=1e-5
    )


def found(*results: Result) -> dict[str, Any]:
    """A run's JSON."""
    return {
        "began": "2026-01-01T00:00:00+00:00",
        "command": "python -m bench",
        "quick": False,
        "machine": {"memory": "8 GB"},
        "seconds": 120.0,
        "benches": [json.loads(json.dumps(result.as_json())) for result in results],
    }


MISSED = Result(
    name="one",
    title="One",
    figures=[figure(5.0, 2.0, Target(on="times", bound=2.0)), figure(1.0, 4.0, None)],
    spread={"one": spread([1.0])},
    verified="two rows, each once",
)


def test_the_table_holds_value_peer_ratio_target_and_verdict() -> None:
    """A line for each figure; what failed has a line that says so and no figure."""
    table = report.table(found(MISSED, Result(name="two", title="Two", failed="a row is missing")))
    assert "| loading | 5 s | the limit: 2 s | 2.5 × | ≤ 2 × | **no** |" in table
    assert "| loading | 1 s | the limit: 4 s | 0.25 × |  |  |" in table
    assert "| Two | | | | | **FAILED** |" in table


def test_what_was_missed_is_said_with_its_reason() -> None:
    """RESULTS.md names what was not reached, by how much, what bounds it, and when nobody looked."""
    text = report.render(found(MISSED), {"f": {"bound": "the disk."}}, json_name="r.json")
    assert "- **loading**: 5 s against the limit: 2 s (2.5 ×); it must reach ≤ 2 ×. What bounds it: the disk." in text
    assert "What bounds it has not been looked into." in report.render(found(MISSED), {}, json_name="r.json")


def test_what_is_slower_without_a_target_is_said_too() -> None:
    """A figure that is worse than what it is held against is told of although nothing must be reached."""
    slow = Result(name="s", title="S", figures=[figure(8.0, 2.0, None)])
    text = report.render(found(slow), {}, json_name="r.json")
    assert "- loading: 8 s against the limit: 2 s (4 ×; no target)." in text
    fast = Result(name="s", title="S", figures=[figure(1.0, 2.0, None)])
    assert "no target" not in report.render(found(fast), {}, json_name="r.json")


def test_a_run_that_missed_nothing_says_so(tmp_path: Path) -> None:
    """The JSON and RESULTS.md are written beside one another, and the notes need not be there."""
    good = Result(name="g", title="G", figures=[figure(1.0, 2.0, Target(on="times", bound=2.0))])
    report.write(found(good), tmp_path / "r.json", notes=tmp_path / "none.toml")
    assert json.loads((tmp_path / "r.json").read_text())["benches"][0]["figures"][0]["reached"] is True
    assert "Every target was reached in this run." in (tmp_path / "RESULTS.md").read_text()
