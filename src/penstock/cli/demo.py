"""`penstock demo`: the whole pipe on real files, in a temporary folder. Exit 0 only if all of it came out right."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from penstock.cli.main import start_logging
from penstock.cli.output import results
from penstock.cli.show import table
from penstock.errors import SettingsError
from penstock.model import State
from penstock.project import FOLDERS
from penstock.settings import load_settings
from penstock.testing.sales import sales_csv
from penstock.wiring import open_ledger, open_store, open_warehouse

if TYPE_CHECKING:
    from penstock.cli.stack import Stack
    from penstock.ledger import Ledger
    from penstock.ledger.facts import Story

_DEADLINE_SECONDS = 60.0
_DONE = frozenset(State) - {State.PENDING, State.CLAIMED}


@dataclass(kw_only=True)
class Step:
    """One thing the demo does, and what must become of it: `key` is an object's key or a delivery id."""

    what: str
    key: str
    dataset: str
    expected: State
    rows: int
    at: datetime
    story: Story | None = None

    @property
    def right(self) -> bool:
        """Whether it became what it must."""
        if self.story is None or self.story.state is not self.expected:
            return False
        return self.expected is not State.LOADED or self.story.rows == self.rows


@dataclass(kw_only=True)
class Answer:
    """What the webhook must answer at once, and what it did."""

    what: str
    expected: str
    got: str


@click.command()
@click.option(
    "--store",
    type=click.Choice(["embedded", "minio"]),
    default="embedded",
    show_default=True,
    help="Which object store it starts.",
)
@click.option("--keep", is_flag=True, help="Keep the temporary folder, to look around in it.")
@click.pass_obj
def demo(project_dir: Path, store: str, keep: bool) -> None:
    """Drop real files, post signed webhooks, and show what became of each."""
    from penstock.cli.stack import running_stack

    console = results()
    start_logging("ERROR")
    data = load_settings(project_dir).project_dir / "examples" / "data"
    if not data.is_dir():
        raise SettingsError(f"the demo needs the example data in {data}: run it in a clone of penstock")
    began = time.monotonic()
    with _folder(keep=keep) as folder:
        copy = _copy_project(load_settings(project_dir).project_dir, folder)
        env = _clean_environment(store)
        console.print(f"[bold]penstock demo[/bold] in {copy}: starting a whole system, 10 to 30 s", soft_wrap=True)
        with running_stack(copy, say=lambda line: console.print(f"  {line}", soft_wrap=True), env=env) as stack:
            ledger = open_ledger(stack.settings)
            steps, answers = _act(console, stack, data, ledger)
            _await_outcomes(console, ledger, steps)
            right = _show(console, stack, steps, answers)
    console.print(
        f"{'All of it came out right' if right else 'NOT all came out right'}, in {time.monotonic() - began:.0f} s."
    )
    if not right:
        sys.exit(1)
    console.print("Next: uv run penstock up")


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    if keep:
        yield Path(tempfile.mkdtemp(prefix="penstock-demo-"))
        return
    with tempfile.TemporaryDirectory(prefix="penstock-demo-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _copy_project(root: Path, folder: Path) -> Path:
    """The declarations alone: a `.env` that points at a real store or server must not be the demo's."""
    copy = folder / "demo"
    for name in FOLDERS:
        if (root / name).is_dir():
            shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def _clean_environment(store: str) -> dict[str, str]:
    for name in [name for name in os.environ if name.startswith(("PENSTOCK_", "PREFECT_"))]:
        del os.environ[name]
    os.environ["PENSTOCK_STORE"] = store
    return dict(os.environ)


def _act(console: Console, stack: Stack, data: Path, ledger: Ledger) -> tuple[list[Step], list[Answer]]:
    from penstock.ledger.database import utc_now

    inbox = stack.settings.inbox
    steps: list[Step] = []
    answers: list[Answer] = []

    def did(what: str, key: str, rows: int, *, expected: State = State.LOADED) -> None:
        console.print(f"  {what}", soft_wrap=True)
        dataset = key.partition("/")[0] if "/" in key else "github"
        steps.append(Step(what=what, key=key, dataset=dataset, expected=expected, rows=rows, at=utc_now()))

    birds = (data / "birdstrikes.csv").read_bytes()
    with (inbox / "bird_strikes" / "birdstrikes.csv").open("wb") as half:
        half.write(birds[: len(birds) // 2])
        half.flush()
        console.print(
            "  a file half-written, its writer still at it: inbox/bird_strikes/birdstrikes.csv", soft_wrap=True
        )
        _move_in(data / "seattle-weather.csv", inbox / "weather" / "seattle-weather.csv")
        did("a file moved into inbox/weather/", "weather/seattle-weather.csv", 1461)
        open_store(stack.settings).put_bytes(
            stack.settings.bucket, "earthquakes/week.geojson", (data / "earthquakes.geojson").read_bytes()
        )
        did("an S3 client's PUT of earthquakes/week.geojson", "earthquakes/week.geojson", 250)
        (inbox / "sales" / "monday.csv").write_text(sales_csv(rows=1000, bad=20, seed=7))
        did("1,000 sales, 20 of them not valid", "sales/monday.csv", 980)
        (inbox / "sales" / "tuesday.csv").write_text(sales_csv(rows=1000, bad=300, seed=8))
        did("a bad file: 1,000 sales, 300 not valid", "sales/tuesday.csv", 0, expected=State.QUARANTINED)
        for name in ("push.1", "issues.assigned", "pull_request.closed", "star.created"):
            body = (data / "github-webhooks" / f"{name}.json").read_bytes()
            delivery = str(uuid.uuid4())
            answers.append(_post(stack, name, body, delivery, expected="202 new"))
            did(f"a signed webhook from GitHub: {name}", delivery, 1)
            if name == "push.1":
                answers.append(_post(stack, f"{name} again", body, delivery, expected="202 duplicate"))
        answers.append(
            _post(stack, "wrong signature", b'{"forged": true}', str(uuid.uuid4()), expected="401", forged=True)
        )
        _wait(lambda: _find(ledger, "weather/seattle-weather.csv") is not None)
        known = _find(ledger, "bird_strikes/birdstrikes.csv")
        answers.append(
            Answer(what="the half-written file", expected="not touched", got="touched" if known else "not touched")
        )
        half.write(birds[len(birds) // 2 :])
    did("the half-written file, finished", "bird_strikes/birdstrikes.csv", 1500)
    return steps, answers


def _move_in(source: Path, target: Path) -> None:
    """Write beside the inbox, then move in: the way that every file system does in one step."""
    draft = target.parent.parent.parent / target.name
    draft.write_bytes(source.read_bytes())
    draft.rename(target)


def _post(stack: Stack, what: str, body: bytes, delivery: str, *, expected: str, forged: bool = False) -> Answer:
    import httpx

    from penstock.ledger.database import utc_now
    from penstock.webhook import verify

    source = stack.project.source("github")
    secret = "forged" if forged else stack.settings.resolve_secret(source.verify.secrets[0])
    headers = {
        "content-type": "application/json",
        "x-github-event": what.partition(".")[0],
        **verify.sign(source.verify, secret, delivery, body, utc_now()),
    }
    answer = httpx.post(f"{stack.webhook_url}/hooks/{source.name}", content=body, headers=headers, timeout=30)
    got = str(answer.status_code)
    if answer.status_code == httpx.codes.ACCEPTED:
        got += " duplicate" if json.loads(answer.content)["duplicate"] else " new"
    return Answer(what=f"webhook {what}", expected=expected, got=got)


def _find(ledger: Ledger, key: str) -> Story | None:
    found = ledger.facts.stories(key, limit=1)
    return found[0] if found else None


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def _await_outcomes(console: Console, ledger: Ledger, steps: list[Step]) -> None:
    open_steps = list(steps)

    def all_done() -> bool:
        for step in list(open_steps):
            story = _find(ledger, step.key)
            if story is not None and story.state in _DONE:
                step.story = story
                open_steps.remove(step)
        status.update(f"{len(steps) - len(open_steps)} of {len(steps)} done")
        return not open_steps

    with console.status("waiting for the warehouse") as status:
        _wait(all_done)


def _show(console: Console, stack: Stack, steps: list[Step], answers: list[Answer]) -> bool:
    rows = []
    for step in steps:
        story = step.story
        seconds = (story.changed_at - step.at).total_seconds() if story else None
        state = story.state.value if story else "not within a minute"
        loaded = story.rows if story and story.state is State.LOADED else None
        rows.append([step.what, state, loaded, seconds, "ok" if step.right else "WRONG"])
    console.print()
    console.print(table(["what was done", "became", "rows", "seconds", ""], rows, title="What became of each"))
    for step in steps:
        if step.story and step.story.reason:
            console.print(f"  {step.key}: {step.story.reason}", markup=False, soft_wrap=True)
        if not step.right:
            console.print(f"  {step.key}: {_find(open_ledger(stack.settings), step.key)}", markup=False, soft_wrap=True)
    console.print()
    console.print(
        table(
            ["at the door", "expected", "answered", ""],
            [[a.what, a.expected, a.got, "ok" if a.got == a.expected else "WRONG"] for a in answers],
        )
    )
    warehouse = open_warehouse(stack.settings)
    counted = []
    for dataset in sorted({step.dataset for step in steps}):
        expected = sum(step.rows for step in steps if step.dataset == dataset and step.expected is State.LOADED)
        counted.append([dataset, warehouse.count(dataset), expected])
    console.print()
    console.print(table(["table", "rows in the warehouse", "expected"], counted, title="Asked of the warehouse"))
    sql = "SELECT category, count(*) AS sales, round(sum(total), 2) AS total FROM sales GROUP BY ALL ORDER BY ALL"
    found = warehouse.query(sql, limit=10)
    console.print()
    console.print(table(found.columns, found.rows, title=f"penstock query '{sql}'"))
    console.print()
    return (
        all(step.right for step in steps)
        and all(answer.got == answer.expected for answer in answers)
        and all(count == expected for _, count, expected in counted)
    )
