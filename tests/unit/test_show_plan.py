"""How a plan looks."""

from __future__ import annotations

from penstock.cli.show_plan import masked, plan_facts, plan_lines
from penstock.plan import Change, Finding, Plan

OLD = {"job_variables": {"env": {"A": "hidden"}}, "parameters": {"api_token": "hidden", "n": 1}}
NEW = {"job_variables": {}, "parameters": {"api_token": "other", "n": 2}}
UPDATE = Change(kind="update", what="deployment", name="f/d", old=OLD, new=NEW, existing="id")


def test_what_may_be_a_secret_is_not_shown() -> None:
    """Neither on a terminal nor for a program: whatever is in an env, or is called like a secret."""
    plan = Plan(project="shop", changes=[UPDATE])
    shown = "".join(plan_lines(plan)) + str(plan_facts(plan))
    assert "hidden" not in shown
    assert "other" not in shown
    assert "parameters.n: 1 → 2" in shown
    assert masked({"password": "x", "plain": "y", "auth": {"inner": 1}}) == {
        "password": "***",
        "plain": "y",
        "auth": {"inner": 1},
    }


def test_a_second_one_of_a_name_is_said_to_be_that() -> None:
    """What is declared and there twice is not called undeclared."""
    twin = Change(kind="delete", what="automation", name="x", existing="2")
    plan = Plan(project="shop", changes=[Change(kind="unchanged", what="automation", name="x")], kept=[twin])
    assert "x a second time" in "".join(plan_lines(plan))


def test_findings_and_counts() -> None:
    """Rules are named, unchanged ones counted, and the sum comes last."""
    finding = Finding(rule="throttles", severity="warning", name="x", reason="the [first] event counts")
    unchanged = Change(kind="unchanged", what="automation", name="x")
    lines = list(plan_lines(Plan(project="shop", changes=[UPDATE, unchanged], findings=[finding])))
    assert lines[-3:] == [
        "= 1 unchanged",
        "[yellow]warning[/yellow] throttles: the \\[first] event counts",
        "Plan: 0 to add, 1 to change, 0 to delete",
    ]
