"""The objects of a batch as files: downloaded, many at once, or taken from their envelope."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from penstock import envelope, faults, formats
from penstock.declarations import Dataset
from penstock.errors import ObjectChanged, ObjectMissing, SettingsError, Terminal, Transient
from penstock.formats.control import LARGEST
from penstock.formats.object_checks import MISSING, ControlFile
from penstock.model import ObjectRef, media_type
from penstock.objects import ObjectStore

# Connections to the store at once; MinIO on two cores gains nothing from more.
_FETCHERS = 16

# By which suffix a delivery's body is read, when its dataset's format is `auto`.
_SUFFIXES = {
    "text/csv": ".csv",
    "application/x-ndjson": ".ndjson",
    "application/jsonl": ".ndjson",
    "application/cloudevents+json": formats.CLOUDEVENT,
}


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """An object's file, and the name by whose suffix its format is told; its control file, if a check asks for it."""

    path: Path
    name: str
    control: ControlFile | None = None


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Fetches the objects of a dataset into the folder `spool`."""

    store: ObjectStore
    dataset: Dataset
    spool: Path
    progress: Callable[[], None]

    def fetch(self, refs: Sequence[ObjectRef]) -> dict[int, Fetched | Terminal | Transient]:
        """By the object's id, its file or what prevented it; etags are asserted."""
        files = [ref for ref in refs if not ref.entry]
        envelopes = list({ref.key: ref for ref in reversed(refs) if ref.entry}.values())
        with ThreadPoolExecutor(_FETCHERS) as pool:
            found = dict(zip((ref.id for ref in files), pool.map(self._download, files), strict=True))
            lines = dict(zip((ref.key for ref in envelopes), pool.map(self._read_envelope, envelopes), strict=True))
        return found | {ref.id: self._unwrap(ref, lines[ref.key]) for ref in refs if ref.entry}

    def _path(self, ref: ObjectRef) -> Path:
        # Named by number: a key must never become a path.
        return self.spool / str(ref.id)

    def _download(self, ref: ObjectRef) -> Fetched | Terminal | Transient:
        try:
            faults.point("ingest.in_read")
            self.store.get(
                ref.bucket,
                ref.key,
                self._path(ref),
                etag=ref.etag,
                version_id=ref.version_id,
                progress=self.progress,
            )
            return Fetched(path=self._path(ref), name=ref.key, control=self.control(ref))
        except (Terminal, Transient) as error:
            return error

    def control(self, ref: ObjectRef) -> ControlFile | None:
        """The object beside it that says what must be in it, where a check asks for that; one may be missing.

        Raises Transient, and SettingsError, when that cannot be told.
        """
        asked = any(check.control is not None for check in self.dataset.object_checks.values())
        if not asked or self.dataset.ready is None or self.dataset.ready.beside is None:
            return None
        if ref.entry:
            return ControlFile("beside it", missing="cannot be: a webhook's delivery has none; take the check away")
        key = ref.key + self.dataset.ready.beside
        try:
            size = self.store.stat(ref.bucket, key).size
            if size > LARGEST:
                return ControlFile(
                    key, missing=f"has {size:,} bytes, and may have {LARGEST:,}; mend it and replay the object"
                )
            return ControlFile(key, content=self.store.read(ref.bucket, key))
        except ObjectMissing:
            return ControlFile(key, missing=MISSING)
        except ObjectChanged as error:
            raise Transient(str(error)) from error
        except SettingsError:
            raise
        except Terminal as error:
            return ControlFile(key, missing=f"cannot be read: {error}; replay the object once it can")

    def _read_envelope(self, ref: ObjectRef) -> list[bytes] | Terminal | Transient:
        self.progress()
        try:
            found = self.store.read(ref.bucket, ref.key, etag=ref.etag, version_id=ref.version_id)
        except (Terminal, Transient) as error:
            return error
        return found.split(b"\n")

    def _unwrap(self, ref: ObjectRef, lines: list[bytes] | Terminal | Transient) -> Fetched | Terminal | Transient:
        if not isinstance(lines, list):
            return lines
        try:
            line = envelope.entry_of(lines, ref.entry)
            delivery = envelope.decode_line(line)
        except Terminal as error:
            return error
        path = self._path(ref)
        path.write_bytes(line if self.dataset.format == "delivery" else delivery.body)
        kind = media_type(delivery.content_type)
        name = f"{ref.key}#{ref.entry}{_SUFFIXES.get(kind, '.json')}"
        return Fetched(path=path, name=name, control=self.control(ref))
