"""Writes .env with random secrets for docker-compose.yml, from .env.example. Standard library only.

Run: `python3 docker/make_env.py`. The file gets mode 600. One that exists is never overwritten: its passwords are in
the volumes already. It also makes `inbox/`, which Docker would else make as root.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The image's own user, for one who runs this as root.
IMAGE_USER = 10001


def main(root: Path = ROOT) -> int:
    """0 when .env was written, 1 when there is one."""
    uid, gid = _owner()
    target = root / ".env"
    text = filled((root / ".env.example").read_text(), made(uid, gid))
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        sys.stderr.write(f"{target} exists and stays as it is\n")
        return 1
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    inbox = root / "inbox"
    inbox.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(inbox, uid, gid)
    sys.stdout.write(f"wrote {target}. Next: docker compose up --build --detach\n")
    return 0


def made(uid: int, gid: int) -> dict[str, Callable[[], str]]:
    """How the value of each variable is made that .env.example leaves empty."""
    # Passwords stand in URLs: letters, digits, - and _ need no escaping there.
    return {
        "DB_ADMIN_PASSWORD": lambda: secrets.token_urlsafe(24),
        "DB_LEDGER_PASSWORD": lambda: secrets.token_urlsafe(24),
        "DB_PREFECT_PASSWORD": lambda: secrets.token_urlsafe(24),
        "PENSTOCK_S3_ACCESS_KEY": lambda: secrets.token_hex(10),
        "PENSTOCK_S3_SECRET_KEY": lambda: secrets.token_urlsafe(30),
        "PENSTOCK_PREFECT_AUTH": lambda: f"penstock:{secrets.token_urlsafe(24)}",
        "PENSTOCK_NOTIFY_TOKEN": lambda: secrets.token_urlsafe(24),
        "PENSTOCK_API_TOKEN": lambda: secrets.token_urlsafe(24),
        # Standard Webhooks prescribes whsec_ and 24 to 64 bytes in base64.
        "SALES_WEBHOOK_SECRET": lambda: "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
        "INBOX_UID": lambda: str(uid),
        "INBOX_GID": lambda: str(gid),
    }


def filled(example: str, makers: dict[str, Callable[[], str]]) -> str:
    """The example with a value behind every `NAME=` that has none. Raises KeyError for a name nobody can make."""
    lines = []
    for line in example.splitlines():
        name, equals, value = line.partition("=")
        empty = bool(equals) and not value and not line.startswith("#")
        lines.append(f"{name}={makers[name]()}" if empty else line)
    return "\n".join(lines) + "\n"


def _owner() -> tuple[int, int]:
    """Who will drop files: the caller, or who called sudo, but never root."""
    uid = int(os.environ.get("SUDO_UID", os.getuid()))
    gid = int(os.environ.get("SUDO_GID", os.getgid()))
    return (uid, gid) if uid else (IMAGE_USER, IMAGE_USER)


if __name__ == "__main__":
    sys.exit(main())
