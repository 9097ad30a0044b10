"""Where the values of secrets come from: the environment at each look, Prefect's Secret blocks now and then.

A request never waits for Prefect, and a Prefect that is away takes no source with it: what a block held when it was
last read stays in force. A block that is gone from a Prefect that answers is a secret that was withdrawn.

Source: `GET /api/block_types/slug/secret/block_documents/name/{name}?include_secrets=true`.
"""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Callable, Iterable

import httpx

from penstock.errors import PenstockError, PrefectUnavailable
from penstock.settings import Settings
from penstock.sources import Source
from penstock.verification import PREFECT

log = logging.getLogger(__name__)

# A rotated block is in force after this time; one that could not be read yet is asked for again sooner.
_FRESH_SECONDS = 30.0
_AGAIN_SECONDS = 2.0


class Secrets:
    """Gives a secret's value by the name that a source has for it; empty where there is none.

    `resolve` looks into the environment, `read` asks Prefect for a block: it raises PrefectUnavailable when it cannot
    tell, and gives nothing for a block that is not there.
    """

    def __init__(self, names: Iterable[str], *, resolve: Callable[[str], str], read: Callable[[str], str]) -> None:
        self._resolve = resolve
        self._read = read
        self._blocks = sorted({name for name in names if name.startswith(PREFECT)})
        self._values: dict[str, str] = {}
        self._silent: set[str] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def value(self, name: str) -> str:
        """The secret's value as it is known now; does not ask Prefect."""
        return self._values.get(name, "") if name.startswith(PREFECT) else self._resolve(name)

    def refresh(self) -> bool:
        """Read every block once; returns whether Prefect told of each."""
        for name in self._blocks:
            block = name.removeprefix(PREFECT)
            try:
                self._values[name] = self._read(block)
            except Exception as error:  # whatever it is: reading goes on, or a withdrawn block stays in force for ever
                if name not in self._silent:
                    # The words of others may hold what was read.
                    why = error if isinstance(error, PenstockError) else type(error).__name__
                    log.warning("the Secret block %s cannot be read, what it held stays in force: %s", block, why)
                self._silent.add(name)
            else:
                self._silent.discard(name)
        return not self._silent

    def keep_fresh(self, *, every: float = _FRESH_SECONDS, again: float = _AGAIN_SECONDS) -> None:
        """Read the blocks now, and from then on in a thread of its own; without blocks, do nothing."""
        if not self._blocks:
            return
        told = self.refresh()

        def run() -> None:
            wait = every if told else again
            while not self._stop.wait(wait):
                wait = every if self.refresh() else again

        self._thread = threading.Thread(target=run, name="secrets", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()


def remedy(name: str) -> str:
    """What to do about a secret that has no value."""
    if name.startswith(PREFECT):
        return f"make the Secret block {name.removeprefix(PREFECT)} on the Prefect server"
    return f"set {name}, or `penstock up` makes one"


def open_secrets(settings: Settings, sources: Iterable[Source]) -> Secrets:
    """The secrets of these sources; blocks are not read until `refresh` or `keep_fresh` is called."""
    names = [name for source in sources for name in source.secrets]
    return Secrets(names, resolve=settings.resolve_secret, read=_reader(settings))


def _reader(settings: Settings) -> Callable[[str], str]:
    def read(block: str) -> str:
        if not settings.prefect_api_url:
            raise PrefectUnavailable("no Prefect server: set PENSTOCK_PREFECT_API_URL, or start one with `penstock up`")
        auth = settings.prefect_auth.get_secret_value()
        try:
            found = httpx.get(
                f"{settings.prefect_api_url}/block_types/slug/secret/block_documents/name/{block}",
                params={"include_secrets": True},
                headers={"Authorization": "Basic " + base64.b64encode(auth.encode()).decode()} if auth else {},
                timeout=5.0,
            )
            if found.status_code == httpx.codes.NOT_FOUND:
                return ""
            found.raise_for_status()
            value = found.json()["data"]["value"]
        # Not the cause: an answer that cannot be read may hold the secret.
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise PrefectUnavailable(f"Prefect does not tell ({type(error).__name__})") from None
        return value if isinstance(value, str) else ""

    return read
