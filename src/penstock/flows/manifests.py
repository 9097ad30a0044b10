"""Manifests: objects that name others, which wait until they are named. Pure, but for `announce_named`.

Read are a JSON list of keys or URLs, `{"entries": [{"url": …}]}` and `{"files": […]}` (each of strings or of objects
with a `url`, `key`, `path` or `name`), and a key or URL in each line, where lines that begin with # say nothing.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from penstock.declarations import Dataset
from penstock.errors import Unreadable
from penstock.keys import Role, prefixes, role
from penstock.ledger import Ledger
from penstock.model import ObjectRef
from penstock.objects import KEY_BYTES

MOST_BYTES = 16 * 1024 * 1024
MOST_KEYS = 1_000_000

# Of a name that is refused so many characters are told.
_SHOWN = 100

_LISTS = ("entries", "files")
_FIELDS = ("url", "key", "path", "name")
_URLS = ("s3://", "s3a://", "s3n://")


def named_keys(data: bytes, manifest: str, *, bucket: str, prefixes: Sequence[str]) -> list[str]:
    """The keys that the manifest of that key names, in its order and each once.

    A name is a URL into the same bucket, a key when it begins with one of the dataset's `prefixes`, or else relative to
    the manifest's folder. Raises Unreadable for what is no manifest or names what is elsewhere.
    """
    if len(data) > MOST_BYTES:
        raise Unreadable(f"a manifest of more than {MOST_BYTES:,} bytes is not read: split it")
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise Unreadable(f"the manifest is no UTF-8 text: {error}") from None
    names = _from_json(text) if text[:1] in ("[", "{") else _from_lines(text)
    if not names:
        raise Unreadable("the manifest names no object")
    if len(names) > MOST_KEYS:
        raise Unreadable(f"the manifest names {len(names):,} objects; more than {MOST_KEYS:,} are not read: split it")
    folder = manifest.rpartition("/")[0]
    return list(dict.fromkeys(_key(name, folder, bucket, prefixes) for name in names))


def is_manifest(dataset: Dataset, ref: ObjectRef) -> bool:
    """Whether the object is no data, but names what is."""
    return dataset.ready is not None and not ref.entry and role(dataset, ref.key) is Role.MANIFEST


def announce_named(
    ledger: Ledger, dataset: Dataset, ref: ObjectRef, path: Path, *, progress: Callable[[], None]
) -> str:
    """Release what the manifest in this file names; returns what is to be said of it. Raises Unreadable."""
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    keys = named_keys(data, ref.key, bucket=ref.bucket, prefixes=prefixes(dataset))
    announcements = ledger.announcements
    return str(announcements.announce(ref.bucket, keys, manifest=ref.key, dataset=dataset, progress=progress))


def _from_lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _from_json(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the manifest begins like JSON and is none: {error}") from None
    if isinstance(found, dict):
        lists = [found[name] for name in _LISTS if isinstance(found.get(name), list)]
        if len(lists) != 1:
            raise Unreadable("the manifest is a JSON object without one list, 'entries' or 'files'")
        found = lists[0]
    return [_name(one, number) for number, one in enumerate(found, start=1)]


def _name(one: Any, number: int) -> str:
    if isinstance(one, dict):
        one = next((one[field] for field in _FIELDS if isinstance(one.get(field), str)), None)
    if not isinstance(one, str) or not one.strip():
        raise Unreadable(f"entry {number} of the manifest names no object: a text, or an object with a url, is wanted")
    return one


def _key(name: str, folder: str, bucket: str, prefixes: Sequence[str]) -> str:
    if name.startswith(_URLS):
        # As it stands: an S3 URL has no query, and no escapes.
        where, _, key = name.partition("://")[2].partition("/")
        if where != bucket:
            raise Unreadable(f"the manifest names {_shown(name)}, which is not in the bucket {bucket}")
    elif "://" in name:
        raise Unreadable(f"the manifest names {_shown(name)}: only s3:// URLs and keys are read")
    elif name.startswith(("/", *prefixes)):
        key = name.lstrip("/")
    else:
        key = posixpath.normpath(f"{folder}/{name}" if folder else name)
    if not _may_exist(key) or ".." in key.split("/"):
        raise Unreadable(f"the manifest names {_shown(name)}, which is no key")
    return key


def _may_exist(key: str) -> bool:
    """Whether an object may have this key; the ledger could not hold others."""
    try:
        return bool(key) and "\0" not in key and len(key.encode()) <= KEY_BYTES
    except UnicodeEncodeError:
        return False


def _shown(name: str) -> str:
    return f"{name[:_SHOWN]!r}" + ("…" if len(name) > _SHOWN else "")
