"""plan, apply and prune against a real Prefect server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from penstock.cli.planning import Planned, carry_out, leaving_out, make_plan
from penstock.errors import ServerChanged
from penstock.plan import NO_BLOCK, Change
from penstock.settings import Settings, load_settings
from tests.integration.prefect_parts import PrefectParts, prefect_parts
from tests.real_store import real_store
from tests.waiting import wait_for

_Result = TypeVar("_Result")

_BLOCKS = """
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook
SlackWebhook(url="https://example.com/x").save("ops")
Webhook(url="https://example.com/y").save("pager")
"""

EVERYTHING = """
from datetime import timedelta
from prefect.events import CompoundTrigger, EventTrigger, SequenceTrigger
from prefect.events.actions import (
    CancelFlowRun, ChangeFlowRunState, DeleteFlowRun, DoNothing, PauseDeployment, ResumeFlowRun, SuspendFlowRun,
)
from prefect.events.schemas.automations import Posture
from penstock import Automation, on_arrival, run_deployment
from penstock.automations.define import (
    call_webhook, notify, pause_automation, pause_deployment, pause_work_pool, pause_work_queue, resume_automation,
    resume_deployment, resume_work_pool, resume_work_queue, run_deployment_with,
)

when = EventTrigger(expect={"made.up.*"}, match={"prefect.resource.id": "made.up.{project}"})
AUTOMATIONS = [
    on_arrival("sales"),
    Automation(name="{project}: all actions", trigger=when, enabled=False, tags=["z", "a"], description="d", actions=[
        CancelFlowRun(), DeleteFlowRun(), SuspendFlowRun(), ResumeFlowRun(), DoNothing(),
        ChangeFlowRunState(state="FAILED", name="Late", message="m"),
        PauseDeployment(source="inferred"),
        run_deployment("ingest/{project}.sales", dataset="{{ event.resource.id }}"),
        run_deployment_with("verify/{project}", schedule_after=timedelta(minutes=5)),
        pause_deployment("verify/{project}"), resume_deployment("verify/{project}"),
        pause_work_pool("{project}"), resume_work_pool("{project}"),
        pause_work_queue("{project}/default"), resume_work_queue("{project}/default"),
        notify("slack-webhook/ops", body="b", subject="s"), call_webhook("webhook/pager", payload="p"),
        pause_automation("{project}: all actions"), resume_automation("{project}: sales on arrival"),
    ]),
    Automation(name="{project}: counts", actions=[DoNothing()], trigger=EventTrigger(
        expect={"made.up.b", "made.up.a"}, match={"prefect.resource.id": "made.up.{project}.counts"}, threshold=2,
        within=timedelta(hours=1), for_each={"prefect.resource.id", "x"})),
    Automation(name="{project}: silence", actions=[DoNothing()], trigger=EventTrigger(
        expect={"made.up.a"}, after={"made.up.b"}, posture=Posture.Proactive, within=timedelta(hours=6),
        match={"prefect.resource.id": "made.up.{project}"},
        match_related=[{"prefect.resource.role": "flow"}, {"prefect.resource.id": ["x", "y"]}])),
    Automation(name="{project}: several", actions=[], actions_on_trigger=[DoNothing()], trigger=CompoundTrigger(
        require=2, within=timedelta(minutes=10), triggers=[when, when, SequenceTrigger(triggers=[when, when])])),
]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectParts]:
    folder = tmp_path_factory.mktemp("plan")
    with real_store("embedded") as store, prefect_parts(folder, store) as parts:
        parts.start_server()
        # In a process of its own: what it imports warns.
        made = subprocess.run([sys.executable, "-c", _BLOCKS], env=parts.client_env(), capture_output=True, check=False)
        assert made.returncode == 0, made.stderr
        yield parts


class Project:
    """A project of its own on the server that all share."""

    def __init__(self, server: PrefectParts, folder: Path, name: str) -> None:
        self.server, self.folder, self.name = server, folder, name
        (folder / "flows").mkdir(parents=True)
        (folder / "automations").mkdir()
        (folder / "flows" / "sales.py").write_text('from penstock import Dataset\n\nDATASET = Dataset(name="sales")\n')

    def declare(self, text: str) -> None:
        """What its automations are now."""
        (self.folder / "automations" / "all.py").write_text(text)

    @property
    def settings(self) -> Settings:
        """Its settings."""
        return load_settings(self.folder, project=self.name, home=self.folder / ".penstock")

    def work(self, work: Callable[[PrefectClient], Coroutine[Any, Any, _Result]]) -> _Result:
        """Work with a client of the server, in this process."""

        async def working() -> _Result:
            async with get_client() as client:
                return await work(client)

        user, password = self.server._auth
        asked = {PREFECT_API_URL: self.server.url, PREFECT_API_AUTH_STRING: f"{user}:{password}"}
        with temporary_settings(asked), fresh_imports():
            return asyncio.run(working())

    def plan(self, *, prune: bool = False) -> Planned:
        """What applying would do."""
        return self.work(lambda client: make_plan(client, self.settings, prune=prune))

    def apply(self, *, prune: bool = False) -> Planned:
        """Plan it and carry it out."""
        planned = self.plan(prune=prune)
        self.carry_out(planned)
        return planned

    def carry_out(self, planned: Planned, say: Callable[[Change], None] = lambda change: None) -> None:
        """Carry a plan out."""
        self.work(lambda client: carry_out(client, planned, say=say))

    def cli(self, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
        """The command line, as a user runs it; `before` is executed in its process first."""
        code = f"{before}\nfrom penstock.cli.main import main; main()"
        env = {**self.server.env, "PENSTOCK_PROJECT": self.name, "PENSTOCK_HOME": str(self.folder / ".penstock")}
        argv = [sys.executable, "-c", code, "--project", str(self.folder), *arguments]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)

    def there(self) -> dict[str, dict[str, Any]]:
        """The server's automations that are its own, by name."""
        found = self.server.ask("POST", "/automations/filter", {"limit": 200})
        return {one["name"]: one for one in found if f"penstock:{self.name}" in one["tags"]}


@contextmanager
def fresh_imports() -> Iterator[None]:
    """The project's files are imported as if for the first time, and leave no trace."""
    kept = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = kept
        for name in [name for name in sys.modules if name.split(".")[0] in ("flows", "automations")]:
            del sys.modules[name]


@pytest.fixture
def project(server: PrefectParts, tmp_path: Path) -> Project:
    return Project(server, tmp_path / "project", f"p{uuid4().hex[:8]}")


def kinds(planned: Planned) -> list[tuple[str, str]]:
    return [(change.kind, change.name) for change in planned.plan.to_do]


def one(trigger: str = 'EventTrigger(expect={"made.up"}, match={"prefect.resource.id": "x"})', **more: str) -> str:
    fields = "".join(f", {name}={value}" for name, value in more.items())
    return (
        "from prefect.events import EventTrigger\nfrom prefect.events.actions import DoNothing\n"
        "from penstock import Automation\n"
        f'AUTOMATIONS = [Automation(name="{{project}}: one", trigger={trigger}, actions=[DoNothing()]{fields})]\n'
    )


def test_after_apply_the_plan_is_empty(project: Project) -> None:
    """Whatever triggers and actions there are, what was applied is read back as equal."""
    project.declare(EVERYTHING)
    first = project.apply()
    assert first.plan.count("create") == 1 + 2 + 5
    again = project.plan()
    assert [(change.name, change.differences) for change in again.plan.to_do] == []
    assert project.there()[f"{project.name}: all actions"]["enabled"] is False


def test_a_flow_may_be_called_by_its_functions_name(project: Project) -> None:
    """Though Prefect gave it another; what was applied is read back as equal."""
    (project.folder / "flows" / "counting.py").write_text(
        "from prefect import flow\nfrom penstock import Dataset, Deployment\n\n\n@flow\ndef count_words(): pass\n\n\n"
        'DATASET = Dataset(name="notes")\nDEPLOYMENTS = [Deployment(flow=count_words, consumes="notes")]\n'
    )
    project.declare('from penstock import on_arrival\nAUTOMATIONS = [on_arrival("notes", flow="count_words")]\n')
    project.apply()
    assert [change.name for change in project.plan().plan.to_do] == []
    (action,) = project.there()[f"{project.name}: notes on arrival"]["actions"]
    assert action["type"] == "run-deployment"


def test_applying_again_keeps_ids_and_counts(project: Project) -> None:
    """A trigger that has counted one of two events still needs only one more after applying again."""
    project.declare(EVERYTHING)
    project.apply()
    before = project.there()
    resource = {"prefect.resource.id": f"made.up.{project.name}.counts", "x": "y"}
    post_event(project.server, "made.up.a", resource)
    project.apply()
    assert project.there() == before
    post_event(project.server, "made.up.b", resource)
    fired(project.server, before[f"{project.name}: counts"]["id"])


def test_what_was_changed_by_hand_is_shown_and_repaired(project: Project) -> None:
    """Drift names the fields, and applying puts them back, with the automation's id and its pause kept."""
    project.declare(one())
    project.apply()
    (there,) = project.there().values()
    change_by_hand(project.server, there, description="by hand")
    project.server.patch(f"/automations/{there['id']}", {"enabled": False})
    planned = project.plan()
    (change,) = planned.plan.to_do
    assert (change.kind, [found.path for found in change.differences]) == ("drift", ["description"])
    project.carry_out(planned)
    (now,) = project.there().values()
    assert (now["id"], now["description"], now["enabled"]) == (there["id"], "", False)
    assert kinds(project.plan()) == []


def test_a_change_of_the_code_is_an_update(project: Project) -> None:
    """An update keeps the id; a pause that the code names is made without touching the trigger."""
    project.declare(one())
    project.apply()
    (there,) = project.there().values()
    project.declare(one(enabled="False"))
    assert kinds(project.apply()) == [("update", f"{project.name}: one")]
    (paused,) = project.there().values()
    assert (paused["enabled"], paused["trigger"]) == (False, there["trigger"])
    project.declare(one(enabled="False", description="'new'"))
    assert kinds(project.apply()) == [("update", f"{project.name}: one")]
    (now,) = project.there().values()
    assert (now["id"], now["enabled"], now["description"]) == (there["id"], False, "new")
    assert kinds(project.plan()) == []


def test_pruning_deletes_only_what_is_owned(project: Project, server: PrefectParts, tmp_path: Path) -> None:
    """Another project's and nobody's stay; without --prune nothing goes."""
    other = Project(server, tmp_path / "other", f"{project.name}x")
    for one_project in (project, other):
        one_project.declare(EVERYTHING)
        one_project.apply()
    foreign = {**by_hand(project.there()[f"{project.name}: counts"]), "tags": []}
    foreign_id = server.ask("POST", "/automations/", foreign)["id"]
    project.declare(one())
    kept = project.apply()
    assert (kept.plan.count("delete"), len(kept.plan.kept), len(project.there())) == (0, 5, 6)
    assert project.plan(prune=True).plan.brakes
    project.apply(prune=True)
    assert list(project.there()) == [f"{project.name}: one"]
    assert len(other.there()) == 5
    assert server.ask("GET", f"/automations/{foreign_id}")["name"] == foreign["name"]
    assert kinds(other.plan()) == []


def test_a_deployment_that_nothing_declares_is_pruned(project: Project) -> None:
    """A dataset that is gone takes its deployment with it, once that is asked for."""
    second = project.folder / "flows" / "weather.py"
    second.write_text('from penstock import Dataset\n\nDATASET = Dataset(name="weather")\n')
    project.declare(one())
    project.apply()
    second.unlink()
    assert kinds(project.plan()) == []
    gone = f"ingest/{project.name}.weather"
    assert kinds(project.apply(prune=True)) == [("delete", gone)]
    assert project.server.answer("GET", f"/deployments/name/{gone}").status_code == httpx.codes.NOT_FOUND


def test_a_server_that_changed_since_the_plan_is_left_alone(project: Project) -> None:
    """What is not as it was when planned is not overwritten, created a second time or deleted."""
    project.declare(one())
    planned = project.plan()
    project.carry_out(planned)
    with pytest.raises(ServerChanged, match=r"was (changed|created) since the plan"):
        project.carry_out(planned)
    assert len(project.there()) == 1
    (there,) = project.there().values()
    project.declare(one(description="'new'"))
    update = project.plan()
    project.declare("AUTOMATIONS = []\n")
    delete = project.plan(prune=True)
    change_by_hand(project.server, there, description="by hand")
    for stale in (update, delete):
        with pytest.raises(ServerChanged, match="was changed since the plan"):
            project.carry_out(stale)
    assert project.there()[f"{project.name}: one"]["description"] == "by hand"


def test_what_a_declared_automation_refers_to_is_not_pruned_away(project: Project) -> None:
    """A deployment that goes is none for the lint, so that nothing is left that acts on what is gone."""
    weather = project.folder / "flows" / "weather.py"
    weather.write_text('from penstock import Dataset\n\nDATASET = Dataset(name="weather")\n')
    runs = one().replace("DoNothing()", 'run_deployment("ingest/{project}.weather")')
    project.declare(runs.replace("import Automation", "import Automation, run_deployment"))
    project.apply()
    weather.unlink()
    assert project.plan().plan.errors == []
    assert [found.rule for found in project.plan(prune=True).plan.errors] == ["unresolved"]


def test_an_automation_without_its_block_keeps_no_other_away(project: Project) -> None:
    """`up` leaves it out, which is a warning then, and makes all that is declared besides."""
    tells = one().replace("DoNothing()", 'notify("slack-webhook/later", body="x")')
    project.declare(tells.replace("import Automation", "import Automation, notify"))
    (project.folder / "automations" / "more.py").write_text(
        "from penstock import on_arrival, on_loaded, pause_automation\n"
        'AUTOMATIONS = [on_arrival("sales"), on_loaded("sales", pause_automation("{project}: one"), name="mute")]\n'
    )
    planned = project.plan()
    assert [found.rule for found in planned.plan.errors] == ["no-block"]
    left = leaving_out(planned, NO_BLOCK)
    assert {(found.rule, found.severity) for found in left.plan.findings} == {("no-block", "warning")}
    project.carry_out(left)
    assert not [name for name in project.there() if name.endswith((": one", "mute"))]
    assert len(project.plan().plan.to_do) == 2


def test_what_an_operator_gave_a_deployment_stays(project: Project) -> None:
    """An update changes what the plan shows: a limit, a paused schedule and a queue are the operator's."""
    (project.folder / "flows" / "sales.py").write_text(
        "from datetime import timedelta\nfrom penstock import Dataset\n\n"
        'DATASET = Dataset(name="sales", every=timedelta(hours=1), cron=("0 3 * * *",))\n'
    )
    project.declare("AUTOMATIONS = []\n")
    project.apply()
    name = f"/deployments/name/ingest/{project.name}.sales"
    before = project.server.ask("GET", name)
    (hourly,) = [found for found in before["schedules"] if "interval" in found["schedule"]]
    project.server.patch(f"/deployments/{before['id']}", {"concurrency_limit": 3, "description": "by hand"})
    project.server.patch(f"/deployments/{before['id']}/schedules/{hourly['id']}", {"active": False})
    by_hand_too = {"schedule": {"rrule": "FREQ=DAILY", "timezone": "UTC"}, "active": True}
    assert project.server.answer("POST", f"/deployments/{before['id']}/schedules", [by_hand_too]).is_success
    planned = project.apply()
    (change,) = planned.plan.to_do
    assert [found.path for found in change.differences] == ["description", "schedules"]
    now = project.server.ask("GET", name)
    assert now["global_concurrency_limit"]["limit"] == 3
    assert {found["id"]: found["active"] for found in now["schedules"]} == {
        found["id"]: found["id"] != hourly["id"] for found in before["schedules"]
    }
    assert kinds(project.plan()) == []


def test_a_namesake_of_somebody_else_is_left_alone_and_not_meant(project: Project) -> None:
    """Beside the project's own a foreign one of that name blocks nothing, and no action by name acts on it."""
    own = one().replace("DoNothing()", 'pause_automation("{project}: one")')
    project.declare(own.replace("import Automation", "import Automation, pause_automation"))
    project.apply()
    (there,) = project.there().values()
    foreign = project.server.ask("POST", "/automations/", {**by_hand(there), "tags": []})
    assert (kinds(project.plan()), project.plan().plan.errors) == ([], [])
    project.declare(own.replace("import Automation", "import Automation, pause_automation").replace("made.up", "other"))
    project.apply()
    (now,) = project.there().values()
    assert now["actions"][0]["automation_id"] == there["id"]
    assert project.server.ask("GET", f"/automations/{foreign['id']}")["updated"] == foreign["updated"]


def test_an_answer_that_is_lost_makes_no_second_one(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's client sends a creation again when its answer is lost; one automation is left."""
    project.declare(one())
    lost: list[str] = []

    def lose(request: httpx.Request) -> None:
        if request.url.path.endswith("/automations/") and not lost:
            lost.append(request.url.path)
            raise httpx.ReadError("lost", request=request)

    with sending(monkeypatch, lambda request: None, lose):
        project.apply()
    assert lost
    found = project.server.ask("POST", "/automations/filter", {"limit": 200})
    assert len([one for one in found if one["name"] == f"{project.name}: one"]) == 1
    assert kinds(project.plan(prune=True)) == []


class Cut(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(
    "ways",
    [
        pytest.param(lambda number: [number % 2 == 0], id="one way each", marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param(lambda number: [False, True], id="both ways", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_cut_at_any_request_applying_again_completes_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, ways: Callable[[int], list[bool]]
) -> None:
    """Wherever it is cut, before a request arrives or before its answer does, the next apply ends as declared."""
    project.declare(EVERYTHING)
    writes = count_writes(monkeypatch, project.apply)
    assert writes >= 1 + 2 * 2 + 5
    project.apply()
    declared = {name: by_hand(found) for name, found in project.there().items()}
    for number in range(writes):
        for arrived in ways(number):
            forget(project)
            with cut(monkeypatch, number, arrived=arrived), pytest.raises(Cut):
                project.apply()
            project.apply()
            assert kinds(project.plan()) == []
            now = {name: by_hand(found) for name, found in project.there().items()}
            assert [sans_ids(one) for one in now.values()] == [sans_ids(one) for one in declared.values()]
            found = project.server.ask("POST", "/automations/filter", {"limit": 200})
            assert len([one for one in found if f"penstock:{project.name}" in one["tags"]]) == 5


@pytest.mark.slow
@pytest.mark.long
def test_killed_while_applying_the_next_completes_it(project: Project) -> None:
    """Kill -9 in the middle of the command leaves nothing that the next does not mend."""
    project.declare(EVERYTHING)
    kill = (
        "import httpx, os, signal\nsend, seen = httpx.AsyncClient.send, []\n"
        "async def counted(self, request, **kw):\n"
        "    answer = await send(self, request, **kw)\n"
        "    if request.url.path.endswith('/automations/'):\n"
        "        seen.append(1)\n"
        "        if len(seen) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return answer\n"
        "httpx.AsyncClient.send = counted\n"
    )
    assert project.cli("apply", before=kill).returncode == -9
    assert len(project.there()) == 3
    done = project.cli("apply")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Plan: 2 to add, 0 to change, 0 to delete" in done.stdout
    assert project.cli("plan", "--detailed-exitcode").returncode == 0


def test_the_commands(project: Project) -> None:
    """Plan prints and ends as promised, a kept plan is applied or refused, and deleting asks and brakes."""
    project.declare(one())
    shown = project.cli("plan", "--detailed-exitcode")
    assert shown.returncode == 2
    assert f"+ create  automation {project.name}: one" in shown.stdout
    assert "Plan: 4 to add, 0 to change, 0 to delete" in shown.stdout
    assert "\x1b" not in shown.stdout
    kept = project.folder / "plan.json"
    assert project.cli("plan", "--out", str(kept)).returncode == 0
    assert json.loads(kept.read_text())["digest"] == project.plan().plan.digest
    assert project.cli("apply", str(kept)).returncode == 0
    stale = project.cli("apply", str(kept))
    assert stale.returncode == 1
    assert "is not what would be done now" in stale.stderr
    project.declare("AUTOMATIONS = []\n")
    asks = project.cli("apply", "--prune", "--force")
    assert (asks.returncode, "nobody to ask: give --yes" in asks.stderr) == (1, True)
    assert len(project.there()) == 1
    brakes = project.cli("apply", "--prune", "--yes")
    assert (brakes.returncode, "more than 30%" in brakes.stderr) == (1, True)
    assert len(project.there()) == 1
    assert project.cli("apply", "--prune", "--yes", "--force").returncode == 0
    assert project.there() == {}


@pytest.mark.slow
@pytest.mark.long
def test_three_hundred_are_planned_quickly_and_unchanged_without_a_write(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one page of automations plans in under 5 s, and applying what is equal writes nothing."""
    project.declare(
        one() + "\nfrom dataclasses import replace\n"
        'AUTOMATIONS = [replace(AUTOMATIONS[0], name=f"{{project}}: {n:03}") for n in range(300)]\n'
    )
    project.apply()
    began = time.monotonic()
    planned = project.plan()
    took = time.monotonic() - began
    assert planned.plan.count("unchanged") == 300 + 1 + 2
    assert count_writes(monkeypatch, project.apply) == 0
    assert took < 5


# What the tests are made of


def post_event(server: PrefectParts, name: str, resource: dict[str, str]) -> None:
    event = {
        "event": name,
        "resource": resource,
        "id": str(uuid4()),
        "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    answer = server.answer("POST", "/events", [event])
    assert answer.is_success, answer.text


def fired(server: PrefectParts, automation: str) -> None:
    """Wait until the automation has fired."""
    wanted = {
        "filter": {
            "event": {"name": ["prefect.automation.triggered"]},
            "resource": {"id": [f"prefect.automation.{automation}"]},
        }
    }
    wait_for(lambda: server.ask("POST", "/events/filter", wanted)["events"], seconds=30, what="it fires")


def by_hand(found: dict[str, Any]) -> dict[str, Any]:
    """An automation as somebody sends it back."""
    fields = (
        "name",
        "description",
        "enabled",
        "tags",
        "trigger",
        "actions",
        "actions_on_trigger",
        "actions_on_resolve",
    )
    return {name: found[name] for name in fields}


def sans_ids(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: sans_ids(value) for name, value in found.items() if not name.endswith("id") and name != "id"}
    return [sans_ids(one) for one in found] if isinstance(found, list) else found


def change_by_hand(server: PrefectParts, found: dict[str, Any], **fields: Any) -> None:
    answer = server.answer("PUT", f"/automations/{found['id']}", {**by_hand(found), **fields})
    assert answer.is_success, answer.text


def forget(project: Project) -> None:
    """The server has nothing of the project."""
    for found in project.there().values():
        assert project.server.answer("DELETE", f"/automations/{found['id']}").is_success
    deployments = project.server.ask("POST", "/deployments/filter", {"limit": 200})
    for found in deployments:
        if f"penstock:{project.name}" in found["tags"]:
            assert project.server.answer("DELETE", f"/deployments/{found['id']}").is_success
    project.server.answer("DELETE", f"/work_pools/{project.name}")


READS = ("/filter", "/count")


def is_write(request: httpx.Request) -> bool:
    return request.method != "GET" and not request.url.path.endswith(READS)


def count_writes(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    seen: list[str] = []
    with sending(monkeypatch, lambda request: seen.append(request.url.path), lambda request: None):
        work()
    return len(seen)


@contextmanager
def cut(monkeypatch: pytest.MonkeyPatch, number: int, *, arrived: bool) -> Iterator[None]:
    """The write of that number is the last; `arrived` tells whether it reaches the server."""
    seen: list[str] = []

    def before(request: httpx.Request) -> None:
        seen.append(request.url.path)
        if len(seen) == number + 1 and not arrived:
            raise Cut

    def after(request: httpx.Request) -> None:
        if len(seen) == number + 1 and arrived:
            raise Cut

    with sending(monkeypatch, before, after):
        yield


@contextmanager
def sending(
    monkeypatch: pytest.MonkeyPatch,
    before: Callable[[httpx.Request], object],
    after: Callable[[httpx.Request], object],
) -> Iterator[None]:
    real = httpx.AsyncHTTPTransport.handle_async_request

    async def handle(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        if not is_write(request):
            return await real(self, request)
        before(request)
        response = await real(self, request)
        after(request)
        return response

    with monkeypatch.context() as patched:
        patched.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle)
        yield
