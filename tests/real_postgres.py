"""A private PostgreSQL server for tests, from the machine's own binaries: one for the whole run, a database per test.

It runs as an unprivileged user when the tests run as root, listens on a free loopback port with a random password, and
ends with the process that started it, however that ends.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from penstock.cli.free_ports import free_port
from tests.waiting import wait_for

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_numbers = count(1)

# Without fsync a kill -9 of the server loses nothing that was committed; only a power cut would.
_FAST = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB", "max_connections": "200"}


@dataclass(frozen=True, kw_only=True)
class Account:
    """Whom the server runs as; `subprocess`'s arguments for it. Empty: whoever runs the tests."""

    uid: int | None = None
    gid: int | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """For `subprocess.Popen`."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, *paths: Path) -> None:
        """Give it these paths."""
        for path in paths:
            if self.uid is not None and self.gid is not None:
                os.chown(path, self.uid, self.gid)


@dataclass(kw_only=True)
class RealPostgres:
    """A server that runs. `process` is its first process; `folder` holds its data, socket and log."""

    binaries: Path
    folder: Path
    account: Account
    port: int
    password: str
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", *, scheme: str = "postgresql") -> str:
        """The superuser's URL of a database."""
        return f"{scheme}://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def ledger_url(self) -> str:
        """The URL of the database `ledger`, made at the first call and empty."""
        return self._own_database("ledger", "postgresql+psycopg")

    def warehouse_url(self) -> str:
        """The URL of the database `warehouse`, made at the first call and empty."""
        return self._own_database("warehouse", "postgresql")

    def start(self) -> None:
        """Start it (again) on the same port and data, and wait until it answers."""
        settings = {
            **_FAST,
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
        }
        given = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            process = self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.folder / "data", *given],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=_environment(),
                preexec_fn=_end_with_the_tests,
                **self.account.arguments,
            )

        def answers() -> bool:
            assert process.poll() is None, f"PostgreSQL ended: {(self.folder / 'log').read_text()[-2000:]}"
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                return False
            return True

        wait_for(answers, seconds=60, what=f"PostgreSQL answers at port {self.port}")

    def kill(self) -> None:
        """Send SIGKILL to the server and wait until all of its processes are gone."""
        if self.process:
            self.process.kill()
            self.process.wait(30)
            pid_file = self.folder / "data" / "postmaster.pid"
            # Its children notice the death by themselves; a new server refuses the data until the last one is gone.
            wait_for(lambda: not _users_of(self.folder / "data"), seconds=30, what="the server's processes end")
            pid_file.unlink(missing_ok=True)

    def stop(self) -> None:
        """End it at once and wait until it is gone."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """One statement as superuser, outside a transaction."""
        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement.encode())

    def create(self, template: str = "template0") -> str:
        """A new database, as `template` is now; returns its name."""
        name = f"test_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _own_database(self, name: str, scheme: str) -> str:
        with suppress(psycopg.errors.DuplicateDatabase):
            self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name, scheme=scheme)

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """A database of its own for one test; yields its name and removes it at the end."""
        name = self.create(template)
        try:
            yield name
        finally:
            self.drop(name)


@cache
def shared_postgres() -> RealPostgres:
    """The server that all tests of a run share; skips the test where PostgreSQL is not installed, fails it in CI."""
    server = make_postgres()
    atexit.register(_end, server)
    server.start()
    return server


@cache
def prepared(name: str, make: Callable[[str], None]) -> str:
    """A database `name` on the shared server that `make` filled once, by its URL: a template for many."""
    server = shared_postgres()
    server.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    make(server.url(name, scheme="postgresql+psycopg"))
    return name


@contextmanager
def real_postgres() -> Iterator[RealPostgres]:
    """A server of the test's own, which it may kill."""
    server = make_postgres()
    try:
        server.start()
        yield server
    finally:
        _end(server)


def make_postgres() -> RealPostgres:
    """A server with fresh data, not started."""
    binaries = _binaries()
    account = _account()
    folder = Path(tempfile.mkdtemp(prefix="penstock-pg-"))
    password, secret = secrets.token_hex(16), folder / "password"
    secret.write_text(password)
    account.own(folder, secret)
    made = subprocess.run(
        [
            binaries / "initdb",
            *("-D", folder / "data", "--username=postgres", "--auth=scram-sha-256", f"--pwfile={secret}"),
            *("--encoding=UTF8", "--locale=C", "--no-sync"),
        ],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **account.arguments,
    )
    if made.returncode:
        shutil.rmtree(folder)
        raise AssertionError(made.stdout + made.stderr)
    secret.unlink()
    return RealPostgres(binaries=binaries, folder=folder, account=account, port=free_port(), password=password)


def _binaries() -> Path:
    for folder in _candidates():
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    reason = "PostgreSQL's server is not installed: apt-get install postgresql"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _candidates() -> Iterator[Path]:
    if asked := shutil.which("pg_config"):
        yield Path(subprocess.run([asked, "--bindir"], capture_output=True, text=True, check=True).stdout.strip())
    if found := shutil.which("initdb"):
        yield Path(found).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)


def _account() -> Account:
    if os.geteuid() != 0:
        return Account()
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = known.get("postgres") or known["nobody"]
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _end_with_the_tests() -> None:
    # After setuid, which would clear it.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _users_of(data: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == data:
                found.append(entry.name)
        except OSError:  # gone since, or not ours to see
            continue
    return found


def _end(server: RealPostgres) -> None:
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)
