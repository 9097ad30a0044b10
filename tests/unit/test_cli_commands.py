"""Every command: its help, and what it says where there is no project, or something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from penstock.cli.doctor import examine
from penstock.cli.main import _COMMANDS, _SUMMARIES, cli, main
from penstock.errors import StoreUnavailable
from penstock.project import FOLDERS
from penstock.settings import KIND_FILE, RUNTIME_FILE, load_settings, write_made

# What takes arguments gets some; those that run until they are ended, or need no project, are elsewhere.
_ARGUMENTS = {
    "why": ["a.csv"],
    "query": ["SELECT 1"],
    "preview": [__file__],
    "profile": ["orders"],
    "schema": ["orders"],
    "init-dataset": [__file__],
    "send": ["shop", __file__],
    "replay": ["a.csv"],
    "import": ["one"],
    "simulate": ["-e", "loaded orders"],
    "deliveries show": ["a"],
    "deliveries replay": ["a"],
    "quarantine show": ["a.csv"],
    "quarantine replay": ["a.csv"],
    "quarantine drop": ["a.csv"],
    "quarantine rejected": ["orders"],
}
_ANYWHERE = {"new", "demo", "completion", "doctor"}


def leaves() -> Iterator[tuple[str, ...]]:
    """Every command, and those below one."""
    for name in _COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        if isinstance(command, click.Group):
            yield from ((name, below) for below in command.commands)
        else:
            yield (name,)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in; nothing of the machine's own reaches the command, and nothing stays behind it."""
    for name in list(os.environ):
        if name.startswith("PENSTOCK_"):
            monkeypatch.delenv(name)
    for name in ("PREFECT_HOME", "PREFECT_PROFILES_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "prefect"))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.split(".")[0] in FOLDERS]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in FOLDERS]:
        del sys.modules[name]


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of penstock, called so."""
    monkeypatch.setattr(sys, "argv", ["penstock", *arguments])
    with pytest.raises(SystemExit) as raised:
        main()
    return int(raised.value.code or 0)


def test_the_list_of_commands_has_all_of_them() -> None:
    """Each has a line in `penstock --help`."""
    assert list(_SUMMARIES) == list(_COMMANDS)
    shown = CliRunner().invoke(cli, ["--help"]).output
    for name in _COMMANDS:
        assert f"\n  {name} " in shown


@pytest.mark.parametrize("command", list(leaves()), ids=" ".join)
def test_help_says_what_a_command_does(command: tuple[str, ...]) -> None:
    """And every option of it has words of its own."""
    shown = CliRunner().invoke(cli, [*command, "--help"])
    assert shown.exit_code == 0
    assert shown.output.startswith(f"Usage: cli {' '.join(command)}")
    context = click.Context(cli)
    found: click.Command | None = cli
    for name in command:
        assert isinstance(found, click.Group)
        found = found.get_command(context, name)
    assert found is not None
    assert found.help
    for parameter in found.params:
        assert not isinstance(parameter, click.Option) or parameter.hidden or parameter.help, parameter.name


def test_help_waits_for_nothing_heavy() -> None:
    """Nor does a shell that completes: what a command needs is imported when it is run."""
    code = (
        "import sys, click\n"
        "from penstock.cli.main import _COMMANDS, cli\n"
        "for name in _COMMANDS: cli.get_command(click.Context(cli), name)\n"
        "heavy = {'prefect', 'duckdb', 'pyarrow', 'sqlalchemy', 'minio', 'httpx', 'fastapi', 'starlette', 'uvicorn'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("command", [c for c in leaves() if c[0] not in _ANYWHERE], ids=" ".join)
def test_where_there_is_no_project_a_command_says_so(
    command: tuple[str, ...], alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, with what to do, and the exit code of a wrong call."""
    assert ended(monkeypatch, *command, *_ARGUMENTS.get(" ".join(command), ())) == 2
    said = capsys.readouterr()
    assert said.out in ("", "penstock " + alone.name.replace("_", "-") + ": starting, about 10 s\n") or command == (
        "up",
    )
    assert said.err == (
        f"penstock: {alone} is no penstock project: it has no folder flows/. Give one with --project DIR, or make one: "
        "penstock new DIR\n"
    )


@pytest.fixture
def project(alone: Path) -> Path:
    """A folder with two datasets and a source."""
    for folder in ("flows", "webhook"):
        (alone / folder).mkdir()
    for name in ("orders", "weather"):
        (alone / "flows" / f"{name}.py").write_text(f'from penstock import Dataset\nDATASET = Dataset(name="{name}")\n')
    (alone / "webhook" / "github.py").write_text(
        'from penstock import Source, unverified\nSOURCE = Source(name="github", dataset="orders", '
        'verify=unverified(because="a test"))\n'
    )
    return alone


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["stats"], 2, "No such command 'stats'. Did you mean 'status'?"),
        (["status", "--jsn"], 2, "No such option '--jsn'. Did you mean '--json'?"),
        (["status"], 1, "the ledger is empty: start it with `penstock up`, or make it with `penstock migrate`"),
        (["profile", "wether"], 2, "no dataset 'wether'; there are: orders, weather; did you mean 'weather'?"),
        (["send", "gitub", __file__], 2, "no source 'gitub'; there are: github; did you mean 'github'?"),
        (["preview", "nothing.csv"], 2, "nothing.csv is not there"),
        (["preview", "flows"], 2, "flows is a folder"),
        (["send", "github", "nothing.json"], 2, "File 'nothing.json' does not exist"),
        (["apply", "nothing.json"], 2, "File 'nothing.json' does not exist"),
        (["--project", "nowhere", "status"], 2, "Directory 'nowhere' does not exist"),
        (["plan"], 1, "no Prefect server: set PENSTOCK_PREFECT_API_URL, or start one with `penstock up`"),
        (["env"], 1, "no Prefect server: set PENSTOCK_PREFECT_API_URL, or start one with `penstock up`"),
        (["query", "SELECT 1"], 1, "there is no warehouse"),
        (["new", "."], 2, "is not empty, and nothing is overwritten"),
    ],
    ids=lambda found: " ".join(found) if isinstance(found, list) else None,
)
def test_an_error_names_what_it_is_about(
    arguments: list[str],
    code: int,
    says: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And what to do, or the nearest word."""
    assert ended(monkeypatch, *arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert says in " ".join(said.err.split())


@pytest.mark.parametrize("command", ["quarantine ls", "quarantine drop", "deliveries ls"])
def test_an_unknown_dataset_is_not_an_empty_one(
    command: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing was found of it, and nothing declares it."""
    ended(monkeypatch, "migrate")
    assert ended(monkeypatch, *command.split(), "--dataset", "weather") == 0
    assert ended(monkeypatch, *command.split(), "--dataset", "wether") == 2
    assert "did you mean 'weather'?" in capsys.readouterr().err


def test_a_ledger_that_is_none_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also the doctor tells of it, and of every other part."""
    (project / ".penstock").mkdir()
    (project / ".penstock" / "ledger.db").write_text("this is no database, and long enough to be one")
    assert ended(monkeypatch, "status") == 1
    said = capsys.readouterr().err
    assert said.startswith("penstock: the ledger cannot be used: file is not a database. Which it is: ")
    assert said.count("\n") == 1
    assert ended(monkeypatch, "doctor") == 1
    told = capsys.readouterr().out
    assert "DatabaseError: file is not a database" in told
    assert "no object store: set PENSTOCK_S3_ENDPOINT" in told


@pytest.mark.parametrize("command", ["status", "query SELECT", "quarantine ls"])
def test_where_there_is_no_project_nothing_is_made(
    command: str, alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A look does not leave a ledger behind."""
    assert ended(monkeypatch, *command.split()) == 2
    assert "is no penstock project" in capsys.readouterr().err
    assert list(alone.iterdir()) == []


def test_the_doctor_tells_the_store_that_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where no MinIO is found from here."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(project))
    home = project / ".penstock"
    ended(monkeypatch, "doctor")
    assert "found: no; the embedded store is used (make minio)" in capsys.readouterr().out
    write_made(home, RUNTIME_FILE, {"pid": os.getpid(), "PENSTOCK_S3_ENDPOINT": "127.0.0.1:9"})
    for kind, told in (("minio", "MinIO"), ("embedded", "the embedded one")):
        (home / KIND_FILE).write_text(kind)
        (found,) = [one for one in examine(load_settings(project)) if one.part == "minio"]
        assert found.says == f"the store that runs is {told}; found from here: no"


def test_what_is_away_sends_one_to_the_doctor(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless the message says what to do already."""

    def away(*_: object) -> None:
        raise StoreUnavailable("the object store does not answer")

    monkeypatch.setattr(cli, "invoke", away)
    assert ended(monkeypatch, "sweep") == 1
    assert capsys.readouterr().err == (
        "penstock: the object store does not answer; to look at every part: penstock doctor\n"
    )


def test_a_file_that_one_may_not_read_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With whose turn it is, and no traceback."""

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "secrets.json")

    monkeypatch.setattr(cli, "invoke", refused)
    assert ended(monkeypatch, "status") == 1
    assert (
        capsys.readouterr().err == "penstock: secrets.json: Permission denied. Run penstock as the user whose it is\n"
    )


def test_what_is_penstocks_fault_keeps_its_traceback(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is to be reported."""

    def wrong(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "invoke", wrong)
    monkeypatch.setattr(sys, "argv", ["penstock", "status"])
    with pytest.raises(ZeroDivisionError):
        main()
