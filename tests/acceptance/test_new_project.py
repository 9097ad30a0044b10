"""From a wheel and an empty folder: `penstock new`, its own test, `up`, and a file becomes a table."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.acceptance.running import ROOT, Up
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

_ORDERS = "id,amount\n1,10.50\n2,20.25\n"


@dataclass(kw_only=True)
class Installed(Up):
    """A project that runs with the penstock of its own environment, as its user starts it."""

    uv: str
    store: str = "embedded"
    clean: Mapping[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """How packages are to be had, and nothing else of this machine's."""
        return {**self.clean, "PENSTOCK_STORE": self.store, **self.extra}

    def start(self) -> None:
        """`uv run penstock up` in a session of its own, so that it is ended as a terminal's Ctrl-C ends it."""
        log = self.folder / "up.log"
        with log.open("ab") as output:
            process = self.process = subprocess.Popen(
                [self.uv, "run", "penstock", "up"],
                cwd=self.folder,
                env=self.env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

        def ready() -> bool:
            assert process.poll() is None, f"up ended with {process.returncode}: {log.read_text()}"
            return b"Ready." in log.read_bytes()

        wait_for(ready, seconds=180, what=f"penstock up is ready; its log is {log}")

    def stop(self, number: int = signal.SIGINT) -> int:
        """End the whole session; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
        try:
            return self.process.wait(60)
        finally:
            # Its session is its own, and each part dies with it.
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def run(self, *arguments: str, check: bool = True, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command of the project's own penstock."""
        return _run([self.uv, "run", "penstock", *arguments], self.folder, self.env, check=check, seconds=seconds)

    def said(self) -> str:
        """What `up` has said so far."""
        return (self.folder / "up.log").read_text()


@dataclass(frozen=True, kw_only=True)
class Ground:
    """An environment that has nothing but the wheel, and a clean home."""

    folder: Path
    uv: str
    wheel: Path
    env: Mapping[str, str]

    def new(self, name: str) -> Installed:
        """A new project with its environment, which gets the versions of this repository's lock file."""
        _run([str(self.folder / "tool" / "bin" / "penstock"), "new", name], self.folder, self.env)
        project = self.folder / name
        declared = project / "pyproject.toml"
        constraints = (self.folder / "constraints.txt").read_text().splitlines()
        # What was released since must not decide how this test ends.
        listed = ",\n".join(f"  {line!r}" for line in constraints if line and not line.startswith((" ", "#", "-")))
        declared.write_text(
            declared.read_text().replace("[tool.uv]\n", f"[tool.uv]\nconstraint-dependencies = [\n{listed}\n]\n")
        )
        _run([self.uv, "sync", "--quiet", "--compile-bytecode"], project, self.env)
        return Installed(folder=project, uv=self.uv, clean=self.env)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    uv = shutil.which("uv") or shutil.which(ROOT / ".uv" / "bin" / "uv")
    assert uv, "the test needs uv, as the project does"
    folder = tmp_path_factory.mktemp("ground")
    env = _clean(folder / "home", uv)
    _run([uv, "build", "--quiet", "--wheel", "--out-dir", str(folder / "dist"), str(ROOT)], folder, env)
    (wheel,) = (folder / "dist").glob("*.whl")
    exported = ["--frozen", "--no-dev", "--group", "dev", "--no-emit-project", "--no-hashes", "--quiet"]
    _run([uv, "export", *exported, "--output-file", str(folder / "constraints.txt")], ROOT, env)
    python = folder / "tool" / "bin" / "python"
    _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder / "tool")], folder, env)
    constrained = ["--constraints", str(folder / "constraints.txt")]
    _run([uv, "pip", "install", "--quiet", "--python", str(python), *constrained, str(wheel)], folder, env)
    return Ground(folder=folder, uv=uv, wheel=wheel, env=env)


@pytest.fixture(scope="module")
def shop(ground: Ground) -> Iterator[Installed]:
    """A project with a dataset of its user's own, running."""
    project = ground.new("shop")
    try:
        (ground.folder / "orders.csv").write_text(_ORDERS)
        project.run("init-dataset", "../orders.csv")
        project.start()
        yield project
    finally:
        if project.process is not None:
            project.stop()


def test_the_wheel_is_the_engine_alone(ground: Ground) -> None:
    """It has migrations, template and types, and none of this repository's own declarations or tests."""
    with zipfile.ZipFile(ground.wheel) as archive:
        names = set(archive.namelist())
    assert {re.sub(r"-[^/]*dist-info/.*|/.*", "", name) for name in names} == {"penstock"}
    source = ROOT / "src" / "penstock"
    shipped = [path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {f"penstock/{path.relative_to(source).as_posix()}" for path in shipped} <= names
    for needed in ("py.typed", "ledger/migrations/script.py.mako", "template/.gitignore", "template/flows/sales.py"):
        assert f"penstock/{needed}" in names


@pytest.mark.long
def test_a_new_project_passes_its_own_test(shop: Installed) -> None:
    """As it was generated, in its own environment, with pytest alone."""
    done = _run([shop.uv, "run", "pytest", "-q"], shop.folder, shop.env)
    assert "2 passed" in done.stdout


@pytest.mark.long
def test_files_become_tables(shop: Installed) -> None:
    """The example and a file of one's own, for which one command was needed, are loaded on arrival."""
    shutil.copy(shop.folder / "examples" / "sales.csv", shop.inbox / "sales")
    shutil.copy(shop.folder.parent / "orders.csv", shop.inbox / "orders")
    assert shop.ends_as("sales/sales.csv", "loaded")["rows"] == 11
    assert shop.ends_as("orders/orders.csv", "loaded")["rows"] == 2
    found = shop.facts("query", "SELECT category, count(*) AS n FROM sales GROUP BY ALL ORDER BY ALL")
    assert found == [{"category": "high", "n": 2}, {"category": "low", "n": 6}, {"category": "medium", "n": 3}]
    assert shop.facts("query", "SELECT sum(amount) AS total FROM orders") == [{"total": 30.75}]


@pytest.mark.long
def test_nobody_may_post_without_the_secret(shop: Installed) -> None:
    """The webhook that comes with the project refuses what is not signed."""
    address = f"http://127.0.0.1:{shop.made()['PENSTOCK_PORT']}/hooks/sales"
    assert httpx.post(address, json={"id": 1}, timeout=10).status_code == 401


@pytest.mark.long
def test_two_projects_share_a_machine_and_a_prefect_server(ground: Ground, shop: Installed) -> None:
    """A second one whose ports are taken chooses others and says so; each loads its own, and would change no more."""
    made = shop.made()
    depot = ground.new("depot")
    depot.extra = {
        "PENSTOCK_PORT": str(made["PENSTOCK_PORT"]),
        "PENSTOCK_PREFECT_API_URL": made["PENSTOCK_PREFECT_API_URL"],
        "PENSTOCK_PREFECT_AUTH": made["PENSTOCK_PREFECT_AUTH"],
    }
    try:
        depot.start()
        assert f"({made['PENSTOCK_PORT']} is taken)" in depot.said()
        assert depot.made()["PENSTOCK_S3_ENDPOINT"] != made["PENSTOCK_S3_ENDPOINT"]
        text = (depot.folder / "examples" / "sales.csv").read_text()
        (depot.inbox / "sales" / "depots.csv").write_text(text)
        (shop.inbox / "sales" / "shops.csv").write_text(text)
        assert depot.ends_as("sales/depots.csv", "loaded")["rows"] == 11
        assert shop.ends_as("sales/shops.csv", "loaded")["rows"] == 11
        assert (depot.rows("sales", "shops.csv"), shop.rows("sales", "depots.csv")) == (0, 0)
        assert (depot.why("sales/shops.csv"), shop.why("sales/depots.csv")) == ([], [])
        for project in (depot, shop):
            planned = project.run("plan", "--prune", "--detailed-exitcode", check=False)
            assert planned.returncode == 0, planned.stdout
        user, _, password = made["PENSTOCK_PREFECT_AUTH"].partition(":")
        url = f"{made['PENSTOCK_PREFECT_API_URL']}/deployments/filter"
        there = httpx.post(url, json={}, auth=(user, password), timeout=10).json()
        pools = {one["name"]: one["work_pool_name"] for one in there}
        assert pools.items() >= {("shop.sales", "shop"), ("depot.sales", "depot"), ("shop", "shop"), ("depot", "depot")}
    finally:
        if depot.process is not None:
            depot.stop()
    assert shop.process is not None
    assert shop.process.poll() is None


def _clean(home: Path, uv: str) -> dict[str, str]:
    """An environment without this one's settings and packages; how packages are to be had stays."""
    home.mkdir()
    # Written once, and found there by every test run.
    cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    configuration = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    dropped = ("PENSTOCK_", "PREFECT_", "PYTHON", "VIRTUAL_ENV", "PYTEST_", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    # The project's own python, and not this one's scripts: where its `penstock` comes from is what is tested.
    paths = [path for path in kept["PATH"].split(os.pathsep) if Path(path) != Path(sys.executable).parent]
    return {
        **kept,
        "PATH": os.pathsep.join(paths),
        "HOME": str(home),
        "XDG_CONFIG_HOME": configuration,
        "UV_CACHE_DIR": cache,
        "UV_PYTHON": sys.executable,
    }


def _run(
    argv: list[str], folder: Path, env: Mapping[str, str], *, check: bool = True, seconds: float = 240
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, cwd=folder, env=dict(env), capture_output=True, text=True, timeout=seconds, check=False)
    assert not check or done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
