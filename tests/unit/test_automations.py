"""Automations as code: forms in which equal ones are equal, and what a comparison with the server says."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect.events.actions import CancelFlowRun, PauseAutomation
from prefect.events.schemas.automations import CompoundTrigger, EventTrigger, Posture

from penstock.automations.compare import bare, compare, marked
from penstock.automations.define import (
    Automation,
    ByName,
    call_webhook,
    notify,
    pause_automation,
    pause_deployment,
    pause_work_pool,
    pause_work_queue,
    resume_automation,
    resume_deployment,
    resume_work_pool,
    resume_work_queue,
    run_deployment,
    run_deployment_with,
)
from penstock.automations.everyday import on_arrival
from penstock.automations.forms import Form, Names, form_of, references, with_ids, with_names
from penstock.automations.server import ServerAutomation, as_read
from penstock.errors import DeclarationError
from penstock.plan import Change, Plan

IDS = {name: str(UUID(int=number)) for number, name in enumerate(("ingest/shop.sales", "ingest/shop.weather"), 1)}
NAMES = Names.of({"deployment": list(IDS.items())})


def form(automation: Automation, project: str = "shop") -> Form:
    return form_of(automation, project=project)


def on_server(automation: Automation, number: int = 1, **changed: Any) -> ServerAutomation:
    """What the server has after it was applied: sets in another order, ids and times of its own."""
    sent = with_ids(marked(form(automation)), NAMES)
    found = copy.deepcopy({"enabled": True, **sent})
    for name in ("expect", "after", "for_each"):
        if name in found["trigger"]:
            found["trigger"][name] = list(reversed(found["trigger"][name]))
    found["trigger"]["id"] = "the server's"
    found["tags"] = list(reversed(found["tags"]))
    found |= {"id": f"id {number}", "created": f"2026-03-{number:02}", "updated": "2026-04-01", "owner_resource": None}
    for path, value in changed.items():
        inner, _, last = path.rpartition("__")
        (found[inner] if inner else found)[last] = value
    return as_read(found, NAMES)


def compared(
    declared: Sequence[Automation], there: Sequence[ServerAutomation], *, prune: bool = False
) -> list[tuple[str, str, str | None]]:
    pairs = [(form(one), one) for one in declared]
    found = compare(pairs, there, project="shop", prune=prune)
    return [(change.kind, change.name, change.existing) for change in found.changes]


SALES, WEATHER = on_arrival("sales"), on_arrival("weather")


class TestForms:
    """An automation as plain data."""

    def test_on_arrival(self) -> None:
        """A wake-up of the project's own dataset runs that dataset's deployment, once for each event."""
        found = form(SALES)
        assert found["name"] == "shop: sales on arrival"
        assert found["tags"] == ["penstock:shop"]
        assert "enabled" not in found
        trigger = found["trigger"]
        assert trigger["match"] == {"prefect.resource.id": "penstock.shop.dataset.sales"}
        assert trigger["expect"] == ["penstock.dataset.pending"]
        assert (trigger["posture"], trigger["threshold"], trigger["within"]) == ("Reactive", 1, 0)
        (action,) = found["actions"]
        assert (action["type"], action["source"], action["deployment"]) == (
            "run-deployment",
            "selected",
            "ingest/shop.sales",
        )
        assert "deployment_id" not in action

    def test_the_project_is_named_everywhere_it_is_meant(self) -> None:
        """{project} stands for the project's name in names, triggers within triggers, texts and deployments."""
        automation = Automation(
            name="{project}: both",
            trigger=CompoundTrigger(
                require="all",
                within=timedelta(minutes=1),
                triggers=[
                    EventTrigger(match={"prefect.resource.id": "penstock.{project}.dataset.sales"}, expect={"a"}),
                    EventTrigger(match_related={"prefect.resource.id": ["x.{project}", "y"]}, expect={"b.{project}"}),
                ],
            ),
            actions=[
                run_deployment("ingest/{project}.sales", table="t"),
                notify("slack-webhook/ops", body="{project}!"),
            ],
            tags=["mine"],
        )
        found = form(automation)
        assert "{project}" not in str(found)
        one, other = found["trigger"]["triggers"]
        assert one["match"] == {"prefect.resource.id": "penstock.shop.dataset.sales"}
        assert other["match_related"] == {"prefect.resource.id": ["x.shop", "y"]}
        assert other["expect"] == ["b.shop"]
        assert found["actions"][0]["parameters"] == {"table": "t"}
        assert (found["actions"][1]["block"], found["actions"][1]["body"]) == ("slack-webhook/ops", "shop!")
        assert found["tags"] == ["mine", "penstock:shop"]

    @pytest.mark.parametrize(
        ("action", "kind", "name"),
        [
            (run_deployment_with("f/d", schedule_after=timedelta(minutes=1)), "deployment", "f/d"),
            (pause_deployment("f/d"), "deployment", "f/d"),
            (resume_deployment("f/d"), "deployment", "f/d"),
            (pause_work_pool("p"), "work pool", "p"),
            (resume_work_pool("p"), "work pool", "p"),
            (pause_work_queue("p/q"), "work queue", "p/q"),
            (resume_work_queue("p/q"), "work queue", "p/q"),
            (notify("slack-webhook/ops", body="b"), "block", "slack-webhook/ops"),
            (call_webhook("webhook/pager", payload="{}"), "block", "webhook/pager"),
            (pause_automation("other: one/two"), "automation", "other: one/two"),
            (resume_automation("other"), "automation", "other"),
        ],
        ids=lambda value: value.type if isinstance(value, ByName) else "",
    )
    def test_every_action_by_name_there_and_back(self, action: ByName, kind: Any, name: str) -> None:
        """What is declared by name is sent with the id and read back as the same form."""
        names = Names.of({kind: [(name, str(UUID(int=7)))]})
        declared = form(Automation(name="x", trigger=EventTrigger(expect={"a"}), actions=[action]))
        assert references(declared) == [(kind, name)]
        sent = with_ids(declared, names)
        assert str(UUID(int=7)) in sent["actions"][0].values()
        assert with_names(sent, names) == declared

    def test_an_unknown_name_is_named(self) -> None:
        """A deployment that does not exist is named, with the automation and with those that do."""
        with pytest.raises(
            DeclarationError, match=r"rain on arrival.*'ingest/shop.rain'.*ingest/shop.sales, ingest/sh"
        ):
            with_ids(form(on_arrival("rain")), NAMES)
        with pytest.raises(DeclarationError, match="there are: none"):
            with_ids(form(SALES), Names())

    @pytest.mark.parametrize("name", ["sales", "a/b/c", "", "/", "a/"])
    def test_a_deployment_is_flow_and_name(self, name: str) -> None:
        """A deployment that is not written flow/deployment is refused where it is declared."""
        with pytest.raises(DeclarationError, match="flow/deployment"):
            run_deployment(name)

    def test_what_prefect_refuses_names_the_automation(self) -> None:
        """A field that Prefect's action does not take is an error that names automation and action."""
        wrong = run_deployment_with("f/d", schedule_after=timedelta(seconds=-1))
        with pytest.raises(DeclarationError, match=r"'x': run-deployment: .*schedule_after"):
            form(Automation(name="x", trigger=EventTrigger(expect={"a"}), actions=[wrong]))

    def test_an_automation_has_a_name_and_actions(self) -> None:
        """Without a name it cannot be found again, without actions it does nothing."""
        with pytest.raises(DeclarationError, match="needs a name"):
            Automation(name=" ", trigger=EventTrigger(expect={"a"}), actions=[CancelFlowRun()])
        with pytest.raises(DeclarationError, match="does nothing"):
            Automation(name="x", trigger=EventTrigger(expect={"a"}), actions=[])

    @pytest.mark.parametrize(
        ("fields", "what"),
        [
            ({"actions": CancelFlowRun()}, "actions are a list"),
            ({"actions": ["run it"]}, "'run it' is no action"),
            ({"trigger": "made.up"}, "the trigger is a str"),
            ({"tags": ["penstock:other"]}, "penstock's own"),
            ({"tags": ["penstock.applied:1"]}, "penstock's own"),
            ({"name": " "}, "needs a name"),
        ],
        ids=["no list", "no action", "no trigger", "owner", "applied", "no name"],
    )
    def test_what_is_no_automation_is_refused_where_it_is_declared(self, fields: Any, what: str) -> None:
        """Each of these is a sentence and not a traceback."""
        good: dict[str, Any] = {"name": "x", "trigger": EventTrigger(expect={"a"}), "actions": [CancelFlowRun()]}
        with pytest.raises(DeclarationError, match=what):
            Automation(**{**good, **fields})

    def test_a_function_that_was_not_called_is_named(self) -> None:
        """AUTOMATIONS may hold anything; what is no automation is named."""
        with pytest.raises(DeclarationError, match="AUTOMATIONS holds on_arrival"):
            form_of(on_arrival, project="shop")  # type: ignore[arg-type]
        odd = Automation(name="x", trigger=EventTrigger(expect={"a"}), actions=[run_deployment("f/d", what=object())])
        with pytest.raises(DeclarationError, match="'x': run-deployment"):
            form(odd)

    def test_jinjas_braces_are_left_alone(self) -> None:
        """{project} is the project's name, and {{project}} is a template's own."""
        told = notify("slack-webhook/ops", body="{project} {{project}} {{ event.id }}")
        (action,) = form(Automation(name="x", trigger=EventTrigger(expect={"a"}), actions=[told]))["actions"]
        assert action["body"] == "shop {{project}} {{ event.id }}"

    def test_a_label_may_be_called_like_something_the_server_adds(self) -> None:
        """What a trigger matches is an event's, so that an `id` in there is compared."""
        one = Automation(name="x", trigger=EventTrigger(match={"id": "a"}), actions=[CancelFlowRun()])
        assert form(one)["trigger"]["match"] == {"id": "a"}


class TestCompare:
    """Declared against what the server has."""

    def test_what_the_server_adds_and_reorders_is_no_difference(self) -> None:
        """Equal automations are unchanged, whatever order their sets have and whatever ids the server gave."""
        trigger = EventTrigger(
            expect={"a", "b", "c"}, after={"d", "e"}, for_each={"f", "g"}, posture=Posture.Reactive, threshold=3
        )
        automation = Automation(name="x", trigger=trigger, actions=[run_deployment("ingest/shop.sales")], tags=["t"])
        assert compared([automation], [on_server(automation)]) == [("unchanged", "x", "id 1")]

    def test_a_paused_one_stays_paused_unless_the_code_says_otherwise(self) -> None:
        """Pausing is an operator's decision and no difference, until the declaration names it."""
        paused = on_server(SALES, enabled=False)
        assert compared([SALES], [paused])[0][0] == "unchanged"
        says = Automation(name=SALES.name, trigger=SALES.trigger, actions=SALES.actions, enabled=True)
        says = Automation(**{**vars(says), "description": SALES.description})
        (change,) = compare([(form(says), says)], [paused], project="shop", prune=False).changes
        assert [(one.path, one.old, one.new) for one in change.differences] == [("enabled", False, True)]

    def test_a_change_of_the_code_is_an_update_and_one_by_hand_is_drift(self) -> None:
        """The tag with the digest of what was applied tells who changed it."""
        changed = Automation(**{**vars(SALES), "description": "another"})
        assert compared([changed], [on_server(SALES)])[0][0] == "update"
        by_hand = on_server(SALES, trigger__threshold=7)
        found = compare([(form(SALES), SALES)], [by_hand], project="shop", prune=False).changes
        assert [change.kind for change in found] == ["drift"]
        assert [(one.path, one.old, one.new) for one in found[0].differences] == [("trigger.threshold", 7, 1)]
        assert compared([changed], [by_hand])[0][0] == "drift"

    def test_an_action_on_what_is_gone_is_a_difference(self) -> None:
        """A deployment that was deleted and made anew has another id, and the automation refers to the old one."""
        found = on_server(SALES, actions=[{"type": "run-deployment", "source": "selected", "deployment_id": "old"}])
        (change,) = compare([(form(SALES), SALES)], [found], project="shop", prune=False).changes
        assert ("actions[0].deployment", "old (gone)", "ingest/shop.sales") in [
            (one.path, one.old, one.new) for one in change.differences
        ]

    def test_only_the_own_go_and_only_when_asked(self) -> None:
        """What is no longer declared is kept without prune; another project's and nobody's are never touched."""
        foreign = on_server(SALES, 2, tags=["somebody's"])
        other = on_server(SALES, 3, tags=["penstock:shop2"])
        there = [on_server(WEATHER), foreign, other]
        assert compared([], there) == []
        assert compared([], there, prune=True) == [("delete", "shop: weather on arrival", "id 1")]
        found = compare([], there, project="shop", prune=False)
        assert ([change.name for change in found.kept], found.owned) == (["shop: weather on arrival"], 1)

    def test_a_foreign_one_of_that_name_is_not_taken_over(self) -> None:
        """Without adopt a second is created; with it the other becomes the project's."""
        foreign = on_server(SALES, tags=["somebody's"], description="theirs")
        assert compared([SALES], [foreign]) == [("create", "shop: sales on arrival", None)]
        adopting = Automation(**{**vars(SALES), "adopt": True})
        assert compared([adopting], [foreign]) == [("update", "shop: sales on arrival", "id 1")]

    def test_an_adopted_one_that_is_equal_is_unchanged(self) -> None:
        """Adopting what is as declared writes nothing; the tags of penstock are no difference then."""
        adopting = Automation(**{**vars(SALES), "adopt": True, "tags": ("somebody's",)})
        equal = on_server(SALES, tags=["somebody's"])
        assert compared([adopting], [equal])[0][0] == "unchanged"

    def test_what_cannot_be_adopted(self) -> None:
        """Several of a name, or another project's, are errors that say which."""
        adopting = Automation(**{**vars(SALES), "adopt": True})
        twins = [on_server(SALES, number, tags=[]) for number in (1, 2)]
        with pytest.raises(DeclarationError, match="says which: id 1, id 2"):
            compared([adopting], twins)
        by_id = Automation(**{**vars(SALES), "adopt": "id 2"})
        assert [existing for _, _, existing in compared([by_id], twins)] == ["id 2"]
        with pytest.raises(DeclarationError, match="belongs to the project shop2"):
            compared([adopting], [on_server(SALES, tags=["penstock:shop2"])])

    def test_a_second_of_the_own_is_surplus(self) -> None:
        """Of two that the project owns by one name the older stays, and the other goes when pruned."""
        twins = [on_server(SALES, 2), on_server(SALES, 1)]
        assert compared([SALES], twins, prune=True) == [
            ("unchanged", "shop: sales on arrival", "id 1"),
            ("delete", "shop: sales on arrival", "id 2"),
        ]

    def test_two_with_one_name_are_refused(self) -> None:
        """Automations go by name, so that two of one name cannot both be applied; {project} counts as the name."""
        twin = Automation(**{**vars(WEATHER), "name": "shop: sales on arrival"})
        with pytest.raises(DeclarationError, match="two automations are named 'shop: sales on arrival'"):
            compared([SALES, twin], [])

    def test_those_that_others_refer_to_come_first(self) -> None:
        """Prefect wants the id of an automation that another pauses, so that one is made first."""
        first = Automation(name="b", trigger=EventTrigger(expect={"a"}), actions=[pause_automation("c")])
        then = Automation(name="c", trigger=EventTrigger(expect={"a"}), actions=[pause_automation("c")])
        assert [name for _, name, _ in compared([first, then], [])] == ["c", "b"]
        circle = Automation(name="c", trigger=EventTrigger(expect={"a"}), actions=[pause_automation("b")])
        with pytest.raises(DeclarationError, match="in a circle: b, c"):
            compared([first, circle], [])

    @pytest.mark.parametrize(
        ("was", "is_now"),
        [({"id": 5}, {"id": 6}), ({"enabled": True}, {"enabled": False}), ({"tags": ["a", "b"]}, {"tags": ["b", "a"]})],
    )
    def test_a_flows_own_parameters_are_compared_as_they_are(self, was: Any, is_now: Any) -> None:
        """A parameter may be called like something the server adds, and a change of it is a change."""
        one, other = (
            Automation(
                name="x", trigger=EventTrigger(expect={"a"}), actions=[run_deployment("ingest/shop.sales", **now)]
            )
            for now in (was, is_now)
        )
        assert compared([other], [on_server(one)])[0][0] == "update"
        assert compared([one], [on_server(one)])[0][0] == "unchanged"

    def test_an_action_by_id_is_compared_by_name(self) -> None:
        """An action of Prefect's own with an id means what has that id."""
        by_id = PauseAutomation(automation_id=UUID(int=9))
        declared = form(Automation(name="x", trigger=EventTrigger(expect={"a"}), actions=[by_id]))
        names = Names.of({"automation": [("other", str(UUID(int=9)))]})
        assert with_names(declared, names)["actions"][0]["automation"] == "other"

    def test_the_mark_is_no_part_of_what_is_compared(self) -> None:
        """The tag that remembers what was applied is not a difference, and marking twice marks once."""
        assert bare(marked(form(SALES))) == form(SALES)
        assert marked(marked(form(SALES))) == marked(form(SALES))


class TestPlan:
    """The plan as a whole."""

    def test_the_brake(self) -> None:
        """More than 30 % of what the project owns does not go by a slip."""
        deletes = [Change(kind="delete", what="automation", name=str(number)) for number in range(3)]
        assert not Plan(project="shop", changes=deletes, owned=10).brakes
        assert Plan(project="shop", changes=deletes, owned=9).brakes
        assert not Plan(project="shop", owned=0).brakes

    def test_the_digest_tells_plans_apart(self) -> None:
        """The same to the same things is the same plan; another old or new value is another plan."""
        one = Change(kind="update", what="automation", name="x", old={"a": 1}, new={"a": 2}, existing="id")
        same = Plan(project="shop", changes=[one], findings=[])
        unchanged = Change(kind="unchanged", what="automation", name="y")
        assert same.digest == Plan(project="shop", changes=[one, unchanged]).digest
        for other in ({"old": {"a": 0}}, {"new": {"a": 3}}, {"existing": "other"}):
            assert Plan(project="shop", changes=[Change(**{**vars(one), **other})]).digest != same.digest

    def test_differences_name_paths(self) -> None:
        """Values within values are named by their path; lists of another length as a whole."""
        change = Change(
            kind="update",
            what="automation",
            name="x",
            old={"a": {"b": 1, "c": [{"d": 1}], "e": [1]}},
            new={"a": {"b": 2, "c": [{"d": 2}], "e": [1, 2]}, "f": 0},
        )
        assert [(one.path, one.old, one.new) for one in change.differences] == [
            ("a.b", 1, 2),
            ("a.c[0].d", 1, 2),
            ("a.e", [1], [1, 2]),
            ("f", None, 0),
        ]
