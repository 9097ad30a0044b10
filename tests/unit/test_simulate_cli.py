"""`penstock simulate` without a server: what it prints, and how it ends."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penstock.automations.everyday import on_arrival
from penstock.automations.forms import form_of
from penstock.cli.simulate import _as_applied, simulate
from penstock.errors import DeclarationError, NotRunning
from penstock.testing import loaded

_AUTOMATIONS = """
from datetime import timedelta
from prefect.events.schemas.automations import EventTrigger
from penstock.automations.define import Automation, notify

def told(name, **more):
    return Automation(
        name=name,
        trigger=EventTrigger(**{"posture": "Reactive", "threshold": 1, "within": timedelta(0), **more}),
        actions=[notify("slack-webhook/ops", body="{{ event.payload.rows }} rows")],
    )

AUTOMATIONS = [
    told("told", expect={"penstock.dataset.loaded"}, match={"penstock.dataset": "sales"}),
    told("missed", expect={"penstock.dataset.loaded"}, posture="Proactive", within=timedelta(hours=6)),
]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with two automations."""
    for name in ("flows", "automations"):
        (tmp_path / name).mkdir()
    (tmp_path / "automations" / "told_of.py").write_text(_AUTOMATIONS)
    monkeypatch.setenv("PENSTOCK_PROJECT", "demo")
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / ".penstock"))
    monkeypatch.delenv("PENSTOCK_PREFECT_API_URL", raising=False)
    kept, before = list(sys.path), {name for name in sys.modules if name.partition(".")[0] == "automations"}
    there = {name: sys.modules.pop(name) for name in before}
    yield tmp_path
    sys.path[:] = kept
    for name in [name for name in sys.modules if name.partition(".")[0] == "automations"]:
        del sys.modules[name]
    sys.modules.update(there)


def run(project: Path, *arguments: str) -> Result:
    """Run the command; errors of ours are raised, as the entry point has them."""
    return CliRunner().invoke(simulate, arguments, obj=project, catch_exceptions=True)


def facts(project: Path, *arguments: str) -> Any:
    """What it tells a program."""
    done = run(project, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_it_says_what_fires_with_what_and_what_does_not(project: Path) -> None:
    """On which event, with the rendered text; and why the other does not."""
    done = run(project, "-e", "loaded sales rows=3")
    assert done.exit_code == 0
    assert "told  fires once" in done.stdout
    assert "on penstock.dataset.loaded of sales" in done.stdout
    assert "body='3 rows'" in done.stdout
    assert "missed  does not fire" in done.stdout
    assert "the expected event came" in done.stdout
    assert "1 of 2 automations would fire, once; 1 event," in done.stdout


def test_what_the_code_leaves_open_is_as_applied() -> None:
    """A paused automation stays so, and a flow is called as Prefect does: neither is a difference."""
    declared = form_of(on_arrival("notes", flow="count_words"), project="demo")
    applied = form_of(on_arrival("notes", flow="count-words"), project="demo")
    applied["enabled"] = False
    assert _as_applied([declared], [applied]) == [applied]


def test_until_answers_what_waits_for_nothing(project: Path) -> None:
    """Without any event."""
    told, missed = facts(project, "--until", "6h")["automations"]
    assert (told["fires"], missed["fires"]) == (False, True)
    assert missed["firings"][0]["event"] is None


def test_only_takes_those_of_that_name(project: Path) -> None:
    """And a name that nothing has is an error that names what there is."""
    assert [one["name"] for one in facts(project, "--only", "tol", "-e", "loaded sales")["automations"]] == ["told"]
    done = run(project, "--only", "what", "-e", "loaded sales")
    assert isinstance(done.exception, DeclarationError)
    assert "there are: 'told', 'missed'" in str(done.exception)


def test_events_come_from_a_file(project: Path) -> None:
    """Prefect's JSON, one a line; a bad one names its line."""
    path = project / "events.jsonl"
    lines = [json.dumps(loaded(name, project="demo").model_dump(mode="json")) for name in ("sales", "weather", "sales")]
    path.write_text("\n".join(lines))
    told, _ = facts(project, "--events", str(path))["automations"]
    assert len(told["firings"]) == 2
    path.write_text(lines[0] + "\n{\n")
    done = run(project, "--events", str(path))
    assert isinstance(done.exception, DeclarationError)
    assert f"{path}:2: no JSON" in str(done.exception)


def test_a_template_that_fails_is_an_error(project: Path) -> None:
    """Everything is told, and the end says it."""
    path = project / "automations" / "told_of.py"
    path.write_text(_AUTOMATIONS.replace("event.payload.rows", "1 // event.payload.rows"))
    done = run(project, "-e", "loaded sales rows=0")
    assert done.exit_code == 1
    assert re.search("body fails: .*division", done.stdout)
    assert "an action of automation 'told' fails in rendering" in done.stderr


def test_one_that_a_server_would_refuse_is_told_beside_the_others(project: Path) -> None:
    """With 2, as what is declared is wrong."""
    path = project / "automations" / "told_of.py"
    refused = '    told("bad", expect={"penstock.dataset.loaded"}, match={"penstock.dataset": "sales"}),\n]\n'
    path.write_text(
        _AUTOMATIONS.removesuffix("]\n")
        + refused
        + "from penstock.automations.define import run_deployment\n"
        + "AUTOMATIONS[2] = Automation(name='bad', trigger=EventTrigger(expect={'prefect.flow-run.*'}, "
        + "posture='Reactive', threshold=1, within=timedelta(0)), actions=[run_deployment('a/b')])\n"
    )
    done = run(project, "-e", "loaded sales")
    assert done.exit_code == 2
    assert "told  fires once" in done.stdout
    assert "bad  is refused" in done.stdout
    assert "infinite loop" in done.stderr


def test_last_and_until_count_from_now(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from the last event, which may have been hours before."""
    now = datetime.now(UTC)
    recorded = loaded("weather", project="demo", at=now - timedelta(hours=5)).model_dump(mode="json")
    monkeypatch.setattr("penstock.cli.simulate._ask", lambda *_, **__: ([recorded], []))
    found = facts(project, "--last", "6h", "--until", "2h")
    ahead = datetime.fromisoformat(found["until"]) - now
    assert timedelta(hours=2) - timedelta(seconds=2) <= ahead < timedelta(hours=2, minutes=1)


def test_too_long_a_time_is_usage(project: Path) -> None:
    """Not a crash."""
    for option in ("--until", "--last"):
        done = run(project, option, "999999999999d")
        assert done.exit_code == 2
        assert "is too long" in done.stderr


def test_without_events_it_asks_of_which(project: Path) -> None:
    """Usage, with what to say."""
    done = run(project)
    assert done.exit_code == 2
    assert "of which events?" in done.stderr


@pytest.mark.parametrize("option", [["--last", "1h"], ["--diff", "-e", "loaded sales"]], ids=["last", "diff"])
def test_what_needs_a_server_says_so(project: Path, option: list[str]) -> None:
    """Rather than answering without one."""
    assert isinstance(run(project, *option).exception, NotRunning)
