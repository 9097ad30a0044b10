"""Simulating automations: in their own time, with what their actions would be given, and against another version."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.events.actions import PauseAutomation
from prefect.events.schemas.automations import EventTrigger, Posture, TriggerTypes

from penstock import events as names
from penstock.automations.define import Automation, ByName, call_webhook, notify, pause_automation, run_deployment
from penstock.automations.described import described, from_lines, span
from penstock.automations.engine import Engine
from penstock.automations.forms import Form, form_of
from penstock.automations.samples import BEGIN
from penstock.automations.simulate import _effects as effects
from penstock.automations.simulate import as_event, compared, simulate
from penstock.errors import DeclarationError, PenstockError
from penstock.testing import (
    accepted,
    arrived,
    does_not_fire,
    event,
    fires,
    loaded,
    lost,
    pending,
    quarantined,
)
from tests.waiting import wait_for

SIX_HOURS = timedelta(hours=6)


def on(*expect: str, **more: Any) -> EventTrigger:
    """A trigger that fires at once, unless told otherwise."""
    return EventTrigger(
        **{"expect": set(expect), "posture": Posture.Reactive, "threshold": 1, "within": timedelta(0), **more}
    )


def told(trigger: TriggerTypes, *actions: ByName | PauseAutomation, name: str = "told") -> Automation:
    """An automation of that trigger."""
    return Automation(name=name, trigger=trigger, actions=actions or [notify("slack-webhook/ops", body="x")])


LOADED = on(names.DATASET_LOADED)
ABSENT = on(names.DATASET_LOADED, posture=Posture.Proactive, within=SIX_HOURS)


def test_templates_are_rendered_as_prefect_does() -> None:
    """A parameter keeps its type, a text is a text, and what needs a server says so instead of guessing."""
    run = run_deployment(
        "report/daily", rows="{{ event.payload.rows }}", text="{{ event.payload.rows }} rows", of="{{ flow_run.name }}"
    )
    (firing,) = fires(
        told(
            LOADED,
            run,
            notify("slack-webhook/ops", subject="{{ automation.name }}", body="{{ event.resource.name }}"),
            call_webhook("webhook/pager", payload="{{ flow_run.name }} {{ variables.x }}"),
            notify("slack-webhook/ops", body="{{ event|ui_url }}"),
            notify("slack-webhook/ops", body="{{ 1 // 0 }}"),
        ),
        [loaded("sales", rows=3)],
    )
    ran, notified, called, linked, failed = firing.actions
    assert ran.action["deployment"] == "report/daily"
    assert ran.fields == {"parameters.rows": 3, "parameters.text": "3 rows"}
    assert ran.needs == {"parameters.of": ["flow_run"]}
    assert notified.fields == {"subject": "told", "body": "sales"}
    assert called.needs == {"payload": ["flow_run", "variables"]}
    assert linked.needs == {"body": ["ui_url"]}
    assert "ZeroDivisionError" in failed.errors["body"]


def test_nothing_for_six_hours_answers_at_once() -> None:
    """Time is the events' own: it fires when the six hours are over, and not a moment before."""
    assert not fires(told(ABSENT), [], until=SIX_HOURS - timedelta(seconds=1))
    (firing,) = fires(told(ABSENT), [], until=SIX_HOURS)
    assert (firing.at, firing.event) == (BEGIN + SIX_HOURS, None)
    assert [one.at for one in fires(told(ABSENT), [], until=2 * SIX_HOURS)] == [
        BEGIN + SIX_HOURS,
        BEGIN + 2 * SIX_HOURS,
    ]


def test_events_are_taken_in_the_order_in_which_they_are_received() -> None:
    """However they are given; one that a server received late is late."""
    early, late = event("a", "r"), event("b", "r", at=timedelta(minutes=1))
    after = told(on("b", after={"a"}, within=timedelta(minutes=5)))
    assert fires(after, [late, early])
    kept = {**early.model_dump(mode="json"), "received": (BEGIN + timedelta(minutes=2)).isoformat()}
    assert not fires(after, [late, kept])


def test_a_firing_is_an_event_that_others_see() -> None:
    """As on a server; and one that reacts to its own never ends, which is told."""
    first = form_of(told(LOADED, name="first"), project="test")
    second = form_of(
        told(on("prefect.automation.triggered", match={"prefect.resource.name": "first"}), name="second"),
        project="test",
    )
    found = simulate([first, second], [as_event(loaded("sales"))], now=BEGIN)
    assert [one.fires for one in found.automations] == [True, True]
    assert not found.endless
    own = form_of(told(on("prefect.automation.*"), name="own"), project="test")
    assert simulate([own, first], [as_event(loaded("sales"))], now=BEGIN).endless


def test_an_automation_that_another_pauses_fires_no_more() -> None:
    """From the next event on."""
    forms = [
        form_of(told(LOADED, name="loads"), project="test"),
        form_of(told(on(names.OBJECT_QUARANTINED), pause_automation("loads"), name="stops"), project="test"),
    ]
    events = [loaded("sales"), quarantined("sales", at=SIX_HOURS), loaded("sales", at=2 * SIX_HOURS)]
    found = simulate(forms, [as_event(one) for one in events], now=BEGIN)
    assert [len(one.outcome.firings) for one in found.automations] == [1, 1]


def test_what_a_server_would_refuse_names_the_automation() -> None:
    """The engine goes on with the next question."""
    bad = form_of(told(on("prefect.flow-run.*"), run_deployment("a/b")), project="test")
    good = form_of(told(LOADED, name="good"), project="test")
    refused, fired = simulate([bad, good], [as_event(loaded("sales"))], now=BEGIN).automations
    assert re.search(r"automation 'told': .*infinite loop", refused.refused)
    assert [reason.condition for reason in refused.why_not] == ["refused"]
    assert (fired.refused, fired.fires) == ("", True)
    with pytest.raises(DeclarationError, match="infinite loop"):
        fires(told(on("prefect.flow-run.*"), run_deployment("a/b")), [])


def test_counts_are_told() -> None:
    """What is counted at the end, for which values, and until when."""
    each = on(names.DATASET_LOADED, threshold=2, within=SIX_HOURS, for_each={"penstock.dataset"})
    found = simulate([form_of(told(each), project="test")], [as_event(loaded("sales"))], now=BEGIN)
    (count,) = found.automations[0].outcome.counts
    assert (count.labels, count.count, count.end) == ({"penstock.dataset": "sales"}, 1, BEGIN + SIX_HOURS)


def _only(*automations: Automation) -> list[Form]:
    return [form_of(automation, project="test") for automation in automations]


def test_two_versions_are_compared_by_what_they_do() -> None:
    """Another name for the same is the same; another threshold takes runs away, another text adds and takes."""
    events = [as_event(loaded("sales", rows=rows, at=timedelta(minutes=rows))) for rows in (1, 2, 3)]

    def against(before: Automation, after: Automation) -> tuple[int, int, int]:
        found = compared(simulate(_only(before), events, now=BEGIN), simulate(_only(after), events, now=BEGIN))
        return len(found.gone), len(found.new), found.same

    run, other = run_deployment("a/b", rows="{{ event.payload.rows }}"), run_deployment("a/b", rows=2)
    assert against(told(LOADED, run), told(LOADED, run, name="renamed")) == (0, 0, 3)
    third = on(names.DATASET_LOADED, threshold=3, within=SIX_HOURS)
    assert against(told(LOADED, run), told(third, run)) == (2, 0, 1)
    assert against(told(LOADED, run), told(LOADED, other)) == (2, 2, 1)


def test_equal_automations_do_the_same() -> None:
    """Also what rests on a firing: its id, and the event that it is for others."""
    first = told(LOADED, notify("slack-webhook/ops", body="{{ firing.id }}"), name="first")
    second = told(
        on("prefect.automation.triggered", match={"prefect.resource.name": "first"}),
        notify("slack-webhook/ops", body="{{ event.id }}"),
        name="second",
    )
    absent = told(ABSENT, notify("slack-webhook/ops", body="{{ firing.id }}"), name="absent")
    events = [as_event(loaded("sales")), as_event(loaded("sales"))]
    before, after = (simulate(_only(first, second, absent), events, now=BEGIN, until=3 * SIX_HOURS) for _ in "ab")
    found = compared(before, after)
    assert (found.gone, found.new, found.same) == ((), (), 5)
    ids = [one.rendered.fields["body"] for _, one in effects(before)]
    assert len(set(ids)) == 5


@pytest.mark.parametrize(
    ("action", "place"),
    [
        pytest.param(notify("slack-webhook/ops", body="x"), "body", id="notification"),
        pytest.param(call_webhook("webhook/pager", payload="x"), "payload", id="webhook"),
        pytest.param(run_deployment("a/b", x=1), "parameters", id="run"),
    ],
)
def test_a_bad_template_names_its_action_and_field(action: ByName, place: str) -> None:
    """Not what another kind of action would want; and the other automations are answered."""
    form = form_of(told(LOADED, notify("slack-webhook/ops", body="x"), action, name="bad"), project="test")
    form["actions"][1][place] = {"x": "{{ a b"} if place == "parameters" else "{{ a b"
    good = form_of(told(LOADED), project="test")
    refused, fired = simulate([form, good], [as_event(loaded("sales"))], now=BEGIN).automations
    kind = form["actions"][1]["type"]
    assert f"automation 'bad': action 2 ({kind}), {place}: " in refused.refused
    assert "expected token 'end of print statement'" in refused.refused
    assert fired.fires


def test_what_is_due_too_often_is_stopped() -> None:
    """Rather than computed for an hour; what happened up to then is told."""
    often = form_of(
        told(on(names.DATASET_LOADED, posture=Posture.Proactive, within=timedelta(seconds=10))), project="t"
    )
    late = as_event(pending("sales", at=SIX_HOURS))
    engine = Engine(most=5)
    try:
        found = simulate([often], [as_event(pending("sales")), late], now=BEGIN, asked=engine)
        again = simulate([often], [], now=BEGIN, until=timedelta(seconds=30), asked=engine)
    finally:
        engine.close()
    assert found.stopped
    assert found.until < BEGIN + timedelta(minutes=2)
    assert (len(found.events), found.automations[0].fires) == (1, True)
    assert not again.stopped


@pytest.mark.parametrize(
    ("call", "why"),
    [
        pytest.param(lambda: fires("told", []), "an automation is asked for", id="automation"),  # type: ignore[arg-type]
        pytest.param(lambda: fires(told(LOADED), loaded("sales")), "a list of events", id="one event"),  # type: ignore[arg-type]
        pytest.param(lambda: fires(told(LOADED), ["x"]), "event 1 is str", id="event"),  # type: ignore[list-item]
        pytest.param(lambda: fires(told(LOADED), [], until=6), "`until` is a timedelta", id="until"),  # type: ignore[arg-type]
        pytest.param(lambda: loaded("sales", at=6), "`at` is a timedelta", id="at"),  # type: ignore[arg-type]
        pytest.param(lambda: event("a", "r", at=datetime(2026, 1, 1)), "needs a time zone", id="zone"),  # noqa: DTZ001
        pytest.param(lambda: loaded(3), "is a name", id="dataset"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_automation_event_or_time_says_so(call: Callable[[], Any], why: str) -> None:
    """With a sentence, rather than from somewhere inside."""
    with pytest.raises(TypeError, match=why):
        call()


def test_what_does_not_fire_is_asserted_with_its_reason() -> None:
    """A test that expects another reason fails, and one that fires at all."""
    does_not_fire(told(LOADED), [pending("sales")], because="name")
    with pytest.raises(AssertionError, match="but because"):
        does_not_fire(told(LOADED), [pending("sales")], because="threshold")
    with pytest.raises(AssertionError, match="fires at"):
        does_not_fire(told(LOADED), [loaded("sales")])


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        pytest.param(arrived("sales"), "dataset", id="arrived"),
        pytest.param(arrived("sales", key="sales/a.csv"), "object", id="arrived alone"),
        pytest.param(pending("sales"), "dataset", id="pending"),
        pytest.param(loaded("sales", rows=3), "dataset", id="loaded"),
        pytest.param(quarantined("sales"), "object", id="quarantined"),
        pytest.param(lost("sales"), "object", id="lost"),
        pytest.param(accepted("github"), "source", id="accepted"),
    ],
)
def test_made_up_events_have_the_fields_of_real_ones(made: Any, kind: str) -> None:
    """Exactly those, of those types: a template that is tested with them meets what it will meet."""
    wanted = names.PAYLOADS[made.event][kind]
    types = {"integer": int, "string": str, "array": list}
    assert {field: type(value) for field, value in made.payload.items()} == {
        field: types[kind] for field, kind in wanted.items()
    }
    assert made.resource.id.startswith(f"penstock.test.{kind}.")
    related = [one.role for one in made.related]
    assert related == (["dataset"] if kind == "object" else [])


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("10min", 600), ("6h", 21_600), ("1h30m", 5400), ("2d", 172_800)]
)
def test_a_length_of_time_is_read(text: str, seconds: int) -> None:
    """In the units that people write."""
    assert span(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "6", "h", "6 hours", "-6h", "6h!", "999999999999d"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    """With an example."""
    with pytest.raises(ValueError, match=r"write it like|at most 36500d"):
        span(text)


def test_events_are_described_in_words() -> None:
    """A dataset's own with its fields over the usual ones, any other with its resource; each after the one before."""
    first, *three, other = described(
        [
            "loaded sales rows=3",
            "quarantined sales x3 +10s",
            "my.event resource=r related.owner=me label.k=1 n=2 t=x +1h",
        ],
        project="demo",
        begin=BEGIN,
    )
    assert (first["event"], first["payload"]["rows"]) == (names.DATASET_LOADED, 3)
    assert first["resource"]["prefect.resource.id"] == "penstock.demo.dataset.sales"
    offsets = [(datetime.fromisoformat(one["occurred"]) - BEGIN).total_seconds() for one in (*three, other)]
    assert offsets == [10, 20, 30, 3630]
    assert len({one["id"] for one in three}) == 3
    assert other["resource"] == {"prefect.resource.id": "r", "k": "1"}
    assert other["related"] == [{"prefect.resource.id": "me", "prefect.resource.role": "owner"}]
    assert other["payload"] == {"n": 2, "t": "x"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("loaded", "needs a dataset, such as: loaded sales"),
        ("my.event", "needs a resource, such as"),
        ("my.event what resource=r", "'what' is neither"),
        ("loaded sales +soon", "write it like"),
        ("loaded 'sales", "closing quotation"),
        ("laoded sales", "arrived, loaded, lost, pending, quarantined.*did you mean loaded"),
        ("loaded sales x0", "not between x1 and x100000"),
        ("loaded sales x100001", "not between x1 and x100000"),
        ("loaded sales x99999 +36500d", "beyond the end of all calendars"),
    ],
)
def test_a_description_that_is_wrong_says_why(text: str, why: str) -> None:
    """And quotes it."""
    with pytest.raises(DeclarationError, match=why) as raised:
        described([text], project="demo", begin=BEGIN)
    assert repr(text) in str(raised.value)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "no JSON"),
        ("[]", "an event is an object"),
        ('{"event": "a", "resource": {}}', "`occurred` is missing: an event is an object"),
        ('{"occurred": "2026-01-01T00:00:00Z"}', "`event` and `resource` are missing"),
        ('{"event": "a", "occurred": "2026-01-01T00:00:00Z", "resource": {}}', "resource"),
        ('{"event": "a", "occurred": "soon", "resource": {"prefect.resource.id": "r"}}', "occurred"),
    ],
)
def test_a_bad_line_names_the_file_and_the_line(tmp_path: Path, line: str, why: str) -> None:
    """And what is wrong with it."""
    good = json.dumps(loaded("sales").model_dump(mode="json"))
    path = tmp_path / "events.jsonl"
    path.write_text(f"{good}\n\n{line}\n")
    with pytest.raises(DeclarationError, match=why) as raised:
        from_lines(path)
    assert f"{path}:3: " in str(raised.value)
    # As some editors write it.
    path.write_text(f"\ufeff{good}\n\n{good}\n")
    assert len(from_lines(path)) == 2


def _ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    # Ended, and nobody has asked how.
    return state == "Z"


_COMPUTES = """
import threading, time
from datetime import timedelta
form = {"name": "x", "actions": [{"type": "do-nothing"}], "trigger": {"type": "event", "posture": "Proactive",
        "expect": ["a"], "threshold": 1, "within": 10}}
asked = {"start": now, "until": now + timedelta(days=7)}
threading.Thread(target=engine().ask, args=([form], []), kwargs=asked, daemon=True).start()
# Its process has the question when it has taken processor time for it.
used = lambda: int(open(f"/proc/{engine()._process.pid}/stat").read().rpartition(")")[2].split()[11])
begun = used()
while used() < begun + 20:
    time.sleep(0.01)
"""
_KILL, _TERM = "os.kill(os.getpid(), signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGTERM)"


@pytest.mark.parametrize(
    ("dying", "status"),
    [
        pytest.param(_KILL, -9, id="killed"),
        pytest.param(_TERM, -15, id="ended"),
        pytest.param(_COMPUTES + _KILL, -9, id="killed while it computes"),
        pytest.param("", 0, id="done"),
    ],
)
def test_the_engine_ends_with_whoever_asks(tmp_path: Path, dying: str, status: int) -> None:
    """However that ends, and leaves nothing behind."""
    code = (
        "import os, signal, sys\n"
        "from datetime import UTC, datetime\n"
        "from penstock.automations.engine import engine\n"
        "now = datetime.now(UTC)\n"
        "engine().ask([], [], start=now, until=now)\n"
        "print(engine()._process.pid, flush=True)\n"
        # A fork that ends takes nothing along.
        "fork = os.fork()\n"
        "if not fork: sys.exit()\n"
        "os.waitpid(fork, 0)\n"
        "assert engine()._home.is_dir()\n"
        "engine().ask([], [], start=now, until=now)\n"
        f"{dying}\n"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == status
    wait_for(lambda: _ended(int(done.stdout)), what="the engine's process ends")
    wait_for(lambda: not [*tmp_path.glob("penstock-simulate-*")], what="its folder is removed")


@pytest.mark.parametrize("printed", ["", "print('{\"endl', end='')"], ids=["nothing", "half an answer"])
def test_an_engine_whose_process_dies_while_it_answers_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str
) -> None:
    """With what it said last, and where its folder is gone, without."""
    code = tmp_path / "dying.py"
    monkeypatch.setattr("penstock.automations.engine._CODE", code)
    for more, said in (
        ("raise SystemExit('why')", "why"),
        ("import shutil; shutil.rmtree(sys.argv[2])", "it said nothing"),
    ):
        code.write_text(f"import sys; sys.stdin.readline(); {printed or 'pass'}; {more}")
        engine = Engine()
        try:
            with pytest.raises(PenstockError, match=f"process ended: {said}"):
                engine.ask([], [], start=BEGIN, until=BEGIN)
        finally:
            engine.close()


def test_an_engine_whose_process_died_says_so_and_starts_anew() -> None:
    """A question is not answered by nothing, and the next one is."""
    engine = Engine()
    try:
        engine.ask([], [], start=BEGIN, until=BEGIN)
        assert engine._process is not None
        engine._process.kill()
        engine._process.wait(10)
        with pytest.raises(Exception, match="process ended"):
            engine.ask([], [], start=BEGIN, until=BEGIN)
        assert engine.ask([], [], start=BEGIN, until=BEGIN).outcomes == ()
    finally:
        engine.close()


def test_importing_the_test_helpers_does_not_import_prefect() -> None:
    """The doubles beside them are used by what must start quickly."""
    code = "import sys, penstock.testing; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
