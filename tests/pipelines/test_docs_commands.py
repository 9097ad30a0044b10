"""Every command that README.md and docs/ show is run, as a reader runs it, in one project with `penstock up` beside it.

The project is the one that the quickstart makes; before it is started, it also gets what this repository declares, and
what the other pages declare. A page's commands run in their order in one shell: first what comes before its
`penstock up`, then what comes after. A page without one is about a system that runs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance.running import ROOT, Up
from tests.pipelines.pages import Block, blocks, called, commands, is_up, missing
from tests.waiting import wait_for

# Long: most of its commands import Prefect, some seconds each, and the how-tos' subjects have tests of their own.
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)]

FIRST = "docs/quickstart.md"
# In the order of the site: what a page makes may be taken for granted by those after it.
PAGES = list(dict.fromkeys([FIRST, "README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]))
# What a file, a run or an action may take on a busy machine. A command that asks for it is asked again until then.
WITHIN_SECONDS = 60.0
_ASK = ("penstock", "prefect", "curl")


@dataclass(kw_only=True)
class Reader:
    """Somebody who follows one page: a shell that stays where it was, with what it exported."""

    folder: Path
    state: Path
    env: dict[str, str]
    # Whether anything runs that a command may have to wait for.
    waits: bool = False
    said: list[str] = field(default_factory=list)

    def follows(self, block: Block) -> None:
        """Run a block's commands; what they print must be what the page shows."""
        run = commands(block.text)
        for command in commands(block.note("before") or ""):
            self._well(block, command, 0)
        printed = []
        for command in run:
            last = command is run[-1]
            printed.append(self._well(block, command, int(block.note("exits") or 0) if last else 0))
        if block.shown is None:
            return
        latest = list(printed)

        def there() -> bool:
            gap = missing(block.shown or "", "".join(latest))
            if gap is None:
                return True
            assert self.waits, f"{block.where}: nobody printed {gap!r}:\n{''.join(latest)}"
            for number, command in enumerate(run):
                if _only_looks(command):
                    latest[number] = self._run(command)[1]
            return False

        try:
            wait_for(there, seconds=WITHIN_SECONDS, what=block.where)
        except AssertionError:
            gap = missing(block.shown, "".join(latest))
            raise AssertionError(f"{block.where}: nobody printed {gap!r}:\n{''.join(latest)}") from None

    def _well(self, block: Block, command: str, code: int) -> str:
        """What the command printed; asked again while it ends otherwise, where something runs that it may wait for."""
        found = self._run(command)

        def ended() -> bool:
            nonlocal found
            if found[0] != code:
                found = self._run(command)
            return found[0] == code

        if found[0] != code and self.waits and any(word in command for word in _ASK):
            # What it said at last is told below.
            with contextlib.suppress(AssertionError):
                wait_for(ended, seconds=WITHIN_SECONDS)
        assert found[0] == code, f"{block.where}: {command}\nended with {found[0]}:\n{found[1]}"
        return found[1]

    def _run(self, command: str) -> tuple[int, str]:
        where, exported = self.state / "where", self.state / "exported"
        script = f"""
            if [ -e {exported} ]; then . {exported}; fi
            cd "$(cat {where} 2>/dev/null || echo {self.folder})"
            trap 'ended=$?; pwd > {where}; export -p > {exported}; exit $ended' EXIT
            set -e -o pipefail
            """
        done = subprocess.run(
            ["bash", "-c", script + command],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@dataclass(kw_only=True)
class World:
    """A folder in which the project `shop` is made and started, and how far each page was followed."""

    desk: Path
    up: Up
    env: dict[str, str]
    readers: dict[str, Reader] = field(default_factory=dict)
    parts: dict[str, list[list[Block]]] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)

    @property
    def shop(self) -> Path:
        """The project's folder."""
        return self.desk / "shop"

    def reader(self, page: str) -> Reader:
        """Who follows that page."""
        if page not in self.readers:
            state = self.desk / "readers" / page.replace("/", "_")
            state.mkdir(parents=True)
            folder = self.desk if page == FIRST else self.shop
            self.readers[page] = Reader(folder=folder, state=state, env=self.env)
        return self.readers[page]

    def follow(self, page: str, part: Sequence[Block]) -> None:
        """Go on with a page."""
        for block in part:
            if block.file and block.note("not written") is None:
                _write(self.shop, block)
            elif block.runs_here:
                self._alone(block) if block.note("alone") is not None else self.reader(page).follows(block)
                self.ran += commands(block.text)

    def _alone(self, block: Block) -> None:
        there = self.desk / "alone" / f"{block.page.replace('/', '_')}.{block.line}"
        (there / "state").mkdir(parents=True)
        subprocess.run(["bash", "-c", "penstock new project > /dev/null"], cwd=there, env=self.env, check=True)
        Reader(folder=there / "project", state=there / "state", env=self.env).follows(block)

    def boot(self) -> None:
        """Start it, or end it and start it again."""
        if self.up.process is not None:
            assert self.up.stop(signal.SIGINT) == 0
        self.up.start()
        for reader in self.readers.values():
            reader.waits = True


def _calls(found: Sequence[Block]) -> Iterator[list[str]]:
    for block in found:
        if block.runs_here:
            yield from (call for command in commands(block.text) for call in called(command))


def _write(project: Path, block: Block) -> None:
    assert block.file
    target = project / block.file
    target.parent.mkdir(exist_ok=True)
    target.write_text(block.text)


def split_at_up(found: Sequence[Block]) -> list[list[Block]]:
    """A page's blocks, divided where it starts the system."""
    parts: list[list[Block]] = [[]]
    for block in found:
        if block.runs_here and any(is_up(one) for one in commands(block.text)):
            assert len(commands(block.text)) == 1, f"{block.where}: `penstock up` does not end, and has its own block"
            parts.append([])
        else:
            parts[-1].append(block)
    return parts


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Each page followed up to where it starts the system, which then runs."""
    desk = tmp_path_factory.mktemp("desk")
    up = Up(folder=desk / "shop")
    env = {**up.env, "PATH": f"{_shims(desk)}:{os.environ['PATH']}", "HOME": str(desk / "home"), "COLUMNS": "120"}
    (desk / "home").mkdir()
    made = World(desk=desk, up=up, env=env)
    for page in PAGES:
        made.parts[page] = split_at_up(blocks(page, (ROOT / page).read_text(encoding="utf-8")))
    try:
        made.follow(FIRST, made.parts[FIRST][0])
        made.boot()
        made.follow(FIRST, made.parts[FIRST][1])
        _also_ours(made.shop)
        for page in PAGES[1:]:
            first, *rest = made.parts[page]
            if rest:
                made.follow(page, first)
            elif not any(call[:1] == ["apply"] for call in _calls(first)):
                # Its files were there before it begins, in their first version.
                for block in reversed(first):
                    if block.file and block.note("not written") is None:
                        _write(made.shop, block)
        made.boot()
        yield made
    finally:
        if up.process is not None:
            up.stop(signal.SIGTERM)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says(world: World, page: str) -> None:
    """Each command ends as it should, and prints what the page shows."""
    first, *rest = world.parts[page]
    world.reader(page).waits = True
    for block in blocks(page, (ROOT / page).read_text(encoding="utf-8")):
        if block.runs_here and block.shown and is_up(block.text):
            said = (world.shop / "up.log").read_text()
            assert missing(block.shown, said) is None, f"{block.where}: {missing(block.shown, said)!r}:\n{said}"
    done = 2 if page == FIRST else 1
    assert len(rest) <= done, f"{page} starts the system more often than the test does"
    world.follow(page, (rest[-1] if rest else first))


def test_what_was_run_is_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """How many commands were run, and which were not, and why."""
    with capsys.disabled():
        sys.stdout.write(f"\n{len(world.ran)} commands of {len(PAGES)} pages were run, besides `penstock up`\n")
        for page in PAGES:
            for block in blocks(page, (ROOT / page).read_text(encoding="utf-8")):
                if block.language == "sh" and not block.runs_here:
                    why = block.note("not run") or f"run by {block.note('run by')}"
                    sys.stdout.write(f"{block.where}: {len(commands(block.text))} not here: {why}\n")
    assert len(world.ran) > 60


def _only_looks(command: str) -> bool:
    words = [word for word in command.split() if word not in ("uv", "run")]
    looks = ("status", "why", "query", "automations", "quarantine", "deliveries", "profile", "schema", "backfill")
    return words[:1] == ["penstock"] and words[1] in looks and not {"replay", "drop"} & set(words)


def _also_ours(shop: Path) -> None:
    """What this repository declares besides, and the data that its pages name."""
    for folder in ("flows", "webhook", "automations"):
        for path in (ROOT / folder).glob("*.py"):
            if not (shop / folder / path.name).exists():
                shutil.copy(path, shop / folder)
    ours = ["bird_strikes", "earthquakes", "github", "weather"]
    (shop / "automations" / "ours.py").write_text(
        f"from penstock import on_arrival\n\nAUTOMATIONS = [on_arrival(dataset) for dataset in {ours}]\n"
    )
    shutil.copytree(ROOT / "examples" / "data", shop / "examples" / "data")


def _shims(desk: Path) -> Path:
    """`uv run`, `penstock` and `python` as in a project whose environment is this one."""
    folder = desk / "bin"
    folder.mkdir()
    python = sys.executable
    scripts = {
        "penstock": f'exec {python} -m penstock.cli "$@"',
        "prefect": f'exec {python} -m prefect "$@"',
        "pytest": f'exec {python} -m pytest -p no:cacheprovider "$@"',
        "python": f'exec {python} "$@"',
        "uv": 'if [ "$1" != run ]; then echo "uv $1 is not for here" >&2; exit 2; fi; shift; exec "$@"',
    }
    for name, script in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return folder
