"""The process tree of `penstock up`: supervised, alone in its folder, closed to web pages, and gone when it ends."""

from __future__ import annotations

import os
import signal
import stat

import httpx
import pytest

from tests.acceptance.running import Up, weather
from tests.waiting import wait_for


def test_a_second_up_of_the_same_folder_is_refused(up: Up) -> None:
    """One `up` per project folder: the second says so and ends with 2."""
    done = up.run("up", check=False)
    assert done.returncode == 2
    assert "another `penstock up` runs" in done.stderr


def test_applying_again_changes_nothing(up: Up) -> None:
    """`penstock apply` after `up` finds everything as declared."""
    assert {one["done"] for one in up.facts("apply")} == {"unchanged"}


def test_the_commands_beside_it_work(up: Up) -> None:
    """`status`, `sweep` and `doctor` answer while `up` runs; `doctor` shows no secret."""
    assert up.facts("status")["up"] == up.process.pid if up.process else False
    assert up.facts("sweep")["landing"]["recorded"] == 0
    doctor = up.run("doctor")
    secrets = [value for name, value in up.made().items() if "SECRET" in name or "TOKEN" in name or "AUTH" in name]
    assert secrets
    assert not [secret for secret in secrets if secret in doctor.stdout]


def test_a_query_cannot_write(up: Up) -> None:
    """`penstock query` reads only."""
    done = up.run("query", "CREATE TABLE mine (x INT)", check=False)
    assert done.returncode == 1
    assert "penstock:" in done.stderr


def test_secrets_are_the_owners_alone(up: Up) -> None:
    """The secrets that `up` made are mode 600, and appear in no log and no command line."""
    assert stat.S_IMODE((up.home / "secrets.json").stat().st_mode) == 0o600
    secrets = [value for name, value in up.made().items() if "SECRET" in name or "TOKEN" in name or "AUTH" in name]
    logs = "".join(path.read_text(errors="replace") for path in (up.home / "logs").glob("*.log"))
    shown = logs + (up.folder / "up.log").read_text() + " ".join(up.pids())
    assert not [secret for secret in secrets if secret in shown]


def test_no_web_page_may_drive_prefect(up: Up) -> None:
    """Prefect's API wants the password, and tells browsers of other origins to keep out."""
    api = up.made()["PENSTOCK_PREFECT_API_URL"]
    plain = httpx.post(f"{api}/flow_runs/filter", json={})
    preflight = httpx.options(
        f"{api}/flow_runs/filter",
        headers={"origin": "http://evil.example", "access-control-request-method": "POST"},
    )
    assert plain.status_code == 401
    assert preflight.headers.get("access-control-allow-origin") not in ("*", "http://evil.example")


# The soak and the faults from outside, which CI runs too, kill the others.
_ALSO = [pytest.param(part, marks=[pytest.mark.slow, pytest.mark.long]) for part in ("serve", "relay", "minio server")]


@pytest.mark.parametrize("part", ["sensors", "penstock.worker.main", "prefect_app", *_ALSO])
def test_a_killed_part_comes_back_and_loses_nothing(up: Up, part: str) -> None:
    """A kill -9 of any part costs time only: it is started again, and a file dropped meanwhile is loaded once."""
    before = {command: pid for command, pid in up.pids().items() if part in command}
    assert before, part
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    name = f"killed-{part.replace(' ', '-')}.csv"
    (up.inbox / "weather" / name).write_text(weather(5, year=2044))
    story = up.ends_as(f"weather/{name}", "loaded")
    assert story["rows"] == 5
    assert up.rows("weather", f"weather/{name}") == 5
    after = wait_for(
        lambda: {command: pid for command, pid in up.pids().items() if part in command},
        seconds=30,
        what=f"{part} is back",
    )
    assert not set(after.values()) & set(before.values())


@pytest.mark.slow
def test_kill_9_of_up_leaves_nothing_running(own: Up) -> None:
    """Even kill -9 of `up` itself leaves no process behind."""
    own.start()
    assert own.pids()
    assert own.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_for(lambda: not own.pids(), seconds=30, what=f"nothing is left running: {own.pids()}")
