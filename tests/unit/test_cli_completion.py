"""What a shell offers after TAB, and that it is made of nothing but what is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class
from click.testing import CliRunner

from penstock.cli.main import cli
from penstock.declarations import Dataset
from penstock.ledger import Ledger
from penstock.ledger.arrivals import Seen
from penstock.model import Stat, Via

# Whoever runs it has an exception, and its name is read all the same.
_DECLARES = 'raise RuntimeError\nfrom penstock import {kind}\nX = {kind}(name="{name}")\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Datasets, a source, and a file that is no Python."""
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    for folder, kind, names in (
        ("flows", "Dataset", ("orders", "other", "weather")),
        ("webhook", "Source", ("github",)),
    ):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.py").write_text(_DECLARES.format(kind=kind, name=name))
    (tmp_path / "flows" / "broken.py").write_text("def (")
    (tmp_path / "elsewhere" / "flows").mkdir(parents=True)
    (tmp_path / "elsewhere" / "flows" / "a.py").write_text(_DECLARES.format(kind="Dataset", name="there"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offered(*words: str) -> list[str]:
    """What a shell offers for the last word."""
    kind = get_completion_class("bash")
    assert kind is not None
    completing = kind(cli, {}, "penstock", "_PENSTOCK_COMPLETE")
    return [item.value for item in completing.get_completions(list(words[:-1]), words[-1])]


def there(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("stat",), ["status"]),
        (("deliveries", "sh"), ["show"]),
        (("status", "--js"), ["--json"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("profile", ""), ["orders", "other", "weather"]),
        (("profile", "o"), ["orders", "other"]),
        (("schema", "x"), []),
        (("replay", "--dataset", "we"), ["weather"]),
        (("quarantine", "rejected", "we"), ["weather"]),
        (("send", ""), ["github"]),
        (("deliveries", "ls", "--source", "g"), ["github"]),
        (("preview", "a"), ["a"]),
        (("why", "orders/"), []),
        (("--project", "elsewhere", "profile", ""), ["there"]),
    ],
    ids=" ".join,
)
def test_names_are_offered(project: Path, words: tuple[str, ...], expected: list[str]) -> None:
    """Without running the project's files, and without making one."""
    before = there(project)
    assert offered(*words) == expected
    assert there(project) == before


def test_keys_are_offered(project: Path) -> None:
    """Of the ledger on this machine, also while somebody has it open; and no file more is there afterwards."""
    home = project / ".penstock"
    ledger = Ledger(f"sqlite:///{home / 'ledger.db'}", project="shop")
    ledger.migrate(lock_folder=home)
    now = datetime.now(UTC)
    keys = [f"orders/{name}.csv" for name in ("a", "b_%", "c")] + ["weather/a.csv"]
    # What a shell would not take as one word, or run.
    strange = [f"orders/{name}.csv" for name in ("$(touch x)", "a b", "c;d", "`e`", "g'h", "i&j", "k\\l", "m*")]
    stats = [Stat(bucket="landing", key=key, etag="a", size=3, modified=now) for key in keys + strange]
    dataset = Dataset(name="orders")
    ledger.arrivals.record([Seen(stat=stat, dataset=dataset) for stat in stats], Via.BUCKET)
    assert offered("why", "orders/") == keys[:3]
    assert offered("replay", "orders/b_") == [keys[1]]
    assert offered("quarantine", "show", "orders/") == []
    assert offered("deliveries", "show", "") == []
    ledger.close()
    before = there(project)
    assert offered("why", "we") == ["weather/a.csv"]
    assert there(project) == before


@pytest.mark.parametrize(
    "wrong",
    ["PENSTOCK_PORT=none", "PENSTOCK_LEDGER_URL=postgresql://127.0.0.1:1/x", "PENSTOCK_LEDGER_URL=sqlite:////etc"],
)
def test_nothing_is_said_of_what_is_wrong(
    project: Path, wrong: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A shell's line is no place for it."""
    monkeypatch.setenv(*wrong.split("=", 1))
    assert offered("why", "orders/") == []
    assert capfd.readouterr() == ("", "")


def test_a_damaged_ledger_offers_nothing(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nor does it keep the shell waiting."""
    (project / ".penstock").mkdir()
    (project / ".penstock" / "ledger.db").write_text("no database" * 100)
    assert offered("why", "orders/") == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("words", "said"), [("profile we", "plain,weather\n"), ("quarantine replay --dataset we", "plain,weather\n")]
)
def test_a_process_that_completes_leaves_no_trace(project: Path, words: str, said: str) -> None:
    """As a shell asks it: one line for each word, no Prefect imported, and its user's home as it was."""
    home = project / "home"
    home.mkdir()
    before = there(project)
    count = str(len(words.split()))
    asked = {"COMP_WORDS": f"penstock {words}", "COMP_CWORD": count, "_PENSTOCK_COMPLETE": "bash_complete"}
    argv = [sys.executable, "-X", "importtime", "-m", "penstock.cli"]
    env = {**os.environ, **asked, "HOME": str(home)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == said
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {"prefect", "sqlalchemy", "duckdb", "pyarrow", "minio", "httpx"}
    assert there(project) == before


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one(shell: str, tmp_path: Path) -> None:
    """The shell itself can read it, where there is one."""
    made = CliRunner().invoke(cli, ["completion", shell])
    assert made.exit_code == 0
    assert "_PENSTOCK_COMPLETE=" + shell + "_complete" in made.output
    found = shutil.which(shell)
    if found is not None:
        (tmp_path / "script").write_text(made.output)
        subprocess.run([found, "-n", str(tmp_path / "script")], check=True, timeout=30)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes(project: Path) -> None:
    """Bash with the script asks `penstock`, and has its words."""
    folder = Path(sys.executable).parent
    script = (
        'eval "$(penstock completion bash)"; COMP_WORDS=(penstock profile we); COMP_CWORD=2; '
        '_penstock_completion penstock; echo "${COMPREPLY[@]}"'
    )
    env = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "weather\n"
