"""What commands print where: results and asides, terminals and pipes, and how a command ends."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.table import Table

from penstock.cli import output
from penstock.cli.main import cli
from penstock.cli.output import aside, chatter, results
from penstock.cli.show import table
from tests.waiting import wait_for

_PENSTOCK = [sys.executable, "-m", "penstock.cli"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a dataset, and nothing else."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "a.py").write_text('from penstock import Dataset\n\nDATASET = Dataset(name="orders")\n')
    return tmp_path


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs the tests."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def environment(**more: str) -> Mapping[str, str]:
    """Of a process, without settings of the machine's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "PREFECT_"))}
    return {**kept, **more}


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ],
)
def test_a_pipe_gets_colours_only_when_it_asks(
    variables: Mapping[str, str],
    coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """FORCE_COLOR has colours in a pipe, and NO_COLOR takes them away, bold letters included, also of both."""
    for name, value in {"TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    results().print("[bold red]quarantined[/bold red]")
    assert ("\x1b" in capsys.readouterr().out) is coloured


def test_a_terminal_has_colours_but_with_no_color(project: Path) -> None:
    """The same command on a terminal is coloured, and with NO_COLOR it is not."""
    said = {}
    for name in ("TERM", "NO_COLOR"):
        ours, theirs = pty.openpty()
        try:
            argv = [*_PENSTOCK, "--project", str(project), "doctor"]
            env = environment(TERM="xterm", **({name: "1"} if name == "NO_COLOR" else {}))
            subprocess.run(argv, env=env, stdout=theirs, stderr=subprocess.DEVNULL, timeout=60, check=False)
            said[name] = os.read(ours, 4096)
        finally:
            os.close(ours)
            os.close(theirs)
    assert b"\x1b[" in said["TERM"]
    assert b"\x1b[" not in said["NO_COLOR"]


def test_a_row_of_a_table_in_a_pipe_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is in it and however long it is: it can be searched and counted."""
    results().print(table(["key", "reason"], [["a.csv", "no\ncolumns\there"], ["b" * 300, "x " * 200]]))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert r"no\ncolumns\there" in lines[1]
    assert "b" * 300 in lines[2]


def test_a_row_on_a_terminal_keeps_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody reads it nothing is escaped that can be shown."""
    monkeypatch.setattr("penstock.cli.show.on_terminal", lambda: True)
    made = table(["reason"], [["no\ncolumns"]])
    assert isinstance(made, Table)
    assert list(made.columns[0].cells) == ["no\ncolumns"]


def test_what_is_beside_the_results_is_said_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """The next command and the like stand in standard error."""
    results().print("one")
    aside("Next: another")
    assert capsys.readouterr() == ("one\n", "Next: another\n")


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_leaves_results_and_errors(project: Path, quiet: bool) -> None:
    """One option before the command: what was not asked for is not said."""
    options = ["--project", str(project), *(["--quiet"] if quiet else [])]
    made = CliRunner().invoke(cli, [*options, "migrate"])
    assert made.stdout.startswith("The ledger went from nothing")
    assert made.stderr == ("" if quiet else "Next: penstock up\n")
    nothing = CliRunner().invoke(cli, [*options, "why", "nothing"])
    assert nothing.exit_code == 1


def test_chatter_is_silent_when_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What `up` tells of itself goes with it; what arrives stays."""
    chatter().print("starting")
    monkeypatch.setattr(output, "is_quiet", lambda: True)
    chatter().print("not said")
    results().print("arrived")
    assert capsys.readouterr().out == "starting\narrived\n"


@pytest.mark.parametrize("command", [["--help"], ["completion", "bash"], ["doctor"], ["doctor", "--json"]])
def test_a_reader_that_goes_away_is_no_error(project: Path, command: list[str]) -> None:
    """As with `| head -1`: nothing is said of it, and the exit code is 0."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        argv = [*_PENSTOCK, "--project", str(project), *command]
        done = subprocess.run(
            argv, env=environment(), stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_results_that_cannot_be_written_are_an_error(project: Path) -> None:
    """A full disk is told, and the exit code says it."""
    with Path("/dev/full").open("w") as full:
        argv = [*_PENSTOCK, "--project", str(project), "completion", "bash"]
        done = subprocess.run(
            argv, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_with_130(project: Path) -> None:
    """And one word, whatever the command was at."""
    argv = [*_PENSTOCK, "--project", str(project), "preview", "-", "--dataset", "orders", "--name", "a.csv"]
    with subprocess.Popen(
        argv, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            # It reads its input, and waits for more of it.
            wait_for(lambda: _waits_for_input(process.pid), seconds=60, what="it reads")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
            assert process.stderr is not None
            assert process.stderr.read() == "stopped\n"
        finally:
            process.kill()


def _waits_for_input(pid: int) -> bool:
    with closing(Path(f"/proc/{pid}/syscall").open()) as file:
        # read(0, …)
        return file.read().split()[:2] == ["0", "0x0"]


def test_letters_that_the_locale_lacks_are_escaped(project: Path) -> None:
    """Instead of an error in the middle of the results."""
    env = environment(LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0", PENSTOCK_INBOX="Körbe")
    argv = [*_PENSTOCK, "--project", str(project), "doctor"]
    done = subprocess.run(argv, env=env, capture_output=True, timeout=60, check=False)
    assert rb"K\udcc3\udcb6rbe" in done.stdout


def test_who_says_how_wide_it_is_gets_it_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `watch` does, which is a pipe before a terminal."""
    monkeypatch.setenv("COLUMNS", "40")
    results().print("word " * 20)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40
