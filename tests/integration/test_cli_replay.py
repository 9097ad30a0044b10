"""`penstock replay` and `penstock quarantine` on a real project folder and a real ledger."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import update

from penstock.cli.main import cli
from penstock.cli.replay import who
from penstock.declarations import Dataset
from penstock.ledger import Ledger
from penstock.ledger.arrivals import FileMark, Seen
from penstock.ledger.facts import Story
from penstock.ledger.tables import objects
from penstock.model import Delivery, ObjectRef, Outcome, Stat, State, Via
from penstock.warehouse.duckdb import DuckDBWarehouse
from tests.conformance.warehouses import part
from tests.loading import another_project

RUN = "0f9d0b3e-6a0c-4b86-9d4e-2f8f6c9b1a11"
PREFECT = "http://127.0.0.1:4200"
SALES = Dataset(name="sales")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the machine's own, and each test's declarations are importable in that test only."""
    for name in list(os.environ):
        if name.startswith("PENSTOCK_"):
            monkeypatch.delenv(name)
    with another_project():
        yield


class Desk:
    """A project with the dataset `sales`, its ledger, and the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "flows").mkdir()
        (folder / "flows" / "sales.py").write_text(
            'from penstock import Dataset\nDATASET = Dataset(name="sales")\n', encoding="utf-8"
        )
        (folder / ".env").write_text(f"PENSTOCK_PREFECT_API_URL={PREFECT}/api\nPENSTOCK_PROJECT=desk\n")
        self.now = datetime.now(UTC)
        self.ledger = Ledger(f"sqlite:///{folder / '.penstock' / 'ledger.db'}", project="desk", clock=lambda: self.now)
        self.ledger.migrate(lock_folder=folder / ".penstock")

    def deliver(self, source: str, delivery: str, *, dataset: str) -> None:
        """Record a delivery, in an envelope of its own."""
        key = f"_penstock/deliveries/{source}.ndjson"
        found = Delivery(
            id=delivery, source=source, dataset=dataset, received_at=self.now, content_type="", headers={}, body=b"{}"
        )
        stat = Stat(bucket="landing", key=key, etag="e", size=3, modified=self.now)
        self.ledger.deliveries.record("landing", key, stat, {1: found}, Via.WEBHOOK)

    def arrive(self, *keys: str, dataset: Dataset | None = SALES, etag: str = "a") -> None:
        """Record objects."""
        seen = [
            Seen(stat=Stat(bucket="landing", key=key, etag=etag, size=3, modified=self.now), dataset=dataset)
            for key in keys
        ]
        assert self.ledger.arrivals.record(seen, Via.BUCKET) == (len(keys) if dataset else 0)

    def end(self, state: State, reason: str | None = None, rejected: int = 0) -> list[ObjectRef]:
        """What is pending is claimed and ends so."""
        lease = self.ledger.work.acquire("sales", holder="x", ttl=timedelta(seconds=30))
        assert lease is not None
        refs = self.ledger.work.claim(lease, run=RUN, max_objects=10_000, max_bytes=10**9)
        outcomes = [Outcome(ref=ref, state=state, rows=2, rejected=rejected, reason=reason) for ref in refs]
        self.ledger.work.settle(lease, outcomes, run=RUN)
        assert self.ledger.work.finish(lease)
        return refs

    def run(self, *words: str) -> Result:
        """One command."""
        return CliRunner(env={"COLUMNS": "120"}).invoke(cli, ["--project", str(self.folder), *words])

    def facts(self, *words: str, code: int = 0) -> Any:
        """What a command says with --json."""
        result = self.run(*words, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def states(self) -> dict[str, State]:
        """The state of each object, by key."""
        stories: list[Story] = [s for state in State for s in self.ledger.facts.by_state(state, limit=10_000)]
        return {story.key: story.state for story in stories}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.ledger.close()


def test_from_quarantine_to_pending(desk: Desk) -> None:
    """`ls` names what waits and why, `show` its runs with links, `replay` puts it back and says what is next."""
    desk.arrive("sales/a.csv", "sales/b.csv")
    desk.end(State.QUARANTINED, "[3 of 4] rows are bad")
    listed = desk.run("quarantine", "ls")
    assert listed.exit_code == 0
    for word in ("sales/a.csv", "sales/b.csv", "[3 of 4] rows are bad", "penstock quarantine show"):
        assert word in listed.output.replace("\n", " ")
    shown = desk.run("quarantine", "show", "sales/a.csv")
    assert shown.exit_code == 0
    assert f"{PREFECT}/runs/flow-run/{RUN}" in shown.output
    assert "in quarantine since" in shown.output
    assert "[3 of 4] rows are bad" in shown.output

    done = desk.run("quarantine", "replay", "sales/a.csv")
    assert (done.exit_code, done.stderr) == (0, "Next: penstock status\n")
    assert done.stdout == "replayed: 1 of sales (landing/sales/a.csv@1)\n"
    assert desk.states() == {"sales/a.csv": State.PENDING, "sales/b.csv": State.QUARANTINED}
    assert [wakeup.dataset for wakeup in desk.ledger.wakeups.outstanding()] == ["sales"]
    assert desk.ledger.facts.stories("sales/a.csv")[0].facts[-1].detail == f"by {who()}"
    again = desk.run("quarantine", "show", "sales/a.csv")
    assert again.exit_code == 1
    assert "penstock why sales/a.csv" in again.stderr


def test_paths_of_the_inbox_and_deliveries(desk: Desk) -> None:
    """A path in the inbox, relative or whole, and a delivery's id mean what they name."""
    desk.arrive("sales/a.csv", "sales/b.csv")
    key = "_penstock/deliveries/sales/1.ndjson"
    found = Delivery(
        id="d-1", source="shop", dataset="sales", received_at=desk.now, content_type="", headers={}, body=b"{}"
    )
    stat = Stat(bucket="landing", key=key, etag="e", size=3, modified=desk.now)
    desk.ledger.deliveries.record("landing", key, stat, {1: found}, Via.WEBHOOK)
    desk.end(State.QUARANTINED, "bad")
    told = desk.facts("replay", "inbox/sales/a.csv", f"{desk.folder}/inbox/sales/b.csv", "d-1")
    assert told["replayed"] == 3
    assert told["datasets"] == {"sales": 3}
    assert set(desk.states().values()) == {State.PENDING}


def test_loaded_objects_need_force(desk: Desk) -> None:
    """Without --force a loaded object is refused with exit code 1 and the reason, with it replayed."""
    desk.arrive("sales/a.csv")
    desk.end(State.LOADED)
    refused = desk.run("replay", "sales/a.csv")
    assert refused.exit_code == 1
    assert refused.stderr == ("Refused: 1 (landing/sales/a.csv@1): it is loaded; --force replaces its rows\n")
    assert desk.facts("replay", "sales/a.csv", code=1)["refused"] == [
        {"reason": "it is loaded; --force replaces its rows", "count": 1, "first": ["landing/sales/a.csv@1"]}
    ]
    assert desk.facts("replay", "sales/a.csv", "--force")["replayed"] == 1
    assert [ref.again for ref in desk.end(State.LOADED)] == [True]


def test_a_dataset_means_what_is_stuck(desk: Desk) -> None:
    """--dataset alone takes what is in quarantine, --state what is so, --force what is loaded too."""
    desk.arrive("sales/good.csv")
    desk.end(State.LOADED)
    desk.arrive("sales/bad.csv")
    desk.end(State.QUARANTINED, "bad")
    desk.arrive("sales/empty.csv")
    desk.end(State.EMPTY, "it has no records")
    assert desk.facts("replay", "--dataset", "sales", "--dry-run")["first"] == ["landing/sales/bad.csv@1"]
    assert desk.facts("replay", "--dataset", "sales", "--force", "--dry-run")["would_replay"] == 2
    assert desk.facts("replay", "--dataset", "sales", "--state", "empty")["first"] == ["landing/sales/empty.csv@1"]
    assert desk.facts("replay", "--dataset", "sales", "--state", "loaded", code=1)["replayed"] == 0
    assert desk.facts("replay", "--dataset", "sales")["replayed"] == 1
    nothing = desk.run("replay", "--dataset", "sales")
    assert nothing.exit_code == 0
    assert "Nothing of sales is quarantined. What is loaded is replaced with --force" in nothing.stdout
    assert desk.run("replay", "--dataset", "sales", "--force", "--state", "missing", "--state", "ignored").stdout == (
        "Nothing of sales is ignored or missing.\n"
    )


def test_since(desk: Desk) -> None:
    """--since takes what came to quarantine from then on, as an age or as a moment."""
    desk.now -= timedelta(hours=3)
    desk.arrive("sales/old.csv")
    desk.end(State.QUARANTINED, "bad")
    desk.now += timedelta(hours=2)
    moment = desk.now.isoformat()
    desk.arrive("sales/new.csv")
    desk.end(State.QUARANTINED, "bad")
    for when in ("2h", moment):
        told = desk.facts("replay", "--dataset", "sales", "--since", when, "--dry-run")
        assert told["first"] == ["landing/sales/new.csv@1"], when
        assert [story["key"] for story in desk.facts("quarantine", "ls", "--since", when)["quarantined"]] == [
            "sales/new.csv"
        ]
    assert desk.facts("replay", "--dataset", "sales", "--since", "7d", "--dry-run")["would_replay"] == 2
    assert "no dataset 'other'" in str(desk.run("quarantine", "ls", "--dataset", "other").exception)


def test_a_dry_run_changes_nothing(desk: Desk) -> None:
    """--dry-run says what would be done and does nothing."""
    desk.arrive("sales/a.csv")
    desk.end(State.QUARANTINED, "bad")
    result = desk.run("replay", "sales/a.csv", "--dry-run")
    assert result.stdout == "Would be replayed: 1 of sales (landing/sales/a.csv@1)\n"
    assert desk.states() == {"sales/a.csv": State.QUARANTINED}


@pytest.mark.parametrize(
    "words",
    [
        ["replay"],
        ["replay", "--since", "2h"],
        ["replay", "--state", "quarantined"],
        ["replay", "sales/a.csv", "--since", "yesterday"],
        ["replay", "sales/a.csv", "--state", "lost"],
        ["replay", "sales/a.csv", "--state", "superseded"],
        ["replay", "sales/a.csv", "--state", "claimed"],
        ["quarantine", "replay"],
        ["quarantine", "drop"],
        ["quarantine", "ls", "--limit", "0"],
    ],
)
def test_usage_errors(desk: Desk, words: list[str]) -> None:
    """What does not say enough, or says nonsense, is a usage error: exit code 2."""
    assert desk.run(*words).exit_code == 2


def test_unknown_keys_and_what_waits_already(desk: Desk) -> None:
    """A key nobody knows ends with exit code 1, and the others are done all the same."""
    desk.arrive("sales/a.csv")
    desk.end(State.QUARANTINED, "bad")
    result = desk.run("replay", "sales/nothing.csv", "sales/a.csv")
    assert result.exit_code == 1
    assert "Nothing is known of 'sales/nothing.csv'" in result.stderr
    assert desk.states() == {"sales/a.csv": State.PENDING}
    assert "it waits for a run already" in desk.run("replay", "sales/a.csv").stderr


def test_dropping(desk: Desk) -> None:
    """A dropped object is ignored, with the reason and who; what is not in quarantine is not dropped."""
    desk.arrive("sales/a.csv")
    desk.end(State.QUARANTINED, "bad")
    done = desk.run("quarantine", "drop", "sales/a.csv", "--reason", "a test file")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("dropped: 1 of sales")
    (story,) = desk.ledger.facts.stories("sales/a.csv")
    assert (story.state, story.reason) == (State.IGNORED, f"dropped by {who()}: a test file")
    again = desk.run("quarantine", "drop", "sales/a.csv")
    assert again.exit_code == 1
    assert again.stderr == (
        "'sales/a.csv' is not what was asked for: landing/sales/a.csv@1 is ignored. Look: penstock why sales/a.csv\n"
    )
    assert desk.facts("quarantine", "drop", "sales/a.csv", code=1)["other"] == [
        {"key": "sales/a.csv", "name": "landing/sales/a.csv@1", "state": "ignored"}
    ]
    assert "Nothing is known of 'sales/b.csv'" in desk.run("quarantine", "drop", "sales/b.csv").stderr
    assert "Nothing is in quarantine." in desk.run("quarantine", "ls").stdout


def test_a_refused_file_of_the_inbox(desk: Desk) -> None:
    """What never left the inbox is shown with the one thing that helps, and a replay says the same."""
    mark = FileMark(path="nowhere/a.csv", inode=1, size=2, mtime_ns=3)
    desk.ledger.arrivals.refuse("nowhere/a.csv", "no dataset takes it", mark=mark, via=Via.FOLDER)
    shown = desk.run("quarantine", "show", "inbox/nowhere/a.csv")
    assert shown.exit_code == 0
    assert "no dataset takes it" in shown.stdout
    assert "drop the file into the inbox again" in shown.stdout
    refused = desk.run("quarantine", "replay", "nowhere/a.csv")
    assert refused.exit_code == 1
    assert "drop the file there again" in refused.stderr


def test_ls_says_that_there_is_more(desk: Desk) -> None:
    """Beyond the limit `ls` names the newest and says that there are more."""
    desk.arrive(*[f"sales/{n}.csv" for n in range(4)])
    desk.end(State.QUARANTINED, "bad")
    told = desk.run("quarantine", "ls", "--limit", "2")
    assert "sales/3.csv" in told.stdout
    assert "sales/1.csv" not in told.stdout
    assert "more than these 2" in told.stderr
    asked = desk.facts("quarantine", "ls", "--limit", "2")
    assert ([story["name"] for story in asked["quarantined"]], asked["more"]) == (
        ["landing/sales/3.csv@1", "landing/sales/2.csv@1"],
        True,
    )
    assert desk.facts("quarantine", "ls", "--limit", "4")["more"] is False
    assert "landing/sales/3.csv@1" in told.stdout, "the name tells the generation"


def test_what_was_overwritten_often_is_shown(desk: Desk) -> None:
    """An old generation in quarantine is shown, however many were loaded since."""
    desk.arrive("sales/a.csv")
    desk.end(State.QUARANTINED, "bad")
    for n in range(25):
        desk.arrive("sales/a.csv", etag=f"b{n}")
        desk.end(State.LOADED)
    with desk.ledger.database.write() as connection:
        connection.execute(
            update(objects).where(objects.c.generation == 1).values(state=State.QUARANTINED.value, reason="bad")
        )
    shown = desk.run("quarantine", "show", "sales/a.csv")
    assert (shown.exit_code, "landing/sales/a.csv@1" in shown.stdout) == (0, True), shown.output
    assert [one["name"] for one in desk.facts("quarantine", "show", "sales/a.csv")["quarantined"]] == [
        "landing/sales/a.csv@1"
    ]


def test_an_id_that_two_sources_gave_is_not_guessed(desk: Desk) -> None:
    """A delivery's id that several sources have given does nothing and names each; `source:id` and the name are one."""
    desk.deliver("shop", "42", dataset="sales")
    desk.deliver("bank", "42", dataset="sales")
    desk.end(State.QUARANTINED, "bad")
    names = {
        "shop": "landing/_penstock/deliveries/shop.ndjson@1#1",
        "bank": "landing/_penstock/deliveries/bank.ndjson@1#1",
    }
    for words in (["quarantine", "drop", "42"], ["quarantine", "replay", "42"], ["replay", "42"]):
        refused = desk.run(*words)
        assert refused.exit_code == 1
        for source, name in names.items():
            assert f"{source}:42 ({name})" in refused.stderr
        assert desk.facts(*words, code=1)["ambiguous"] == [
            {"key": "42", "deliveries": [{"name": names[source], "source": source} for source in ("shop", "bank")]}
        ]
        assert set(desk.states().values()) == {State.QUARANTINED}
    assert desk.facts("quarantine", "drop", "bank:42")["first"] == [names["bank"]]
    assert desk.facts("replay", "42", "--state", "quarantined")["first"] == [names["shop"]], "only one is left"
    assert desk.facts("replay", names["bank"])["replayed"] == 1


def test_one_object_counts_once(desk: Desk) -> None:
    """A key that is given twice, or in two ways, is one object."""
    desk.arrive("sales/a.csv")
    desk.end(State.QUARANTINED, "bad")
    words = ["replay", "sales/a.csv", "inbox/sales/a.csv", "landing/sales/a.csv", "landing/sales/a.csv@1"]
    assert desk.facts(*words, "--dry-run")["would_replay"] == 1
    assert desk.facts(*words)["replayed"] == 1


def test_dropping_much(desk: Desk) -> None:
    """A dataset is dropped as it is replayed: looked at first with --dry-run, and not unasked above 100."""
    desk.arrive(*[f"sales/{n}.csv" for n in range(101)])
    desk.end(State.QUARANTINED, "bad")
    refused = desk.run("quarantine", "drop", "--dataset", "sales")
    assert refused.exit_code == 2
    assert "101 objects would be given up: say --yes" in refused.stderr
    assert desk.facts("quarantine", "drop", "--dataset", "sales", "--dry-run")["would_drop"] == 101
    assert set(desk.states().values()) == {State.QUARANTINED}
    assert desk.facts("quarantine", "drop", "sales/1.csv", "--dataset", "other", code=1)["dropped"] == 0
    assert desk.facts("quarantine", "drop", "--dataset", "sales", "--yes")["dropped"] == 101
    assert set(desk.states().values()) == {State.IGNORED}
    assert desk.run("quarantine", "drop", "--dataset", "sales").stdout == "Nothing of sales is quarantined.\n"


def test_quarantine_replay_is_replay_of_what_is_quarantined(desk: Desk) -> None:
    """It narrows by dataset and moment as `replay` does, and leaves alone what is in no quarantine."""
    desk.arrive("sales/empty.csv")
    desk.end(State.EMPTY)
    desk.arrive("sales/bad.csv")
    desk.end(State.QUARANTINED, "bad")
    assert desk.run("quarantine", "replay", "sales/empty.csv").exit_code == 1
    told = desk.facts("quarantine", "replay", "--dataset", "sales", "--since", "2h")
    assert told["first"] == ["landing/sales/bad.csv@1"]
    assert desk.states() == {"sales/bad.csv": State.PENDING, "sales/empty.csv": State.EMPTY}


def test_a_password_in_prefects_address_is_never_shown(desk: Desk) -> None:
    """Neither a link nor the settings show who logs in, or how."""
    address = "http://ann:hush@127.0.0.1:1/api"
    (desk.folder / ".env").write_text(f"PENSTOCK_PREFECT_API_URL={address}\nPENSTOCK_PROJECT=desk\n")
    desk.arrive("sales/a.csv")
    desk.end(State.QUARANTINED, "bad")
    for words in (["quarantine", "show", "sales/a.csv"], ["doctor"]):
        for result in (desk.run(*words), desk.run(*words, "--json")):
            assert "127.0.0.1:1" in result.output
            assert "hush" not in result.output
    told = desk.facts("quarantine", "show", "sales/a.csv")
    assert told["quarantined"][0]["links"] == {RUN: f"http://127.0.0.1:1/runs/flow-run/{RUN}"}


def test_many_are_not_replayed_unasked(desk: Desk) -> None:
    """More than 100 need --yes where nobody can answer: exit code 2, and nothing has changed."""
    desk.arrive(*[f"sales/{n}.csv" for n in range(101)])
    desk.end(State.QUARANTINED, "bad")
    refused = desk.run("replay", "--dataset", "sales")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert set(desk.states().values()) == {State.QUARANTINED}
    assert desk.run("replay", "--dataset", "sales", "--dry-run").exit_code == 0
    assert desk.facts("replay", "--dataset", "sales", "--yes")["replayed"] == 101
    assert set(desk.states().values()) == {State.PENDING}


def program(desk: Desk, *words: str, answer: str | None = None) -> tuple[int, str]:
    """The command as a process of its own; with `answer` its input is a terminal at which that is typed."""
    argv = [sys.executable, "-m", "penstock.cli", "--project", str(desk.folder), *words]
    near, far = pty.openpty()
    try:
        if answer is not None:
            os.write(near, answer.encode())
        ended = subprocess.run(
            argv,
            stdin=far if answer is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(near)
        os.close(far)
    return ended.returncode, ended.stderr


def test_at_a_terminal_it_asks(desk: Desk) -> None:
    """At a terminal a large replay goes on with y, and stops with n."""
    desk.arrive(*[f"sales/{n}.csv" for n in range(101)])
    desk.end(State.QUARANTINED, "bad")
    code, told = program(desk, "replay", "--dataset", "sales", answer="n\n")
    assert (code, "101 objects will be loaded again" in told) == (130, True), told
    assert set(desk.states().values()) == {State.QUARANTINED}
    assert program(desk, "replay", "--dataset", "sales", answer="y\n")[0] == 0
    assert set(desk.states().values()) == {State.PENDING}


def test_an_unknown_dataset(desk: Desk) -> None:
    """A dataset that nobody declares is an error of usage that names those that there are."""
    code, told = program(desk, "replay", "--dataset", "sails")
    assert code == 2
    assert "there are: sales" in told


@pytest.mark.parametrize("lost", [OSError, KeyError])
def test_a_user_without_a_name(lost: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container whose user has no name the number stands for it."""

    def fail() -> str:
        raise lost

    monkeypatch.setattr("penstock.cli.replay.getpass.getuser", fail)
    assert who().startswith(f"uid {os.getuid()}@")


def test_only_rejected_rows(desk: Desk) -> None:
    """Of what is loaded that which has rejected rows goes back, and what waits as a whole is told of beside."""
    desk.arrive("sales/bad.csv")
    desk.end(State.LOADED, rejected=3)
    desk.arrive("sales/good.csv")
    desk.end(State.LOADED)
    desk.arrive("sales/whole.csv")
    desk.end(State.QUARANTINED, "all bad")
    assert "3 that were rejected" in desk.run("why", "sales/bad.csv").output.replace("\n", " ")

    assert desk.facts("replay", "--rejected", "--dataset", "sales", "--dry-run")["would_replay"] == 1
    done = desk.run("replay", "--rejected", "--dataset", "sales")
    assert done.exit_code == 0
    assert "replayed: 1 of sales (landing/sales/bad.csv@1)" in done.stdout
    assert "1 of sales in quarantine as a whole. To load them: penstock replay --dataset sales" in done.stderr
    assert desk.states() == {
        "sales/bad.csv": State.PENDING, "sales/good.csv": State.LOADED, "sales/whole.csv": State.QUARANTINED
    }  # fmt: skip
    assert "only its rejected rows" in desk.run("why", "sales/bad.csv").output.replace("\n", " ")
    assert [ref.only_rejected for ref in desk.end(State.LOADED)] == [True]

    none = desk.run("replay", "--rejected", "--dataset", "sales")
    assert none.exit_code == 0
    assert "has rejected rows" in none.stdout
    refused = desk.run("replay", "--rejected", "sales/good.csv")
    assert refused.exit_code == 1
    assert "none of its rows was rejected" in refused.stderr
    for besides in (["--force"], ["--state", "loaded"]):
        assert desk.run("replay", "--rejected", "--dataset", "sales", *besides).exit_code == 2
    assert "--rejected" not in desk.run("quarantine", "replay", "--help").output


def test_why_rows_were_rejected(desk: Desk) -> None:
    """By check, column and, where neither tells, reason: how many, and the first of each with its place and text."""
    assert desk.run("quarantine", "rejected", "sales").output == "No row of sales was rejected.\n"
    warehouse = DuckDBWarehouse(desk.folder / ".penstock" / "warehouse.duckdb", wait_seconds=5)
    bad = [
        (2, 3, "check few", "[x],50", None, "few"),
        (3, 4, "id: not BIGINT: y", "y,1", "id", None),
        (4, 5, "id: not BIGINT: z", "z,1", "id", None),
        (5, None, "bad quoting", '"', None, None),
    ]
    one = part("a.csv", {"id": [1]}, rejected=bad)
    lease = desk.ledger.work.acquire("sales", holder="x", ttl=timedelta(seconds=30))
    assert lease is not None
    warehouse.load("sales", [("id", "BIGINT")], [one], token=lease.token, run=RUN, now=desk.now)

    found = desk.facts("quarantine", "rejected", "sales")
    assert [(each["check"], each["column"], each["rows"], each["line"], each["raw"]) for each in found] == [
        (None, "id", 2, 4, "y,1"),
        ("few", None, 1, 3, "[x],50"),
        (None, None, 1, None, '"'),
    ]
    shown = desk.run("quarantine", "rejected", "sales").output
    for word in ("few", "id: not BIGINT: y", "landing/sales/a.csv@1:3", "[x],50", "penstock replay --rejected"):
        assert word in shown
    assert desk.run("quarantine", "rejected", "other").exit_code == 1
