"""Triggers, each with events of its own: what `test_simulate_contract.py` asks both a real server and the simulation.

A case's events are posted in waves, its n-th event in the n-th wave. `at` is when an event occurs, in seconds since a
moment shortly before the first wave; None is when it is posted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

# How many waves there are: what waits for nothing to happen has its events in the last ones.
WAVES = 7
_GENERATED = 40


@dataclass(frozen=True, kw_only=True)
class Made:
    """One event of a case: `name` and `thing` without the case's own prefix. `follows` is the place of another."""

    name: str
    thing: str = "1"
    at: float | None = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    related: Sequence[Mapping[str, str]] = ()
    follows: int | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """A trigger, with `{c}` where the case's own prefix goes, and events in the order in which they are posted.

    `first` compares the first firing alone: where a firing is repeated for as long as one looks.
    """

    name: str
    trigger: Mapping[str, Any]
    events: Sequence[Made]
    fires: int | None = None
    first: bool = False
    last_waves: bool = False

    @property
    def automation(self) -> dict[str, Any]:
        """As Prefect's API takes it."""
        return {"name": self.name, "trigger": _own(self.trigger, self.name), "actions": [{"type": "do-nothing"}]}

    def wave(self, number: int, *, base: datetime, now: datetime) -> dict[str, Any] | None:
        """What the case has in a wave."""
        place = number - (WAVES - len(self.events)) if self.last_waves else number
        if not 0 <= place < len(self.events):
            return None
        made = self.events[place]
        resource = {"prefect.resource.id": f"{self.name}.{made.thing}", **made.labels}
        return {
            "id": str(self.id(place)),
            "occurred": (now if made.at is None else base + timedelta(seconds=made.at)).isoformat(),
            "event": f"{self.name}.{made.name}",
            "resource": resource,
            "related": [dict(one) for one in made.related],
            "payload": {},
            "follows": None if made.follows is None else str(self.id(made.follows)),
        }

    def id(self, place: int) -> UUID:
        """The id of an event."""
        return uuid5(NAMESPACE_URL, f"{self.name}/{place}")


def _own(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return value.replace("{c}", name)
    if isinstance(value, list):
        return [_own(one, name) for one in value]
    if isinstance(value, Mapping):
        return {key: _own(one, name) for key, one in value.items()}
    return value


def on(*names: str, **more: Any) -> dict[str, Any]:
    """A reactive trigger that expects these of the case's own events."""
    found = {"type": "event", "posture": "Reactive", "threshold": 1, "within": 0, **more}
    found["match"] = {"prefect.resource.id": "{c}.*", **found.get("match", {})}
    return {**found, "expect": ["{c}." + name for name in names], "after": ["{c}." + n for n in more.get("after", [])]}


def without(*names: str, **more: Any) -> dict[str, Any]:
    """A proactive one."""
    return on(*names, **{"posture": "Proactive", "within": 10, **more})


def both(*parts: Mapping[str, Any], require: int | Literal["any", "all"] = "all", within: float | None = 3600) -> Any:
    """A compound."""
    return {"type": "compound", "require": require, "within": within, "triggers": list(parts)}


def row(*parts: Mapping[str, Any], within: float | None = 3600) -> Any:
    """A sequence."""
    return {"type": "sequence", "within": within, "triggers": list(parts)}


def made(*names: str, step: float = 1, **more: Any) -> list[Made]:
    """One event of each name, so many seconds apart."""
    return [Made(name=name, at=index * step, **more) for index, name in enumerate(names)]


def rel(role: str, **labels: str) -> dict[str, str]:
    """A related resource."""
    return {"prefect.resource.id": f"thing.{role}", "prefect.resource.role": role, **labels}


def case(name: str, trigger: Mapping[str, Any], events: Sequence[Made], fires: int, **more: Any) -> Case:
    """A case, and how often it fires."""
    return Case(name=name, trigger=trigger, events=events, fires=fires, **more)


_K12 = [Made(name="a", labels={"k": "1"}), Made(name="a", labels={"k": "2"}, at=1)]
_PER_K: dict[str, Any] = {"for_each": ["k"]}

NAMES = [
    case("one", on("a"), made("a"), 1),
    case("one-of-two", on("a", "b"), made("b", "c"), 1),
    case("other-name", on("a"), made("b", "ab"), 0),
    case("wildcard", on("a.*"), made("a.x", "a.x.y", "a", "ab"), 2),
    case("wildcard-inside", on("a.*.z"), made("a.x.z", "a.x.y", "a.x.y.z"), 2),
    case("wildcard-all", on("*"), made("a", "b"), 2),
    case("question-mark", on("a.?"), made("a.x", "a.xy", "a?x"), 0),
    case("longer-name", on("a.x"), made("a.xy", "a.x"), 1),
    case("case-matters", on("A"), made("a", "A"), 1),
    case("any-event", {**on(), "expect": []}, made("a", "b", "c"), 3),
]
MATCH = [
    case("match-label", on("a", match={"k": "1"}), _K12, 1),
    case("match-either", on("a", match={"k": ["1", "3"]}), _K12, 1),
    case("match-wildcard", on("a", match={"k": "x*"}), [Made(name="a", labels={"k": v}) for v in ("xy", "x", "yx")], 2),
    case(
        "match-inside", on("a", match={"k": "x*z"}), [Made(name="a", labels={"k": v}) for v in ("xyz", "xz", "xy")], 2
    ),
    case("match-not", on("a", match={"k": "!1"}), [*_K12, Made(name="a")], 1),
    case("match-not-wildcard", on("a", match={"k": "!1*"}), [Made(name="a", labels={"k": v}) for v in ("12", "2")], 1),
    case("match-missing", on("a", match={"q": "*"}), made("a"), 0),
    case("match-all", on("a", match={"k": "1", "q": "2"}), [*_K12, Made(name="a", labels={"k": "1", "q": "2"})], 1),
    case(
        "match-id", on("a", match={"prefect.resource.id": "{c}.7"}), [Made(name="a", thing=t) for t in ("7", "77")], 1
    ),
]
_RELATED = [
    Made(name="a", related=[rel("owner", k="1"), rel("user", k="2")]),
    Made(name="a", related=[rel("owner", k="2"), rel("user", k="1")]),
    Made(name="a"),
]
RELATED = [
    case("related", on("a", match_related={"k": "1"}), _RELATED, 2),
    case("related-one-has-all", on("a", match_related={"prefect.resource.role": "owner", "k": "1"}), _RELATED, 1),
    case("related-list", on("a", match_related=[{"k": "1"}, {"prefect.resource.role": "user"}]), _RELATED, 2),
    case("related-wildcard", on("a", match_related={"prefect.resource.id": "thing.o*"}), _RELATED, 2),
    case("related-none", on("a", match_related={"k": "3"}), _RELATED, 0),
    case("related-not", on("a", match_related={"k": "!1"}), [Made(name="a", related=[rel("owner", k="1")])], 0),
]
FOR_EACH = [
    case("each", on("a", threshold=2, within=60, **_PER_K), [*_K12, *_K12], 2),
    case("each-not-yet", on("a", threshold=2, within=60, **_PER_K), _K12, 0),
    case("each-without-label", on("a", threshold=2, within=60, **_PER_K), [Made(name="a"), Made(name="a", at=1)], 1),
    case(
        "each-of-two-labels",
        on("a", threshold=2, within=60, for_each=["k", "prefect.resource.id"]),
        [Made(name="a", thing=thing, labels={"k": "1"}) for thing in ("1", "2", "1")],
        1,
    ),
    case(
        "each-related",
        on("a", threshold=2, within=60, for_each=["related:owner:k"]),
        [Made(name="a", related=[rel("owner", k=k)]) for k in ("1", "2", "1")],
        1,
    ),
    case("each-wakes-one", on("a", within=60, **_PER_K), [*_K12, *_K12], 2),
]
THRESHOLD = [
    case("three", on("a", threshold=3, within=60), made("a", "a", "a"), 1),
    case("two-of-three", on("a", threshold=3, within=60), made("a", "a"), 0),
    case("three-of-any", on("a", "b", threshold=3, within=60), made("a", "b", "a"), 1),
    case("three-at-once", on("a", threshold=3), made("a", "a", "a", "a", step=0), 1),
    case("three-without-window", on("a", threshold=3), made("a", "a", "a"), 1),
    case("window-over", on("a", threshold=2, within=3), [Made(name="a", at=0), Made(name="a", at=3)], 0),
    case("window-not-over", on("a", threshold=2, within=3), [Made(name="a", at=0), Made(name="a", at=2.9)], 1),
    case("window-does-not-slide", on("a", threshold=3, within=4), [Made(name="a", at=t) for t in (0, 3, 5, 6)], 0),
    case("second-window", on("a", threshold=2, within=3), [Made(name="a", at=t) for t in (0, 4, 5)], 1),
    case("throttles", on("a", within=60), made("a", "a", "a", "a"), 1),
    case("throttles-then-again", on("a", within=3), [Made(name="a", at=t) for t in (0, 1, 2, 3, 4)], 2),
    case("late-but-counted", on("a", threshold=2, within=60), [Made(name="a", at=0), Made(name="a", at=-600)], 1),
    case("too-late", on("a", threshold=2, within=60), [Made(name="a", at=0), Made(name="a", at=-960)], 0),
    case("late-after-firing", on("a", within=60), [Made(name="a", at=10), Made(name="a", at=0)], 1),
]
AFTER = [
    case("after", on("b", after=["a"], within=60), made("a", "b"), 1),
    case("after-wrong-way", on("b", after=["a"], within=60), made("b", "a"), 0),
    case("after-too-late", on("b", after=["a"], within=3), [Made(name="a", at=0), Made(name="b", at=4)], 0),
    case("after-once", on("b", after=["a"], within=60), made("a", "b", "b"), 1),
    case("after-again", on("b", after=["a"], within=60), made("a", "b", "a", "b"), 2),
    case(
        "after-each", on("b", after=["a"], within=60, **_PER_K), [_K12[0], Made(name="b", labels={"k": "2"}, at=2)], 0
    ),
    case("after-same", on("a", after=["a"], within=60), made("a", "a"), 1),
    case("after-same-once", on("a", after=["a"], within=60), made("a"), 0),
    case("after-wildcard", on("b", after=["a.*"], within=60), made("a.1", "b"), 1),
    case("after-threshold", on("b", after=["a"], threshold=2, within=60), made("a", "b", "b"), 1),
]
_FOLLOWED = [Made(name="b", at=1, follows=1), Made(name="a", at=0)]
COMPOSITE = [
    case("all", both(on("a"), on("b")), made("b", "a"), 1),
    case("all-but-one", both(on("a"), on("b")), made("a", "a"), 0),
    case("all-twice", both(on("a"), on("b")), made("a", "b", "a", "b"), 2),
    case("all-repeated", both(on("a"), on("b")), made("a", "a", "b", "b"), 1),
    case("any", both(on("a"), on("b"), require="any"), made("a", "b"), 2),
    case("two-of-three-parts", both(on("a"), on("b"), on("c"), require=2), made("c", "a", "b"), 1),
    case("two-of-three-missing", both(on("a"), on("b"), on("c"), require=2), made("c", "c"), 0),
    case("all-not-within", both(on("a"), on("b"), within=0.5), made("a", "b"), 0),
    case("all-at-any-time", both(on("a"), on("b"), within=None), made("a", "b"), 1),
    case("all-counted", both(on("a", threshold=2, within=60), on("b")), made("a", "b", "a"), 1),
    case("sequence", row(on("a"), on("b")), made("a", "b"), 1),
    case("sequence-wrong-way", row(on("a"), on("b")), made("b", "a"), 0),
    case("sequence-mended", row(on("a"), on("b")), made("b", "a", "b"), 1),
    case("sequence-of-three", row(on("a"), on("b"), on("c")), made("a", "b", "c"), 1),
    case("sequence-not-within", row(on("a"), on("b"), within=0.5), made("a", "b"), 0),
    case("sequence-follows", row(on("a"), on("b")), _FOLLOWED, 1),
    case("compound-of-sequence", both(row(on("a"), on("b")), on("c")), made("a", "c", "b"), 1),
    case("sequence-of-compound", row(both(on("a"), on("b")), on("c")), made("b", "a", "c"), 1),
    case("any-of-sequence", both(row(on("a"), on("b")), on("c"), require="any"), made("a", "b", "c"), 2),
]
_NOW: dict[str, Any] = {"last_waves": True}
_EACH_THING: dict[str, Any] = {"for_each": ["prefect.resource.id"]}
ABSENCE = [
    case("absent", without("b", after=["a"], **_EACH_THING), [Made(name="a", at=None)], 1, **_NOW),
    case("came", without("b", after=["a"], **_EACH_THING), [Made(name=n, at=None) for n in "ab"], 0, **_NOW),
    case(
        "came-for-one",
        without("b", after=["a"], **_EACH_THING),
        [Made(name=n, thing=t, at=None) for n, t in (("a", "1"), ("a", "2"), ("b", "2"))],
        1,
        **_NOW,
    ),
    case("began-not", without("b", after=["a"], **_EACH_THING), [Made(name="b", at=None)], 0, **_NOW),
    case("heartbeats-end", without("a", after=["a"], **_EACH_THING), [Made(name="a", at=None)] * 2, 1, **_NOW),
    case("came-once", without("b", **_EACH_THING), [Made(name="b", at=None)], 0, **_NOW),
    case("too-few", without("b", threshold=2, **_EACH_THING), [Made(name="b", at=None)], 1, first=True, **_NOW),
    case("nothing-ever", without("b"), [], 1, first=True),
    case("nothing-that-matches", without("b", match={"k": "1"}), [Made(name="b", at=None)], 1, first=True, **_NOW),
    case(
        "absent-and-present",
        both(without("b", after=["a"], **_EACH_THING), on("c")),
        [Made(name=n, at=None) for n in "ac"],
        1,
        **_NOW,
    ),
]

_LABELS = st.sampled_from([{"k": "1"}, {"k": "1"}, {"k": "2"}, {"k": "12"}, {}])
_WANTED = st.sampled_from([{}, {}, {}, *({"k": wanted} for wanted in ("1", "1*", "!2", ["1", "2"], ["!2", "12"]))])


def _triggers(names: Sequence[str]) -> st.SearchStrategy[dict[str, Any]]:
    some = st.lists(st.sampled_from([*names, names[0][0] + "*"]), min_size=1, max_size=2, unique=True)
    return st.builds(
        lambda expect, after, **more: on(*expect, after=after, **more),
        some,
        st.one_of(st.just([]), st.just([]), st.just([]), some),
        threshold=st.sampled_from([1, 1, 2, 3]),
        within=st.sampled_from([0, 4, 3600]),
        match=_WANTED,
        match_related=st.one_of(st.just({}), st.just({}), _WANTED),
        for_each=st.sampled_from([[], ["k"], ["related:owner:k"]]),
    )


# The parts of a composite have names of their own: which part an event that serves two reaches first is by chance.
_PARTS = st.tuples(_triggers(["a1", "a2"]), _triggers(["b1", "b2"]))
_ANY = st.one_of(
    _triggers(["a1", "a2"]),
    _triggers(["a1", "b1"]),
    st.builds(lambda parts, require: both(*parts, require=require), _PARTS, st.sampled_from(["all", "any", 1, 2])),
    st.builds(lambda parts: row(*parts), _PARTS),
)
_EVENTS = st.lists(
    st.builds(
        Made,
        name=st.sampled_from(["a1", "a2", "b1", "b2"]),
        at=st.integers(0, 12),
        labels=_LABELS,
        related=st.lists(_LABELS.map(lambda labels: rel("owner", **labels)), max_size=1),
    ),
    min_size=4,
    max_size=WAVES,
)


def generated() -> list[Case]:
    """The same cases on every machine: triggers and events that nobody thought of."""
    found: list[Case] = []

    @settings(
        max_examples=_GENERATED,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(_ANY, _EVENTS)
    def draw(trigger: dict[str, Any], events: list[Made]) -> None:
        found.append(Case(name=f"generated-{len(found):02}", trigger=trigger, events=events))

    draw()
    return found


CASES = [*NAMES, *MATCH, *RELATED, *FOR_EACH, *THRESHOLD, *AFTER, *COMPOSITE, *ABSENCE, *generated()]
