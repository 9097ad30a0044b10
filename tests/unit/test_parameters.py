"""Whether parameters fit a deployment's schema, as Prefect's server would say when the run is created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from prefect import flow
from prefect.server.events.actions import RunDeployment
from prefect.utilities.callables import parameter_schema

from penstock.automations.parameters import Accepts, check
from penstock.automations.templates import Shape, Template, one_expression, problems, type_of

LOADED = [Shape(event="penstock.dataset.loaded", payload={"rows": "integer", "run": "string"}, labels=frozenset())]


@flow
def report(
    day: str,
    rows: int = 0,
    share: float | None = None,
    days: list[str] | None = None,
    by: dict[str, int] | None = None,
) -> None:
    """Takes a parameter of each kind."""


SCHEMA = parameter_schema(report).model_dump_for_openapi()


def of(parameters: Mapping[str, Any], *, given: Mapping[str, Any] | None = None, enforced: bool = True) -> list[str]:
    accepts = Accepts(schema=SCHEMA, given={"day": "today"} if given is None else given, enforced=enforced)
    return [problem.rule for problem in check("report/daily", parameters, accepts, LOADED)]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"rows": 3, "share": 0.5, "days": ["a"], "by": {"a": 1}},
        {"share": None},
        {"rows": "{{ event.payload.rows }}"},
        {"share": "{{ event.payload.rows }}"},
        {"rows": "{{ event.payload.run | int }}"},
        {"day": "the {{ event.payload.rows }}th"},
        {"days": ["{{ event.payload.run }}", "x {{ event.payload.rows }}"]},
        {"days": "{{ event.payload.days }}"},
        {"by": {"a": "{{ event.payload.rows }}"}},
        {"rows": {"__prefect_kind": "json", "value": "3"}},
        {"rows": {"__prefect_kind": "json", "value": {"__prefect_kind": "jinja", "template": "{{ 1 }}"}}},
        {"rows": {"__prefect_kind": "workspace_variable", "variable_name": "rows"}},
        {"day": {"__prefect_kind": "jinja", "template": "{{ event.payload.rows }}"}},
    ],
    ids=str,
)
def test_what_fits(parameters: dict[str, Any]) -> None:
    """Values of the right type, templates that keep theirs, and what nobody can know."""
    assert of(parameters) == []


@pytest.mark.parametrize(
    "parameters",
    [
        {"rows": "three"},
        {"rows": None},
        {"rows": 0.5},
        {"days": ["a", 1]},
        {"by": {"a": "x"}},
        {"rows": "{{ event.payload.rows }} rows"},
        {"rows": "{{ event.payload.run }}"},
        {"share": "about {{ event.payload.rows }}"},
        {"day": "{{ event.payload.rows }}"},
        {"rows": {"__prefect_kind": "jinja", "template": "{{ event.payload.rows }}"}},
        {"rows": {"__prefect_kind": "json", "value": '"three"'}},
    ],
    ids=str,
)
def test_what_does_not_fit(parameters: dict[str, Any]) -> None:
    """Literals of another type, and templates that are rendered as another."""
    assert of(parameters) == ["wrong-parameter-type"]


def test_names() -> None:
    """A name the flow does not take, and one that nobody gives."""
    assert of({"row": 1}) == ["unknown-parameter"]
    assert of({}, given={}) == ["missing-parameter"]
    assert of({"day": "{{ event.payload.run }}"}, given={}) == []
    assert of({"day": {"__prefect_kind": "json"}}, given={}) == ["missing-parameter"]


def test_what_is_not_enforced_is_a_warning() -> None:
    """A deployment that does not enforce its schema still creates the run."""
    accepts = Accepts(schema=SCHEMA, enforced=False)
    found = check("report/daily", {"rows": "three", "row": 1}, accepts, None)
    assert {problem.severity for problem in found} == {"warning"}
    assert [problem.rule for problem in found] == ["missing-parameter", "unknown-parameter", "wrong-parameter-type"]


def test_what_is_wrong_with_the_deployment_is_not_this_automation_s() -> None:
    """A value of the deployment's own is not told of, and a schema that says nothing or nonsense refuses nothing."""
    assert of({"rows": 1}, given={"day": 3}) == []
    for schema in ({}, {"properties": {"a": {"type": "nonsense"}}}, {"properties": {"a": {"$ref": "#/nowhere"}}}):
        assert check("report/daily", {"a": 1}, Accepts(schema=schema), None) == []


def test_a_deployment_as_the_api_answers_it() -> None:
    """The three fields of the answer that matter."""
    answer = {"parameter_openapi_schema": SCHEMA, "parameters": {"day": "today"}, "enforce_parameter_schema": False}
    assert Accepts.of(answer) == Accepts(schema=SCHEMA, given={"day": "today"}, enforced=False)
    assert Accepts.of({"parameter_openapi_schema": None, "parameters": None}) == Accepts(schema={}, enforced=False)


@pytest.mark.parametrize(
    "text",
    [
        "{{ event.payload.rows }}",
        " {{ a }} ",
        "{{ a }} {{ b }}",
        "x {{ a }}",
        "{% if a %}1{% endif %}",
        "{{ {'a': 1} }}",
    ],
)
def test_what_keeps_its_type_is_what_prefect_says(text: str) -> None:
    """The same look at the text as Prefect's own."""
    wrapped = RunDeployment._wrap_v1_template(text)
    assert one_expression(text) == (wrapped["__prefect_kind"] == "json")


@pytest.mark.parametrize(
    ("expression", "whole"),
    [
        ("a", True),
        ("a.b['c']", True),
        ("a | default(1)", True),
        ("f(a)", True),
        ("(a + 1)", True),
        ("[a, b]", True),
        ("a + 1", False),
        ("a ~ b", False),
        ("not a", False),
        ("a > 1", False),
        ("a if b else c", False),
    ],
)
def test_the_filter_that_prefect_adds(expression: str, whole: bool) -> None:
    """It must take the whole expression, which an operator outside of parentheses prevents."""
    template = Template(where="x", text="{{ " + expression + " }}", typed=True)
    loose = [problem for problem in problems(template, None) if problem.rule == "template"]
    assert bool(loose) is not whole


def test_the_type_of_a_template() -> None:
    """Known for a field of the payload alone; a text that is more than one expression is a text."""
    assert type_of(Template(where="", text="{{ event.payload.rows }}", typed=True), LOADED) == "integer"
    assert type_of(Template(where="", text="{{ event['payload']['rows'] }}", typed=True), LOADED) == "integer"
    assert type_of(Template(where="", text="{{ event.payload.rows }}", typed=True), None) is None
    assert type_of(Template(where="", text="{{ event.payload.rows | abs }}", typed=True), LOADED) is None
    assert type_of(Template(where="", text="{{ event.payload.rows }}"), LOADED) == "string"
