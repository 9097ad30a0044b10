"""A file is dropped → its rows are committed in the warehouse; against stock Prefect doing the same work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bench import rows
from bench.figures import Figure, Result, Target, Wrong, middle, percentile, spread
from bench.peers.stock_drops import Stock, measure_stock
from bench.session import Session
from bench.world import Loaded, World

_FALLBACK = "penstock:fallback"
_TARGETS = {"p50": 0.8, "p99": 2.0}
_FASTER_AS_IT_COMES, _FASTER_TUNED = 10.0, 4.0


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What was sent and counts: seconds from `sent` to the commit, and where they went."""

    seconds: list[float]
    not_counted: int
    stages: dict[str, float]


def run(session: Session) -> Result:
    """Drop files at random moments, and compare."""
    count = session.drops
    with session.running("drops") as world:
        world.warm("drops")
        before = world.count("drops")
        ids = rows.Ids(next=world.ids.take(count).start)
        first = ids.next
        session.say(f"dropping {count} files at random moments")
        sent: dict[str, float] = {}
        for number in range(count):
            session.pause(0.5, 2.0)
            name = f"drop-{first}-{number:05}.csv"
            sent[f"drops/{name}"] = world.drop("drops", name, rows.csv(ids.take(1)))
        world.wait_loaded("drops", before + count, seconds=120)
        verified = world.verify("drops", range(first, ids.next), objects=count)
        timed = timed_of(world, "drops", sent)
        world.check()
    stock = session.once("stock", lambda: measure_stock(session))
    return Result(
        name="drops",
        title="A file dropped into the folder → committed in the warehouse",
        method=(
            "Files of one row are moved into the watched folder, one after 0.5 to 2.0 s (uniformly random) whatever "
            "became of the last. Seconds run from just before the rename to the beginning of the ledger's "
            "transaction that records the load, which follows the warehouse's commit: an upper bound of the commit. "
            "Nothing polls meanwhile; all is read from the ledger afterwards. A drop counts only when its run was "
            "created by the automation."
        ),
        figures=figures("drop", "drop → commit", timed, stock),
        spread={"drop": spread(timed.seconds), **stock.spreads()},
        detail={"stages_p50": timed.stages, "not_counted": timed.not_counted},
        verified=f"{verified}; {stock.verified}",
    )


def figures(name: str, what: str, timed: Timed, stock: Stock) -> list[Figure]:
    """The percentiles, and the median against stock Prefect's."""
    p50 = percentile(timed.seconds, 0.5)
    as_it_comes, tuned = middle(stock.as_it_comes), middle(stock.tuned)
    where = ", ".join(f"{stage} {seconds:.3f} s" for stage, seconds in timed.stages.items())
    notes = {"p50": f"medians: {where}", "p99": f"{timed.not_counted} not counted" if timed.not_counted else ""}
    return [
        *(
            Figure(
                name=f"{name}_{at}",
                what=f"{what}, {at}",
                value=percentile(timed.seconds, int(at[1:]) / 100),
                unit="s",
                target=Target(on="value", bound=_TARGETS[at]) if at in _TARGETS else None,
                note=notes.get(at, ""),
            )
            for at in ("p50", "p95", "p99")
        ),
        Figure(
            name=f"{name}_over_stock",
            what=f"{what}, p50",
            value=p50,
            unit="s",
            against="stock Prefect as it comes, p50",
            peer=as_it_comes,
            target=Target(on="faster", bound=_FASTER_AS_IT_COMES, at_least=True),
        ),
        Figure(
            name=f"{name}_over_tuned",
            what=f"{what}, p50",
            value=p50,
            unit="s",
            against="stock Prefect with a 1 s poll, p50",
            peer=tuned,
            target=Target(on="faster", bound=_FASTER_TUNED, at_least=True),
        ),
    ]


def timed_of(world: World, dataset: str, sent: Mapping[str, float]) -> Timed:
    """Hold what the ledger and Prefect say against when each was sent. Raises Wrong where one is missing."""
    loads = world.loads(dataset)
    if missing := [key for key in sent if key not in loads]:
        raise Wrong(f"{dataset}: {len(missing)} were not loaded, such as {missing[0]}")
    runs = world.runs([loads[key].run for key in sent])
    counted = [key for key in sent if created_by_automation(runs.get(loads[key].run))]
    if len(counted) < 0.9 * len(sent):
        raise Wrong(f"{dataset}: only {len(counted)} of {len(sent)} were loaded by runs of the automation")
    return Timed(
        seconds=[loads[key].at - sent[key] for key in counted],
        not_counted=len(sent) - len(counted),
        stages=stages([(sent[key], loads[key], runs[loads[key].run]) for key in counted]),
    )


def created_by_automation(run: Mapping[str, Any] | None) -> bool:
    """Whether it was an automation that created a flow run, and not the relay for want of an answer, nor somebody."""
    if run is None or _FALLBACK in run["tags"]:
        return False
    return (run.get("created_by") or {}).get("type") == "AUTOMATION"


def stages(found: Sequence[tuple[float, Loaded, Mapping[str, Any]]]) -> dict[str, float]:
    """Median seconds of each part of the way, of those that did not meet a run which was under way already."""
    parts: dict[str, list[float]] = {"sent → recorded": [], "→ run created": [], "→ running": [], "→ committed": []}
    for sent, load, run in found:
        created, started = _moment(run["created"]), _moment(run["start_time"])
        if created < sent:
            continue
        moments = [sent, load.recorded, created, started, load.at]
        for part, before, after in zip(parts, moments, moments[1:], strict=False):
            parts[part].append(after - before)
    return {part: middle(values) for part, values in parts.items() if values}


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
