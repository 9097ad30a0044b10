"""Named fault points at the seams of the way, where a test can kill, break or hang a real process.

`PENSTOCK_FAULTS` names a folder. While a file `<folder>/<seam>` lies there, the first process to pass that seam takes
the file away (it becomes `<seam>.hit`) and does what the file says: `kill` (SIGKILL to itself), `raise`, or `hang`.
Without the variable a fault point is one comparison. The environment is read here and not by `settings.py`, because a
seam must work in every process, whatever it has opened.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

# Every seam, in the order of the way. A point that is not listed here fails at once, so that the list stays true.
SEAMS = (
    "landing.file_before_put",
    "landing.file_after_put",
    "landing.file_after_record",
    "landing.envelope_after_put",
    "landing.envelope_after_record",
    "relay.before_send",
    "relay.after_send",
    "relay.events_after_send",
    "ingest.after_lease",
    "ingest.after_claim",
    "ingest.in_read",
    "ingest.after_read",
    "ingest.before_load",
    "warehouse.before_commit",
    "warehouse.after_commit",
    "ingest.after_settle",
    "ingest.after_finish",
)

_folder = os.environ.get("PENSTOCK_FAULTS")


class Injected(Exception):
    """A fault that a test asked for: no error of ours, so that whatever meets it must treat it as unforeseen."""


def point(seam: str) -> None:
    """Do what a test asks for at this seam; nothing otherwise."""
    if _folder is None:
        return
    assert seam in SEAMS, seam
    asked = Path(_folder, seam)
    try:
        what = asked.read_text().strip()
        # Only one process wins the rename.
        asked.rename(asked.with_suffix(asked.suffix + ".hit"))
    except FileNotFoundError:
        return
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "hang":
        threading.Event().wait()
    raise Injected(f"{what} at {seam}")
