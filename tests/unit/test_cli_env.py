"""`penstock env`, and where Prefect has its folder: what is of another Prefect is neither shown, sent nor touched."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.cli.main import cli

PASSWORD = "user:it's a password"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that has a server."""
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    (tmp_path / "flows").mkdir()
    monkeypatch.setenv("PENSTOCK_PREFECT_API_URL", "http://own:login@127.0.0.1:4200/api")
    monkeypatch.setenv("PENSTOCK_PREFECT_AUTH", PASSWORD)
    return tmp_path


def run(project: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--project", str(project), "env", *arguments])


def test_without_being_asked_no_password_is_printed(project: Path) -> None:
    """Neither the server's nor the one in its address; what is missing is said beside."""
    done = run(project)
    assert done.exit_code == 0
    assert "export PREFECT_API_URL=http://127.0.0.1:4200/api" in done.stdout
    assert "login" not in done.output
    assert "password=" not in done.stdout
    assert "it's" not in done.output
    assert "--with-password" in done.stderr
    assert "PREFECT_API_AUTH_STRING" not in json.loads(run(project, "--json").stdout)


def test_a_shell_reads_it(project: Path) -> None:
    """With the password as it is, in place of what was there for another server."""
    lines = run(project, "--with-password").stdout
    there = {"PREFECT_API_KEY": "other", "PREFECT_PROFILE": "other", "PREFECT_API_AUTH_STRING": "other"}
    shown = f"{lines}{shlex.quote(sys.executable)} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    done = subprocess.run(
        ["sh", "-c", shown], env={**os.environ, **there}, capture_output=True, text=True, timeout=30, check=True
    )
    found = {name: value for name, value in json.loads(done.stdout).items() if name.startswith("PREFECT_")}
    assert found == {
        **{name: value for name, value in os.environ.items() if name.startswith("PREFECT_")},
        **json.loads(run(project, "--with-password", "--json").stdout),
    }
    assert found["PREFECT_API_AUTH_STRING"] == PASSWORD
    assert found["PREFECT_API_URL"] == "http://own:login@127.0.0.1:4200/api"
    assert found["PREFECT_PROFILES_PATH"] == str(project / ".penstock" / "prefect" / "profiles.toml")


def test_no_password_is_printed_onto_a_terminal(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stay there to be read."""
    monkeypatch.setattr("penstock.cli.env.on_terminal", lambda: True)
    done = run(project, "--with-password")
    assert done.stdout == ""
    assert "no password is printed onto a terminal" in str(done.exception)


def test_a_flow_file_does_not_bring_its_users_prefect(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file of flows/ may import Prefect before a server is known: the folder is the project's from then on."""
    home = tmp_path_factory.mktemp("home")
    (home / ".prefect").mkdir()
    # Whoever reads it fails.
    (home / ".prefect" / "profiles.toml").write_text("active = [\n")
    (project / "flows" / "nightly.py").write_text(
        "from penstock import Deployment\nfrom prefect import flow\n\n@flow\ndef nightly(): pass\n\n"
        "DEPLOYMENTS = [Deployment(flow=nightly)]\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "PREFECT_"))}
    argv = [sys.executable, "-m", "penstock.cli", "--project", str(project), "plan"]
    other = {"PREFECT_PROFILE": "other", "PREFECT_API_KEY": "of-another-server"}
    env = {**kept, **other, "HOME": str(home), "PYTHONWARNINGS": "error"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("penstock: no Prefect server")
    assert {str(path.relative_to(home)) for path in home.rglob("*")} == {".prefect", ".prefect/profiles.toml"}
    assert (project / ".penstock" / "prefect").is_dir()
