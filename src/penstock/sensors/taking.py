"""Taking files: is it finished, into the store, into the ledger, and then what the folder's `after` says.

One thread decides and records; `Uploads` only puts. A path is taken by one at a time, so what arrives of one key
arrives in its order.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from penstock.declarations import Folder
from penstock.errors import FileChanged, ObjectMissing, PenstockError, Refused, SettingsError, Transient
from penstock.landing import Landing
from penstock.ledger.arrivals import Arrivals, FileMark
from penstock.model import Stat, Via
from penstock.sensors import files
from penstock.sensors.outage import Blame, Outage
from penstock.sensors.queue import Queue, Taken, Turn
from penstock.sensors.settle import Print, Verdict, Writer, judge, next_look
from penstock.sensors.uploads import Upload, Uploads, is_large

log = logging.getLogger(__name__)

ARCHIVE = ".archive"
# Looked at together: their marks are one question to the ledger, and what is over meanwhile does not wait for long.
_TOGETHER = 16
_OWN_PAUSE = 5.0
# A file that is written again and again is looked at so often at once.
_LOOKS = 3
# What is waited out: store, bucket, ledger or keys may be set right without this process being started again.
WAITED_OUT = (Transient, SettingsError, ObjectMissing)


class Taking:
    """Takes what is due in a queue. `begin` looks and starts, `record` ends; both are for one thread."""

    def __init__(
        self,
        root: Path,
        *,
        queue: Queue,
        landing: Landing,
        arrivals: Arrivals,
        declared: Folder,
        monotonic: Callable[[], float],
        stamps: Callable[[], int],
        writer_of: Callable[[BinaryIO], Writer],
    ) -> None:
        self._root = root
        self._queue = queue
        self._landing = landing
        self._arrivals = arrivals
        self._declared = declared
        self._monotonic = monotonic
        self._stamps = stamps
        self._writer_of = writer_of
        self.uploads = Uploads(put=self._put, monotonic=monotonic, on_over=queue.ready.set)
        self.outage = Outage()
        # By their turn, those that wait for others of their ordered dataset; under None large ones of any other.
        self._aside: dict[str | None, list[tuple[Turn, Taken]]] = {}
        # Folders from which nothing can be removed, each said once.
        self._stuck: set[Path] = set()

    def close(self) -> None:
        """Wait for what is being put, so that `record` can end it."""
        self.uploads.close()

    def capacity(self) -> int:
        """How many paths would be looked at now if so many were due. During an outage one at a time is tried."""
        if self.outage.away:
            return 0 if self.uploads.under_way else 1
        return _TOGETHER if self.uploads.room() >= _TOGETHER else 0

    def begin(self) -> None:
        """Look at paths that are due, and have those that are finished put."""
        if not self._is_waiting():
            self._look_at_due()
        self._let_go()

    def _look_at_due(self) -> None:
        taken = self._queue.take(self.capacity())
        if not taken:
            return
        shown = [files.printable(self._root, one.path) for one in taken]
        try:
            marks = self._arrivals.file_marks(shown)
        except WAITED_OUT as error:
            self._is_away(taken[0], error)
            for one in taken[1:]:
                self._queue.give_back(one)
            return
        away = False
        for one, name in zip(taken, shown, strict=True):
            order = self._order_of(name)
            if away:
                self._queue.give_back(one)
            elif order is not None and self._is_behind(one, order):
                self._set_aside(one, order)
            else:
                away = self._look(one, marks.get(name), order)

    def record(self) -> int:
        """Record what is in the store by now, and do what its files come to; returns how many objects were new."""
        chosen = self.uploads.next()
        if not chosen:
            return 0
        try:
            new = self._record_all([one for one in chosen if one.error is None])
            for one in chosen:
                if one.error is not None:
                    self._failed(one.taken, one.error)
            return new
        finally:
            for one in chosen:
                self.uploads.left(one)
            self._let_go()

    def _order_of(self, shown: str) -> str | None:
        """The dataset in whose order this path is to be recorded."""
        dataset = self._landing.dataset_for(shown)
        return dataset.name if dataset is not None and dataset.ordered else None

    def _is_behind(self, taken: Taken, order: str) -> bool:
        aside = self._aside.get(order)
        return self.uploads.holds(order) or (aside is not None and aside[0][0] < taken.turn)

    def _set_aside(self, taken: Taken, order: str | None) -> None:
        heapq.heappush(self._aside.setdefault(order, []), (taken.turn, taken))

    def _let_go(self) -> None:
        """Have those set aside wait for their turn again, the first of each dataset that has room by now."""
        for order, aside in list(self._aside.items()):
            if self.uploads.takes_large() if order is None else not self.uploads.holds(order):
                for _ in range(min(1 if order is None else _TOGETHER, len(aside))):
                    self._queue.give_back(heapq.heappop(aside)[1])
                if not aside:
                    del self._aside[order]

    def _look(self, taken: Taken, mark: FileMark | None, order: str | None) -> bool:
        """Look at one path; whether store or ledger turned out to be away."""
        try:
            file = files.open_regular(self._root, taken.path)
            begun = False
            try:
                begun = self._begin(taken, file, mark, order)
            finally:
                if not begun:
                    file.close()
        except (PenstockError, OSError) as error:
            return self._met(taken, error)
        return False

    def _begin(self, taken: Taken, file: BinaryIO, mark: FileMark | None, order: str | None) -> bool:
        writer, found = self._seen(file)
        if mark is not None and mark.etag and print_of(mark) == found:
            self._finish([(taken, file, found)])
            return False
        if self._judge(taken, writer, found) is Verdict.WAIT:
            return False
        if order is None and is_large(found) and not self.uploads.takes_large():
            self._set_aside(taken, None)
            return False
        put = taken.waiting.put
        self.uploads.begin(
            Upload(
                taken=taken,
                key=files.key_of(self._root, taken.path),
                file=file,
                found=found,
                order=order,
                put_before=put[1] if put is not None and put[0] == found else None,
                refused_before=mark is not None and not mark.etag,
            )
        )
        return True

    def _seen(self, file: BinaryIO) -> tuple[Writer, Print]:
        """Whether somebody writes to it, and what it is now.

        What it is counts only if it was the same before and after nobody wrote: who closed it in between would leave a
        print that is old, and the file would come behind others; who opened it, half a file.
        """
        for _ in range(_LOOKS):
            found = files.fingerprint(file)
            files.outwait_tick(found, self._stamps)
            writer = self._writer_of(file)
            if writer is Writer.SOME or files.fingerprint(file) == found:
                return writer, found
        return Writer.SOME, found

    def _judge(self, taken: Taken, writer: Writer, found: Print) -> Verdict:
        now = self._monotonic()
        waiting = taken.waiting
        if waiting.seen != found:
            waiting.still_since = now
        before, waiting.seen = waiting.seen, found
        age = (self._stamps() - found.mtime_ns) / 1e9
        still_for = now - waiting.still_since
        settle = self._declared.settle.total_seconds()
        verdict = judge(writer=writer, age=age, now=found, before=before, still_for=still_for, settle=settle)
        if verdict is Verdict.WAIT:
            waiting.looks += 1
            pause = next_look(writer=writer, age=age, looks=waiting.looks, still_for=still_for, settle=settle)
            # Not later than asked for meanwhile: its writer may just have closed it.
            self._queue.look_at(taken, now + pause)
        return verdict

    def _put(self, upload: Upload) -> Stat:
        if upload.put_before is not None and (still := self._landing.still_there(upload.put_before)) is not None:
            return still
        return self._landing.put_file(
            upload.key,
            upload.file,
            upload.found.size,
            unchanged=lambda: self._mark_if_unchanged(upload) is not None,
            progress=upload.move,
        )

    def _mark_if_unchanged(self, upload: Upload) -> FileMark | None:
        found = upload.found
        if files.fingerprint_at(upload.taken.path) != found:
            return None
        return FileMark(path=upload.key, inode=found.inode, size=found.size, mtime_ns=found.mtime_ns)

    def _record_all(self, uploads: Sequence[Upload]) -> int:
        if not uploads:
            return 0
        try:
            new = self._record(uploads)
        except WAITED_OUT as error:
            for one in uploads:
                if one.stat is not None:
                    one.taken.waiting.put = (one.found, one.stat)
            if len(uploads) == 1:
                self._failed(uploads[0].taken, error)
                return 0
        else:
            self._go_on(uploads)
            return new
        # One by one, to see whether all of them or one is at fault.
        new = 0
        for one in uploads:
            if self._is_waiting():
                self._queue.give_back(one.taken)
            else:
                new += self._record_all([one])
        return new

    def _record(self, uploads: Sequence[Upload]) -> int:
        began = self._monotonic()
        new = self._landing.record_files(
            [(one.stat, self._mark_if_unchanged(one)) for one in uploads if one.stat],
            refused={one.key for one in uploads if one.refused_before},
        )
        self.uploads.pace.recorded(began, self._monotonic())
        return new

    def _go_on(self, uploads: Sequence[Upload]) -> None:
        """What follows once they are recorded, which nothing here may undo or do twice."""
        same: list[tuple[Taken, BinaryIO, Print]] = []
        for one in uploads:
            if self.outage.taken():
                log.info("the folder sensor goes on")
            if files.fingerprint_at(one.taken.path) != one.found:
                self._queue.look_at(one.taken, self._monotonic())
            else:
                same.append((one.taken, one.file, one.found))
        self._finish(same)

    def _is_waiting(self) -> bool:
        return self._monotonic() < self.outage.until

    def _failed(self, taken: Taken, error: BaseException) -> None:
        if not isinstance(error, PenstockError | OSError):
            raise error
        if self._is_waiting():
            # It began before the outage did, and tells nothing about it.
            self._queue.give_back(taken)
        else:
            self._met(taken, error)

    def _met(self, taken: Taken, error: PenstockError | OSError) -> bool:
        """Do what an error means for its file; whether it means that store or ledger are away."""
        try:
            if isinstance(error, FileChanged):
                self._queue.look_at(taken, self._monotonic())
            elif isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
                self._gone(taken)
            elif isinstance(error, Refused):
                self._refuse(taken, error)
            else:
                raise error
        except WAITED_OUT as wait:
            return self._is_away(taken, wait)
        except OSError as own:
            self._complain(taken, own)
            self._queue.look_at(taken, self._monotonic() + _OWN_PAUSE)
        return False

    def _is_away(self, taken: Taken, error: PenstockError) -> bool:
        """Whether store or ledger are away: then every file waits, and it is said once."""
        try:
            self._landing.check()
        except WAITED_OUT:
            # In their order, this one first.
            self._queue.give_back(taken)
        else:
            failures = taken.waiting.failures
            blame = self.outage.failed(taken.path, failures)
            if blame is not Blame.ALL and failures.count > 1:
                self._complain(taken, error)
            # After a pause another file is tried first.
            self._queue.look_at(taken, self._monotonic() + failures.pause)
            if blame is not Blame.ALL:
                return False
        if self.outage.wait(self._monotonic()):
            log.warning("%s; files stay in the inbox until it is back", error)
        return True

    def _complain(self, taken: Taken, error: Exception) -> None:
        """A file that cannot be taken now: said once."""
        if not taken.waiting.complained:
            log.warning("%s cannot be taken: %s; it is tried again", files.printable(self._root, taken.path), error)
        taken.waiting.complained = True

    def _refuse(self, taken: Taken, reason: Refused) -> None:
        shown = files.printable(self._root, taken.path)
        found = files.fingerprint_at(taken.path)
        if found is not None:
            mark = FileMark(path=shown, inode=found.inode, size=found.size, mtime_ns=found.mtime_ns)
            if self._arrivals.refuse(shown, str(reason), mark=mark, via=Via.FOLDER):
                log.warning("%s is refused: %s", shown, reason)
        self._queue.done(taken)

    def _gone(self, taken: Taken) -> None:
        shown = files.printable(self._root, taken.path)
        # Reading first: most of what is removed was never remembered, and a write waits for the disk.
        mark = self._arrivals.file_marks([shown]).get(shown)
        if mark is not None:
            if not mark.etag:
                self._arrivals.forget_refusal(shown)
            self._arrivals.forget_files([shown])
        self._queue.done(taken)

    def _finish(self, recorded: Sequence[tuple[Taken, BinaryIO, Print]]) -> None:
        """What `after` says, and then nothing more."""
        removed = []
        for taken, file, found in recorded:
            try:
                if self._dispose(taken.path, file, found):
                    removed.append(taken)
                    continue
            except OSError as error:
                # The next scan tries again.
                if taken.path.parent not in self._stuck:
                    log.warning(
                        "%s is recorded and cannot be removed, nor can what else is in its folder: %s; "
                        "it is tried again",
                        files.printable(self._root, taken.path),
                        error.strerror,
                    )
                    self._stuck.add(taken.path.parent)
            self._queue.done(taken)
        if not removed:
            return
        try:
            self._arrivals.forget_files([files.key_of(self._root, taken.path) for taken in removed])
        except WAITED_OUT as error:
            # The next look finds them gone, and forgets them then.
            for taken in removed:
                self._failed(taken, error)
        else:
            for taken in removed:
                self._queue.done(taken)

    def _dispose(self, path: Path, file: BinaryIO, found: Print) -> bool:
        """What `after` says, only for a file that is still what was recorded and that nobody is about to write to.

        Returns whether it is gone from its place.
        """
        if self._declared.after == "keep" or self._writer_of(file) is Writer.SOME:
            return False
        if files.fingerprint_at(path) != found:
            return False
        if self._declared.after == "delete":
            path.unlink()
        else:
            target = self._root / ARCHIVE / f"{files.key_of(self._root, path)}.{found.mtime_ns}"
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        self._stuck.discard(path.parent)
        return True


def print_of(mark: FileMark) -> Print:
    """What a remembered file was."""
    return Print(inode=mark.inode, size=mark.size, mtime_ns=mark.mtime_ns)
