"""What automations did, why one could not act, and one made by hand as code: on a real Prefect server."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from penstock import events
from penstock.automations.server import ServerAutomation, read_server
from penstock.cli.failed_actions import failed_actions
from penstock.cli.import_ import choose, written
from penstock.errors import DeclarationError
from penstock.model import State
from penstock.outbox.prefect_history import EXECUTED, FAILED, TRIGGERED, PrefectHistory
from tests.integration.prefect_parts import PROJECT, PrefectParts, prefect_parts
from tests.real_store import real_store
from tests.waiting import wait_for

GO = "made.up.go"
OWN = [f"penstock:{PROJECT}"]
NOTHING = [{"type": "do-nothing"}]
SALES = events.dataset_resource(PROJECT, "sales")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectParts]:
    """A server for all the tests here; each makes automations with names of its own."""
    with real_store("embedded") as store, prefect_parts(tmp_path_factory.mktemp("seeing"), store) as parts:
        parts.start_server()
        yield parts


def penstock(parts: PrefectParts, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a user has it."""
    return subprocess.run(
        [*parts.penstock, *arguments], env=parts.env, capture_output=True, text=True, timeout=90, check=False
    )


def told(parts: PrefectParts, *arguments: str) -> str:
    """What a command that succeeds prints."""
    done = penstock(parts, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_hand(parts: PrefectParts, name: str, **fields: Any) -> str:
    """An automation made on the server; its id."""
    trigger = {"type": "event", "posture": "Reactive", "expect": [GO], "threshold": 1, "within": 0}
    made = {"name": name, "trigger": trigger, "actions": NOTHING, "tags": [], **fields}
    return str(parts.ask("POST", "/automations/", made)["id"])


def when(event: str) -> dict[str, Any]:
    """A trigger for an event."""
    return {"type": "event", "posture": "Reactive", "expect": [event], "threshold": 1, "within": 0}


def deployment(parts: PrefectParts, name: str) -> str:
    """A deployment `shop/name`; its id."""
    flow = parts.ask("POST", "/flows/", {"name": "shop"})
    return str(parts.ask("POST", "/deployments/", {"name": name, "flow_id": flow["id"]})["id"])


def post(parts: PrefectParts, event: str, *resources: dict[str, str]) -> None:
    """An event about each resource, now."""
    made = [
        {
            "id": str(uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": event,
            "resource": resource,
            "related": [],
            "payload": {},
        }
        for resource in resources
    ]
    answer = parts.answer("POST", "/events", made)
    assert answer.is_success, answer.text


def lines(parts: PrefectParts, *options: str) -> dict[str, dict[str, Any]]:
    """What `penstock automations --json` says, by name."""
    return {line["name"]: line for line in json.loads(told(parts, "automations", "--json", *options))}


def until_counted(parts: PrefectParts, event: str, automation: str, number: int = 1) -> None:
    """Wait until the server has stored so many events of the automation."""
    server = history(parts)
    since, until = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)

    def counted() -> bool:
        found = server.counts(event, since=since, until=until)
        return automation in found and found[automation].count >= number

    try:
        wait_for(counted, seconds=60, what=f"{number} {event} of {automation}; {parts.log('server')}")
    finally:
        server.close()


def history(parts: PrefectParts) -> PrefectHistory:
    """Questions to the server."""
    user, password = parts._auth
    return PrefectHistory(parts.url, f"{user}:{password}")


def failing(parts: PrefectParts, name: str, event: str, tags: list[str] | None = None) -> str:
    """An automation that runs a deployment which was deleted since; its id."""
    doomed = deployment(parts, f"doomed-{uuid4().hex}")
    action = {"type": "run-deployment", "source": "selected", "deployment_id": doomed}
    made = by_hand(parts, name, actions=[action], trigger=when(event), tags=tags or OWN)
    answer = parts.answer("DELETE", f"/deployments/{doomed}")
    assert answer.is_success, answer.text
    return made


def test_what_automations_did(parts: PrefectParts) -> None:
    """Fired, acted, failed and why: for each of the project's automations, and with --all for every one."""
    works = by_hand(parts, "demo: works", tags=OWN)
    fails = failing(parts, "demo: fails", GO)
    by_hand(parts, "demo: paused", tags=OWN, enabled=False)
    by_hand(parts, "nobody's", trigger=when("never"))
    by_hand(parts, "theirs", trigger=when("never"), tags=["penstock:other"])
    before = datetime.now(UTC)
    post(parts, GO, {"prefect.resource.id": "made.up.1"}, {"prefect.resource.id": "made.up.2"})
    until_counted(parts, FAILED, fails, 2)
    until_counted(parts, EXECUTED, works, 2)
    found = lines(parts)
    assert found["demo: works"]["acted"] == 2
    assert {"theirs", "nobody's"}.isdisjoint(found)
    assert (found["demo: works"]["id"], found["demo: works"]["enabled"], found["demo: works"]["owner"]) == (
        works,
        True,
        PROJECT,
    )
    assert (found["demo: works"]["failed"], found["demo: works"]["reason"]) == (0, None)
    assert before < datetime.fromisoformat(found["demo: works"]["last_fired"]) < datetime.now(UTC)
    assert (found["demo: fails"]["acted"], found["demo: fails"]["failed"]) == (0, 2)
    assert "404" in found["demo: fails"]["reason"]
    paused = found["demo: paused"]
    assert (paused["enabled"], paused["last_fired"], paused["acted"], paused["failed"]) == (False, None, 0, 0)
    everyone = lines(parts, "--all")
    assert (everyone["theirs"]["owner"], everyone["nobody's"]["owner"]) == ("other", None)
    shown = told(parts, "automations", "--all")
    assert "demo: fails could not act: Unexpected status from 'run-deployment' action: 404" in shown
    for words in (("demo: paused", "paused", "this project"), ("theirs", "enabled", "other"), ("nobody's", "nobody")):
        assert any(all(word in line for word in words) for line in shown.splitlines()), shown


def test_more_failures_than_fit_on_a_page(parts: PrefectParts) -> None:
    """Every failed action is counted and read, whatever the size of a page."""
    infers = [{"type": "pause-deployment", "source": "inferred"}]
    many = by_hand(parts, "demo: fails often", actions=infers, trigger=when("made.up.often"))
    since = datetime.now(UTC) - timedelta(seconds=1)
    post(parts, "made.up.often", *({"prefect.resource.id": f"made.up.{number}"} for number in range(60)))
    until_counted(parts, FAILED, many, 60)
    server = history(parts)
    try:
        until = datetime.now(UTC) + timedelta(minutes=1)
        found = server.failures(since=since, until=until)
        assert [one.automation_id for one in found.actions].count(many) == 60
        assert found.complete
        causes = {one.cause["resource"]["prefect.resource.id"] for one in found.actions if one.cause}
        assert {f"made.up.{number}" for number in range(60)} <= causes
        some = server.failures(since=since, until=until, most=55)
        assert (len(some.actions), some.complete) == (55, False)
        assert [one.at for one in some.actions] == sorted(one.at for one in some.actions)
        last = server.last_failures(since=since, until=until)
        assert [one.automation_id for one in last.actions].count(many) == 1
        assert max(one.at for one in found.actions if one.automation_id == many) in {one.at for one in last.actions}
        assert server.counts(TRIGGERED, since=since, until=until)[many].count == 60
    finally:
        server.close()


def test_why_names_the_automation_that_could_not_act(parts: PrefectParts) -> None:
    """An object that waited when the action failed tells so; one that came later, or of another project, does not."""
    name = "demo: [sales] on arrival"
    fails = failing(parts, name, events.DATASET_PENDING)
    parts.arrive("sales/waited.csv")
    post(parts, events.DATASET_PENDING, {**SALES, "prefect.resource.id": "penstock.other.dataset.sales"})
    until_counted(parts, FAILED, fails)
    assert json.loads(told(parts, "why", "--json", "sales/waited.csv"))[0]["failed_actions"] == []
    post(parts, events.DATASET_PENDING, SALES)
    until_counted(parts, FAILED, fails, 2)
    parts.arrive("sales/later.csv")
    (story,) = json.loads(told(parts, "why", "--json", "sales/waited.csv"))
    (failed,) = story["failed_actions"]
    assert (failed["automation"], failed["action"]) == (name, "run-deployment")
    assert "404" in failed["reason"]
    assert datetime.fromisoformat(failed["at"]) > datetime.fromisoformat(story["arrived_at"])
    assert f"automation '{name}' could not act: Unexpected status from 'run-deployment'" in told(
        parts, "why", "sales/waited.csv"
    )
    assert json.loads(told(parts, "why", "--json", "sales/later.csv"))[0]["failed_actions"] == []
    assert "could not act" not in told(parts, "why", "sales/later.csv")


def test_why_does_not_wait_for_prefect(parts: PrefectParts) -> None:
    """A server that is silent costs about a second and one line; the story is told all the same."""
    parts.arrive("sales/silence.csv")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        settings = parts.settings().model_copy(update={"prefect_api_url": url})
        ledger = parts.ledger()
        try:
            stories = ledger.facts.stories("sales/silence.csv")
        finally:
            ledger.close()
        began = time.monotonic()
        found = failed_actions(settings, stories, datetime.now(UTC))
        assert time.monotonic() - began < 3
        assert not found.asked
        assert found.note is not None
        env = {**parts.env, "PENSTOCK_PREFECT_API_URL": url}
        done = subprocess.run(
            [*parts.penstock, "why", "sales/silence.csv"],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert State.PENDING.value in done.stdout
    assert "Prefect not asked: " in done.stdout


@pytest.mark.slow
@pytest.mark.long
def test_an_automation_made_by_hand_becomes_code(parts: PrefectParts) -> None:
    """`import` writes it as a file that plans as unchanged, and never over another file."""
    deployment(parts, "nightly")
    (found,) = [one for one in parts.ask("POST", "/deployments/filter", {}) if one["name"] == "nightly"]
    name = "demo: by hand"
    one = {**when("made.up.a"), "match": {"prefect.resource.id": "penstock.demo.dataset.sales"}, "for_each": ["b", "a"]}
    by_hand(
        parts,
        name,
        description="Made in the browser.",
        enabled=False,
        tags=["z", "a"],
        trigger={"type": "compound", "require": "all", "within": 3600, "triggers": [one, when("made.up.b")]},
        actions=[
            {"type": "run-deployment", "source": "selected", "deployment_id": found["id"], "parameters": {"n": 1}},
            {"type": "run-deployment", "source": "selected", "deployment_id": found["id"], "parameters": {}},
            {"type": "pause-deployment", "source": "inferred"},
        ],
    )
    try:
        assert told(parts, "import", name) == "automations/by_hand.py declares 'demo: by hand'.\n"
        code = (parts.folder / "automations" / "by_hand.py").read_text()
        assert 'run_deployment("shop/nightly", n=1)' in code
        planned = penstock(parts, "plan", "--json")
        assert planned.returncode == 0, planned.stderr
        assert name not in [change["name"] for change in json.loads(planned.stdout)["changes"]]
        again = penstock(parts, "import", name)
        assert (again.returncode, again.stdout) == (2, "")
        assert "automations/by_hand.py declares 'demo: by hand' already" in again.stderr
        (parts.folder / "automations" / "by_hand.py").unlink()
        taken = parts.folder / "automations" / "arrival.py"
        before = taken.read_text()
        over = penstock(parts, "import", name, "--to", "automations/arrival.py")
        assert over.returncode == 2
        assert "automations/arrival.py exists and is not overwritten" in over.stderr
        assert taken.read_text() == before
        assert told(parts, "import", name, "--stdout") == code
    finally:
        (parts.folder / "automations" / "by_hand.py").unlink(missing_ok=True)


def test_what_cannot_be_imported(parts: PrefectParts) -> None:
    """No such name, several of it, another project's, and one that acts on what is gone: each says what to do."""
    first, second = by_hand(parts, "twins", trigger=when("never")), by_hand(parts, "twins", trigger=when("never"))
    by_hand(parts, "owned elsewhere", trigger=when("never"), tags=["penstock:elsewhere"])
    failing(parts, "acts on nothing", "never", tags=["x"])
    there = read(parts)
    for name, chosen, words in (
        ("twin", None, ["no automation 'twin'", "near: 'twins'"]),
        ("twins", None, ["2 automations 'twins'", f"--id {first}  (enabled, owned by no project)", f"--id {second}"]),
        ("twins", str(uuid4()), ["no automation 'twins' with the id"]),
        ("owned elsewhere", None, ["belongs to the project 'elsewhere'"]),
        ("acts on nothing", None, ["'acts on nothing' has an action run-deployment for a deployment", "(gone)"]),
    ):
        with pytest.raises(DeclarationError) as refused:
            written(choose(there, name, chosen, project=PROJECT), PROJECT)
        for word in words:
            assert word in str(refused.value)
    assert choose(there, "twins", second, project=PROJECT).id == second
    assert choose(there, None, first, project=PROJECT).id == first
    assert f"{first}  twins  (enabled, owned by no project)" in told(parts, "import", "--list").splitlines()
    elsewhere = penstock(parts, "import", "twins", "--to", "flows/x.py")
    assert (elsewhere.returncode, elsewhere.stdout) == (2, "")
    assert "flows/x.py would not be loaded" in elsewhere.stderr


def read(parts: PrefectParts) -> Sequence[ServerAutomation]:
    """What the server has, read as `import` does."""

    async def reading() -> Sequence[ServerAutomation]:
        async with get_client() as client:
            return (await read_server(client)).automations

    user, password = parts._auth
    with temporary_settings({PREFECT_API_URL: parts.url, PREFECT_API_AUTH_STRING: f"{user}:{password}"}):
        return asyncio.run(reading())
