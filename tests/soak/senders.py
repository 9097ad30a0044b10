"""Those who bring files, objects and deliveries: each tries until it is taken, and writes down what was."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import httpx
import urllib3
from minio.error import MinioException

from penstock.verification import Verification
from penstock.webhook.verify import sign
from tests.soak.plan import Content, Drop, Post, Put
from tests.soak.world import BUCKET, World

_SECONDS = 15.0
_PAUSE = 0.4


@dataclass(kw_only=True)
class Accepted:
    """What penstock or its store has said yes to, and has to have loaded in the end."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    # By key: what it holds now. A file counts from its writer's close.
    objects: dict[str, Content] = field(default_factory=dict)
    # By key: what was loaded before the poison that the key holds now, and has to stay.
    stays: dict[str, Content] = field(default_factory=dict)
    # By delivery id.
    deliveries: dict[str, tuple[str, Content]] = field(default_factory=dict)
    # Generations that were closed or acknowledged, overwritten ones and those of a file's chunks included.
    generations: int = 0
    tries: int = 0
    refused: list[str] = field(default_factory=list)


class Senders:
    """Does what is asked in threads of its own; of one key one after the other, as its owner would."""

    def __init__(self, world: World, accepted: Accepted, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._world = world
        self._accepted = accepted
        self._pause = pause
        self._pool = ThreadPoolExecutor(48, thread_name_prefix="sender")
        self._keys: dict[str, Future[None]] = {}
        self._doing: list[Future[None]] = []
        self._give_up = threading.Event()
        self._drafts = world.up.folder / "drafts"
        self._drafts.mkdir()

    def do(self, action: Drop | Put | Post) -> None:
        """Begin; returns at once."""
        if isinstance(action, Post):
            self._doing.append(self._pool.submit(self._post, action))
            return
        before = self._keys.get(action.key)
        doing = self._pool.submit(self._after, before, action)
        self._keys[action.key] = doing
        self._doing.append(doing)

    def unfinished(self) -> int:
        """How many have not been taken yet. Raises what a sender did not expect."""
        for doing in [one for one in self._doing if one.done()]:
            doing.result()
            self._doing.remove(doing)
        return len(self._doing)

    def close(self) -> None:
        """Give up what was not taken, and end the threads."""
        self._give_up.set()
        self._pool.shutdown()

    def _after(self, before: Future[None] | None, action: Drop | Put) -> None:
        if before is not None:
            # It is running or done: the pool takes them in order.
            before.result()
        good = self._good(action.key)
        if action.content.poison and good is not None:
            self._until_loaded(action.key, good)
        taken = self._put(action) if isinstance(action, Put) else self._drop(action)
        with self._accepted.lock:
            if not taken:
                return
            self._accepted.generations += taken
            self._accepted.objects[action.key] = action.content
            self._accepted.stays.pop(action.key, None)
            if action.content.poison and good is not None:
                self._accepted.stays[action.key] = good

    def _good(self, key: str) -> Content | None:
        """What of the key has to be in the table as things are."""
        with self._accepted.lock:
            now = self._accepted.objects.get(key)
            return self._accepted.stays.get(key) if now is not None and now.poison else now

    def _until_loaded(self, key: str, good: Content) -> None:
        while not self._give_up.is_set() and not self._world.has_loaded(key, good):
            self._give_up.wait(_PAUSE)

    def _drop(self, drop: Drop) -> int:
        """Returns how many generations it made."""
        target = self._world.up.inbox / drop.key
        chunks = drop.content.chunks()
        if drop.how == "written":
            target.write_bytes(b"".join(chunks))
        elif drop.how == "moved":
            draft = self._drafts / f"{drop.content.id}.csv"
            draft.write_bytes(b"".join(chunks))
            draft.replace(target)
        elif drop.how == "chunks":
            self._write_in_chunks(target, chunks, drop.pause)
        else:
            return self._write_reopened(target, chunks, drop.pause)
        return 1

    def _write_in_chunks(self, target: Path, chunks: list[bytes], pause: float) -> None:
        with target.open("wb") as file:
            for part in _tenths(chunks):
                file.write(part)
                file.flush()
                self._pause(pause)

    def _write_reopened(self, target: Path, chunks: list[bytes], pause: float) -> int:
        parts = _tenths(chunks)
        for number, part in enumerate(parts):
            with target.open("ab" if number else "wb") as file:
                file.write(part)
            self._pause(pause)
        return len(parts)

    def _put(self, put: Put) -> int:
        """Returns 1, or 0 when it was given up."""
        body = put.content.body()

        def send() -> bool:
            try:
                self._world.client().put_object(
                    bucket_name=BUCKET, object_name=put.key, data=io.BytesIO(body), length=len(body)
                )
            except (MinioException, urllib3.exceptions.HTTPError, OSError):
                return False
            return True

        return int(self._until(send))

    def _post(self, post: Post) -> None:
        if post.together and post.again:
            with ThreadPoolExecutor(post.again + 1) as pool:
                taken = list(pool.map(lambda _: self._until(lambda: self._deliver(post)), range(post.again + 1)))
        else:
            taken = [self._until(lambda: self._deliver(post)) for _ in range(post.again + 1)]
        if any(taken):
            with self._accepted.lock:
                self._accepted.deliveries[post.content.id] = (post.source, post.content)

    def _deliver(self, post: Post) -> bool:
        id, n, text = post.content.lines()[0]
        body = json.dumps({"id": id, "n": n, "text": text}).encode()
        # A secret's name is not used in signing.
        scheme: Literal["standard", "github"] = "standard" if post.source == "shop" else "github"
        verification = Verification(scheme=scheme, secrets=("UNUSED",))
        headers = sign(verification, self._world.secret(post.source), post.content.id, body, datetime.now(UTC))
        try:
            answer = httpx.post(
                f"{self._world.hooks}/{post.source}",
                content=body,
                headers={**headers, "content-type": "application/json"},
                timeout=_SECONDS,
            )
        except httpx.HTTPError:
            return False
        if answer.status_code // 100 == 4:
            with self._accepted.lock:
                self._accepted.refused.append(f"{post.content.id}: {answer.status_code} {answer.text[:200]}")
        return answer.is_success

    def _until(self, send: Callable[[], bool]) -> bool:
        """Try until it is taken; False: given up, because the soak ends."""
        while not self._give_up.is_set():
            with self._accepted.lock:
                self._accepted.tries += 1
            if send():
                return True
            self._give_up.wait(_PAUSE)
        return False


def _tenths(chunks: list[bytes]) -> list[bytes]:
    size = max(1, len(chunks) // 10)
    return [b"".join(chunks[start : start + size]) for start in range(0, len(chunks), size)]
