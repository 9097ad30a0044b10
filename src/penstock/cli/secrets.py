"""The secrets that `up` makes on the first start, so that nothing runs with a default password."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from penstock.settings import SECRETS_FILE, read_made, write_made
from penstock.sources import Source
from penstock.verification import PREFECT, Verification


def made_secrets(home: Path, sources: Sequence[Source], *, has: Callable[[str], bool]) -> dict[str, str]:
    """Read the project's own secrets, making those that are missing; kept in `home` with mode 600.

    A webhook secret is made only where the environment has none (`has` tells), so that `penstock send` works at once;
    none is made for a source that has one in a Prefect block.
    """
    values = {str(name): str(value) for name, value in read_made(home, SECRETS_FILE).items()}
    wanted: dict[str, Callable[[], str]] = {
        "PENSTOCK_S3_ACCESS_KEY": lambda: secrets.token_hex(10),
        "PENSTOCK_S3_SECRET_KEY": lambda: secrets.token_urlsafe(30),
        "PENSTOCK_PREFECT_AUTH": lambda: f"penstock:{secrets.token_urlsafe(24)}",
        "PENSTOCK_NOTIFY_TOKEN": lambda: secrets.token_urlsafe(24),
        "PENSTOCK_API_TOKEN": lambda: secrets.token_urlsafe(24),
    }
    for source in sources:
        names = source.verify.secrets
        if names and not any(name.startswith(PREFECT) or has(name) for name in names):
            wanted[names[0]] = partial(_new_secret, source.verify)
        if source.challenge and not source.challenge.startswith(PREFECT) and not has(source.challenge):
            wanted[source.challenge] = partial(secrets.token_urlsafe, 24)
    missing = {name: make() for name, make in wanted.items() if not values.get(name)}
    if missing:
        values |= missing
        write_made(home, SECRETS_FILE, values)
    return values


def _new_secret(verification: Verification) -> str:
    from penstock.webhook.verify import new_secret

    return new_secret(verification, secrets.token_bytes(32))
