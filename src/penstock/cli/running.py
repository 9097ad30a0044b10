"""Whether anything runs that would load what waits, as far as this machine can tell. No network."""

from __future__ import annotations

import os

from penstock.settings import RUNTIME_FILE, Settings, read_made

NOTHING_RUNS = "nothing is running: penstock up"


def pid_of_up(settings: Settings) -> int | None:
    """The process of the `penstock up` that runs in this project, or None."""
    pid = read_made(settings.home, RUNTIME_FILE).get("pid")
    if not isinstance(pid, int):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return pid


def nothing_runs(settings: Settings) -> bool:
    """Whether `up` has ended, and no Prefect but its own is configured.

    With another one the parts may run as services of their own, as under compose, and nobody here can know.
    """
    own = read_made(settings.home, RUNTIME_FILE).get("PENSTOCK_PREFECT_API_URL", "")
    return settings.prefect_api_url in ("", own) and pid_of_up(settings) is None
