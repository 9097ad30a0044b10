"""What automations would do of events: asks `evaluate.py`, a process with Prefect's own evaluation in its own time.

The process starts with the first question, stays for the next ones, and ends with whoever asks.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from penstock.automations.forms import Form, stand_in, with_stand_ins
from penstock.errors import DeclarationError, PenstockError

Event = dict[str, Any]

_CODE = Path(__file__).with_name("evaluate.py")
_END_SECONDS = 5.0
_MICROSECONDS = 500
# So often is what waits for nothing to happen looked at (each firing of it counts): a trigger of 10 s over a week would
# be computed for many minutes without a word.
_MOST_PROACTIVE = 2000


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """What an action that fired would be given.

    `fields` are its templates as rendered, by their place (`parameters.day`, `body`); `needs` those that ask for what
    only a server has (`flow_run`, `variables`); `errors` those that cannot be rendered.
    """

    action: Form
    fields: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Firing:
    """One time that a trigger fires. `event` is the id of the last event of it, None where nothing had happened."""

    at: datetime
    event: str | None
    events: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    actions: tuple[Rendered, ...] = ()
    # Which of the automation's triggers, counted as they are written, a composite before what it holds.
    trigger: int = 0


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many events a trigger has counted for one value of its `for_each`, and from when to when it counts."""

    trigger: int
    labels: Mapping[str, str]
    count: int
    start: datetime
    end: datetime


@dataclass(frozen=True, kw_only=True)
class Look:
    """How near an event came to a trigger.

    `rank`: 0 its name is another, 1 a label of `match` differs, 2 no related resource fits, 3 it only begins (`after`),
    4 it is what the trigger expects.
    """

    event: str
    rank: int
    expects: bool
    starts: bool
    # Each label that differs: `label`, `wanted` (any of them), `got`.
    labels: tuple[Mapping[str, Any], ...] = ()
    # The specifications of related resources that none of the event's fits.
    related: tuple[Mapping[str, Any], ...] = ()
    # The values of the trigger's `for_each`, in the order of their labels' names.
    key: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The events that came nearest to a trigger (and those that begin its counts): `best` of them, of `of` in all."""

    trigger: int
    rank: int
    of: int
    best: tuple[Look, ...]


@dataclass(frozen=True, kw_only=True)
class Paused:
    """Which automation paused another (the last time), when, and when one resumed it."""

    by: str
    at: datetime
    end: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one automation did: when it fired; when each of its triggers did; what is counted at the end.

    `nearest` is there for one that did not fire. `refused` says why Prefect's server would not take the automation,
    and then nothing else is told.
    """

    firings: tuple[Firing, ...] = ()
    parts: tuple[Firing, ...] = ()
    counts: tuple[Count, ...] = ()
    nearest: tuple[Nearest, ...] = ()
    refused: str = ""
    paused: Paused | None = None
    # Events that wait for the one that they follow.
    waiting: tuple[str, ...] = ()
    # Events that firings caused, with what names them.
    caused: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An outcome for each form, in their order. `endless`: firings went on causing firings and were stopped.

    `stopped` is up to when it was looked, where what waits for nothing to happen was due too often to go on.
    """

    outcomes: tuple[Outcome, ...]
    endless: bool = False
    stopped: datetime | None = None


class Engine:
    """Asks one process; one question at a time."""

    def __init__(self, *, ui_url: str = "", most: int = _MOST_PROACTIVE) -> None:
        self._ui_url, self._most = ui_url, most
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._home: Path | None = None
        self._owner = 0

    def ask(self, forms: Sequence[Form], events: Sequence[Event], *, start: datetime, until: datetime) -> Answer:
        """What these automations do of these events (in the order in which they are received) from `start` to `until`.

        Raises DeclarationError for an event that Prefect's server would refuse.
        """
        request = {
            "automations": _with_ids(forms),
            "events": sorted(events, key=received),
            "start": start.isoformat(),
            "until": until.isoformat(),
            "most": self._most,
        }
        with self._lock:
            told = self._exchange(json.dumps(request, default=str))
        if "refused" in told:
            raise DeclarationError(f"Prefect's server would refuse this: {told['refused']}")
        if "failed" in told:
            raise PenstockError(f"Prefect's evaluation failed: {told['failed']}")
        outcomes = tuple(_outcome(form, one) for form, one in zip(forms, told["automations"], strict=True))
        stopped = told["stopped"]
        return Answer(outcomes=outcomes, endless=told["endless"], stopped=_moment(stopped) if stopped else None)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
            process.wait(_END_SECONDS)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            process.kill()
            process.wait(_END_SECONDS)
        finally:
            process.stdout.close()
            if self._home is not None:
                shutil.rmtree(self._home, ignore_errors=True)

    def _exchange(self, line: str) -> Any:
        stdin, stdout = self._pipes()
        try:
            stdin.write(line + "\n")
            stdin.flush()
            answer = stdout.readline()
        except BrokenPipeError:
            answer = ""
        except BaseException:
            # The answer to this question, which nobody waits for any more, must not answer the next one.
            self.close()
            raise
        # One that ends in the middle of its answer has not answered.
        if not answer.endswith("\n"):
            said = self._said()
            self.close()
            raise PenstockError(f"the simulation's process ended: {said or 'it said nothing'}")
        return json.loads(answer)

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self._process is None or self._owner != os.getpid():
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def _start(self) -> None:
        # Removed by this process or, where it cannot any more, by the other; by no fork of this one.
        self._home = home = Path(tempfile.mkdtemp(prefix="penstock-simulate-"))
        with (home / "said").open("wb") as said:
            self._process = subprocess.Popen(
                # -P: this folder's modules must not hide others of their names.
                [sys.executable, "-P", str(_CODE), str(os.getpid()), str(home)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=_environment(home, self._ui_url),
                # Prefect reads settings from the folder it is started in.
                cwd=home,
                text=True,
                encoding="utf-8",
            )
        self._owner = os.getpid()
        atexit.register(self.close)

    def _said(self) -> str:
        assert self._home is not None
        try:
            lines = (self._home / "said").read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            # It was told to end, and took its folder with it.
            return ""
        return lines[-1] if lines else ""


_engines: dict[str, Engine] = {}


def engine(ui_url: str = "") -> Engine:
    """The process's own engine. `ui_url` is where links of templates lead; without, they need a server."""
    return _engines.setdefault(ui_url, Engine(ui_url=ui_url))


def received(event: Event) -> datetime:
    """When Prefect's server has an event; one that no server has had yet, when it occurs."""
    found = event.get("received") or event["occurred"]
    return found if isinstance(found, datetime) else datetime.fromisoformat(str(found))


def _environment(home: Path, ui_url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {
        **kept,
        **({"PREFECT_UI_URL": ui_url} if ui_url else {}),
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///:memory:",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    }


def _with_ids(forms: Sequence[Form]) -> list[Form]:
    """As Prefect has them. Two of one name are two; an action that pauses by name has the first."""
    found: list[Form] = []
    seen: dict[str, int] = {}
    for form in forms:
        name = form["name"]
        again = seen.setdefault(name, 0)
        seen[name] += 1
        found.append({**with_stand_ins(form), "id": stand_in("automation", f"{name} {again}" if again else name)})
    return found


def _outcome(form: Form, told: Mapping[str, Any]) -> Outcome:
    if "refused" in told:
        return Outcome(refused=told["refused"])
    paused = told["paused"]
    return Outcome(
        paused=Paused(
            by=paused["by"],
            at=_moment(paused["at"]),
            end=_moment(paused["end"]) if "end" in paused else None,
        )
        if paused
        else None,
        waiting=tuple(told["waiting"]),
        caused=tuple(told["caused"]),
        firings=tuple(_firing(form, one) for one in told["firings"]),
        parts=tuple(_firing(form, one) for one in told["parts"]),
        counts=tuple(
            Count(
                trigger=one["trigger"],
                labels=one["labels"],
                count=one["count"],
                start=_moment(one["start"]),
                end=_moment(one["end"]),
            )
            for one in told["counts"]
        ),
        nearest=tuple(
            Nearest(
                trigger=one["trigger"],
                rank=one["rank"],
                of=one["of"],
                best=tuple(_look(look) for look in one["best"]),
            )
            for one in told["looks"]
        ),
    )


def _look(told: Mapping[str, Any]) -> Look:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    return Look(**values)


def _firing(form: Form, told: Mapping[str, Any]) -> Firing:
    listed = [*form.get("actions", []), *form.get("actions_on_trigger", [])]
    return Firing(
        at=_moment(told["at"]),
        event=told["event"],
        events=tuple(told["events"]),
        labels=told["labels"],
        actions=tuple(
            Rendered(action=listed[one["index"]], fields=one["fields"], needs=one["needs"], errors=one["errors"])
            for one in told.get("actions", [])
        ),
        trigger=told.get("trigger", 0),
    )


def _moment(text: str) -> datetime:
    """To the millisecond: under it is only what keeps the order of what happens at once."""
    found = datetime.fromisoformat(text) + timedelta(microseconds=_MICROSECONDS)
    return found.replace(microsecond=found.microsecond // 1000 * 1000)
