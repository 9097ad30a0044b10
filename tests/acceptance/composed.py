"""Runs docker-compose.yml without docker: every service's own command with its own environment, as a process.

What a container engine would give is stood in for by what this machine has, and nothing else is changed: a service's
name is 127.0.0.1 for those that share a network with it, a port is a free one, a mounted path is a folder of the test.
PostgreSQL is a private server of this machine. As root, each process runs as the user that its container would run as,
where that user can reach this Python.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Any

import pytest

from penstock.cli.free_ports import free_port
from penstock.object_server import find_minio
from tests import compose_file
from tests.compose_file import ROOT, SERVICES, seconds
from tests.real_postgres import RealPostgres, real_postgres
from tests.waiting import wait_for

# What Compose gives a service that says nothing.
GRACE = "10s"
# The images' own port of PostgreSQL; the file publishes every other.
POSTGRES_PORT = "5432"
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass(kw_only=True)
class Composition:
    """The services, each in a folder of its own that stands for its container."""

    folder: Path
    services: dict[str, dict[str, Any]]
    postgres: RealPostgres
    variables: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        """The user's own folder, where docker-compose.yml lies."""
        return self.folder / "project"

    @property
    def app(self) -> Path:
        """What is /app in the image."""
        return self.folder / "app"

    @cached_property
    def user_works(self) -> bool:
        """Whether processes can run as another user: for root, where that user can reach Python and its packages."""
        if os.geteuid() != 0:
            return False
        uid = int(compose_file.image("worker").user.partition(":")[0])
        probe = [sys.executable, "-c", "import penstock.cli.main, prefect"]
        try:
            subprocess.run(
                probe, user=uid, group=uid, extra_groups=[], env={}, cwd="/", capture_output=True, check=True
            )
        except (PermissionError, subprocess.CalledProcessError):
            return False
        return True

    def prepare(self) -> None:
        """Do what a user does before `docker compose up`, and what the Dockerfiles do."""
        # A container's user must be able to reach it.
        self.folder.chmod(0o755)
        shutil.copytree(ROOT / "docker", self.project / "docker", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / ".env.example", self.project)
        subprocess.run([sys.executable, "docker/make_env.py"], cwd=self.project, env={}, check=True, timeout=30)
        for published, inside in self._published():
            self.ports[inside] = free_port()
            self._set_in_env(published, str(self.ports[inside]))
        self.ports[POSTGRES_PORT] = self.postgres.port
        self.variables = compose_file.variables_of((self.project / ".env").read_text())
        self._make_app()
        # A volume takes owner and mode from the folder in the image.
        for name, service in self.services.items():
            for source, _ in compose_file.volumes(service):
                if "/" not in source and name != "postgres":
                    self._own(self.folder / "volumes" / source, compose_file.image(name).user, 0o700)
        binary = find_minio()
        assert binary is not None
        (self.folder / "bin").mkdir()
        shutil.copy(binary, self.folder / "bin" / "minio")

    def up(self) -> None:
        """Start everything, each when what it depends on is as far as it asks, and wait until all is healthy."""
        for name in compose_file.start_order(self.services):
            for other, how in self.services[name].get("depends_on", {}).items():
                if how["condition"] == "service_healthy":
                    self.wait_healthy(other)
                elif how["condition"] == "service_completed_successfully":
                    assert self.running[other].wait(120) == 0, f"{other} ended with {self.running[other].returncode}"
            self.start(name)
        for name in self.running:
            if "healthcheck" in self.services[name]:
                self.wait_healthy(name)

    def start(self, name: str) -> None:
        """Start a service (again), in a container whose memory is empty."""
        if name == "postgres":
            return self._init_postgres()
        for path, options in compose_file.memory_folders(self.services[name]):
            target = self._place(name, path)
            shutil.rmtree(target, ignore_errors=True)
            owner = f"{options['uid']}:{options['gid']}" if "uid" in options else ""
            self._own(target, self._filled(name, owner), int(options["mode"], 8))
        with self._log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                self._argv(name),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_end_with_the_tests,
                **self._container(name),
            )
        return None

    def kill(self, name: str) -> None:
        """Send SIGKILL to a service's process; with it the engine ends all that is in the container."""
        self.running[name].kill()
        self.running[name].wait(30)
        self._empty(name)

    def stop(self, name: str) -> int:
        """End a service as `docker compose stop` does, within its grace period; returns its exit code."""
        process, grace = self._process(name), seconds(self.services[name].get("stop_grace_period", GRACE))
        # The image of PostgreSQL has another STOPSIGNAL.
        process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
        try:
            code = process.wait(grace)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{name} did not end within {grace} s of SIGTERM") from None
        self._empty(name)
        return code

    def wait_healthy(self, name: str) -> None:
        """Wait until a service's own health check succeeds, for as long as the check allows."""
        check = self.services[name]["healthcheck"]
        form, *argv = check["test"]
        assert form == "CMD"
        process = self._process(name)
        said: dict[str, str] = {}

        def healthy() -> bool:
            assert process.poll() is None, f"{name} ended with {process.returncode}"
            try:
                done = self.execute(name, *argv, limit=seconds(check["timeout"]))
            except subprocess.TimeoutExpired:
                return False
            said["last"] = done.stdout + done.stderr
            return done.returncode == 0

        limit = seconds(check["start_period"]) + check["retries"] * seconds(check["interval"])
        try:
            wait_for(healthy, seconds=limit, what=f"{name} is healthy")
        except AssertionError as error:
            error.add_note(f"the health check of {name} said: {said.get('last', '')[-1000:]}")
            raise

    def execute(self, name: str, *argv: str, limit: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command in a service's container, as `docker compose exec` does."""
        return self._run(name, [self._filled(name, word) for word in argv], limit)

    def facts(self, name: str, *argv: str) -> Any:
        """What a penstock command prints with --json in a service's container."""
        done = self.execute(name, "penstock", *argv, "--json")
        assert done.returncode == 0 or done.stdout, done.stderr
        return json.loads(done.stdout)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """`docker compose run --rm query SQL`; nothing while there is no warehouse or no such table."""
        entry = self.services["query"]["entrypoint"]
        done = self.execute("query", *entry, "--json", sql)
        if done.returncode and re.search("there is no warehouse at|does not exist", done.stderr):
            return []
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def tails(self) -> str:
        """The ends of all logs."""
        logs = [*sorted((self.folder / "logs").glob("*")), self.postgres.folder / "log"]
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in logs)

    def end(self) -> None:
        """End what still runs, at once."""
        for name in reversed(list(self.running)):
            if self.running[name].poll() is None:
                self.running[name].kill()
                self.running[name].wait(30)
            self._empty(name)

    def _run(self, name: str, argv: list[str], limit: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, capture_output=True, text=True, timeout=limit, check=False, **self._container(name))

    def _process(self, name: str) -> subprocess.Popen[bytes]:
        process = self.postgres.process if name == "postgres" else self.running[name]
        assert process is not None
        return process

    def _log(self, name: str) -> Path:
        (self.folder / "logs").mkdir(exist_ok=True)
        return self.folder / "logs" / f"{name}.log"

    def _argv(self, name: str) -> list[str]:
        words = compose_file.command_line(self.services[name], compose_file.image(name))
        return [self._filled(name, word) for word in words]

    def _container(self, name: str) -> dict[str, Any]:
        """What `subprocess` needs to run something in the service's container."""
        image, service = compose_file.image(name), self.services[name]
        base = {
            "PATH": f"{self.folder / 'bin'}:{self.postgres.binaries}:{os.environ.get('PATH', os.defpath)}",
            "TMPDIR": str(self._place(name, "/tmp")),  # noqa: S108 - a path in the container
        }
        of_image = {key: Template(self._local(name, value)).substitute(base) for key, value in image.env.items()}
        own = {key: self._filled(name, value) for key, value in service.get("environment", {}).items()}
        if name == "postgres":
            # In its container all three are what psql takes by itself.
            own |= {"PGPORT": str(self.postgres.port), "PGHOST": "127.0.0.1", "PGPASSWORD": own["POSTGRES_PASSWORD"]}
        home = self._place(name, "/")
        home.mkdir(parents=True, exist_ok=True)
        arguments: dict[str, Any] = {
            "env": base | of_image | own,
            "cwd": self.app if image.workdir == "/app" else home,
        }
        user = self._filled(name, service.get("user", image.user))
        if self.user_works and ":" in user:
            uid, gid = user.split(":")
            arguments |= {"user": int(uid), "group": int(gid), "extra_groups": []}
        return arguments

    def _filled(self, name: str, text: str) -> str:
        # Variables last: nothing in a secret may be taken for a port or a path.
        return compose_file.interpolated(self._local(name, text), self.variables)

    def _local(self, name: str, text: str) -> str:
        """The text with hosts, ports and paths of the service's container as they are on this machine."""
        near = set(self.services[name].get("networks", []))
        for other, service in self.services.items():
            if near & set(service.get("networks", [])):
                text = re.sub(rf"(?<![\w.-]){other}(?=:\d)", "127.0.0.1", text)
        for port, free in self.ports.items():
            text = re.sub(rf"(?<![\w.]){port}(?!\w)", str(free), text)
        text = text.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - it is what goes away
        # At once, so that no folder of this machine is taken for one of the container.
        paths = "|".join(map(re.escape, self._mounted(name)))
        return re.sub(rf"(?<![\w./-])({paths})(?![\w-])", lambda found: str(self._place(name, found[1])), text)

    def _mounted(self, name: str) -> list[str]:
        service = self.services[name]
        mounted = [target for _, target in compose_file.volumes(service)]
        mounted += [path for path, _ in compose_file.memory_folders(service)]
        # The longest first: one may lie in another.
        return sorted({*mounted, "/app"}, key=len, reverse=True)

    def _place(self, name: str, path: str) -> Path:
        """Where a path of the service's container lies on this machine."""
        if path == "/app":
            return self.app
        for source, target in compose_file.volumes(self.services[name]):
            if target == path:
                return self.project / source if "/" in source else self.folder / "volumes" / source
        return self.folder / "containers" / name / path.lstrip("/")

    def _own(self, path: Path, owner: str, mode: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        if self.user_works and ":" in owner:
            os.chown(path, *map(int, owner.split(":")))

    def _published(self) -> Iterator[tuple[str, str]]:
        for service in self.services.values():
            for port in service.get("ports", []):
                found = re.fullmatch(r"127\.0\.0\.1:\$\{(\w+):-(\d+)\}:(\d+)", port)
                assert found, port
                yield found[1], found[3]

    def _set_in_env(self, variable: str, value: str) -> None:
        path = self.project / ".env"
        text, count = re.subn(rf"^{variable}=.*$", f"{variable}={value}", path.read_text(), flags=re.MULTILINE)
        assert count == 1, variable
        path.write_text(text)

    def _make_app(self) -> None:
        """What the Dockerfile copies to /app, and no more; its virtual environment is this one."""
        for line in compose_file.instructions("worker"):
            found = re.fullmatch(r"COPY (\S+) /app/(\S+)", line)
            if found and (ROOT / found[1]).is_dir():
                shutil.copytree(ROOT / found[1], self.app / found[2], ignore=shutil.ignore_patterns("__pycache__"))
            elif found:
                (self.app / found[2]).mkdir(parents=True)
                shutil.copy(ROOT / found[1], self.app / found[2])
        (self.app / ".venv").symlink_to(sys.prefix)

    def _init_postgres(self) -> None:
        """What the image does at its first start: the superuser's password, and the script that was copied to it."""
        self.postgres.execute(f"ALTER ROLE postgres PASSWORD '{self.variables['DB_ADMIN_PASSWORD']}'")
        self.postgres.password = self.variables["DB_ADMIN_PASSWORD"]
        copied = [line.split()[-2] for line in compose_file.instructions("postgres") if line.startswith("COPY ")]
        assert copied
        for script in copied:
            done = self._run("postgres", ["sh", str(self.project / "docker" / script)])
            assert done.returncode == 0, done.stderr
        self.postgres.execute("CREATE DATABASE warehouse OWNER ledger")

    def _empty(self, name: str) -> None:
        """End what a service's first process left behind, as an engine does."""
        for pid in self.left(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.left(name), seconds=10, what=f"nothing of {name} runs")

    def left(self, name: str) -> list[int]:
        """The processes in a service's container."""
        mark = f"{self.folder / 'containers' / name}/".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # gone since, or not ours to see
                if mark in (entry / "environ").read_bytes() and "Z" not in _state(entry):
                    found.append(int(entry.name))
        return found


@contextmanager
def composed(override: Mapping[str, Any]) -> Iterator[Composition]:
    """The compose file with an override, prepared but not started; everything is ended at the end, also on failure."""
    if find_minio() is None:
        reason = "there is no MinIO: make minio"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with real_postgres() as postgres:
        folder = Path(tempfile.mkdtemp(prefix="penstock-compose-"))
        composition = Composition(folder=folder, services=_overridden(override), postgres=postgres)
        try:
            composition.prepare()
            yield composition
        except BaseException as error:
            error.add_note(composition.tails())
            raise
        finally:
            composition.end()
            shutil.rmtree(folder, ignore_errors=True)


def _overridden(override: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    services = deepcopy(SERVICES)
    for name, changes in override.items():
        for key, value in changes.items():
            if value is None:
                del services[name][key]
            elif isinstance(value, dict):
                services[name][key] = {**services[name].get(key, {}), **value}
            else:
                services[name][key] = value
    return services


def _state(entry: Path) -> str:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0]


def _end_with_the_tests() -> None:
    # After setuid, which would clear it.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
