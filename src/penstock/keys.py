"""Which dataset takes a key, as what, and for which other object one waits. Pure.

A glob is over the rest of a key below a prefix, and distinguishes case: `*` is any text within a segment, `?` one
character of it, `**/` any folders or none, and `**` at the end everything below. All else stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from penstock.declarations import Dataset


class Role(StrEnum):
    """What a key is to the dataset that takes it. MARKER: a marker file."""

    DATA = "data"
    MARKER = "marker"
    MANIFEST = "manifest"


def takes(dataset: Dataset, key: str) -> bool:
    """Whether an object under this key is the dataset's: its data, a marker file, or a manifest."""
    return role(dataset, key) is not None


def role(dataset: Dataset, key: str) -> Role | None:
    """What the key is to the dataset; None: another's, or nobody's. What `ready` names is never data."""
    ready = dataset.ready
    for prefix in prefixes(dataset):
        if not key.startswith(prefix):
            continue
        rest = key[len(prefix) :]
        if ready is not None:
            if ready.beside is not None and rest.endswith(ready.beside):
                if _fits_match(dataset, rest.removesuffix(ready.beside)):
                    return Role.MARKER
                continue
            if ready.folder is not None and rest.rpartition("/")[2] == ready.folder:
                return Role.MARKER
            if ready.manifest is not None and fits(ready.manifest, rest):
                return Role.MANIFEST
        if _fits_match(dataset, rest):
            return Role.DATA
    return None


def waits_for(dataset: Dataset, key: str) -> str | None:
    """The key of the marker that says that this data is whole, or the glob of the manifests; None: it waits for none.

    Of a glob the prefix is part, which stands for itself.
    """
    ready = dataset.ready
    if ready is None or role(dataset, key) is not Role.DATA:
        return None
    if ready.beside is not None:
        return key + ready.beside
    if ready.folder is not None:
        return f"{key.rpartition('/')[0]}/{ready.folder}"
    return f"{next(prefix for prefix in prefixes(dataset) if key.startswith(prefix))}{ready.manifest}"


def backlog_of(dataset: Dataset, key: str, modified: datetime) -> bool:
    """Whether an object is old in the words of the dataset's `backfill`: where it lies, or when it was written."""
    old = dataset.backfill
    if old is None:
        return False
    if old.before is not None and modified < old.before:
        return True
    if old.prefix is None or not key.startswith(old.prefix):
        return False
    # One of the two may lie within the other: the nearer folder says what it is.
    return not (key.startswith(dataset.prefix) and len(dataset.prefix) > len(old.prefix))


def prefixes(dataset: Dataset) -> tuple[str, ...]:
    """The folders whose keys the dataset may take: its own, and that of its backfill."""
    if dataset.backfill is None or dataset.backfill.prefix in (None, dataset.prefix):
        return (dataset.prefix,)
    return (dataset.prefix, dataset.backfill.prefix)


def may_overlap(one: Dataset, other: Dataset) -> bool:
    """Whether there may be a key that both take, and that is data or a manifest to one of them.

    A marker that two datasets share is no overlap: it is there for both. A manifest is read by the one that takes it.
    """
    return (
        _meet(_data(one), _data(other))
        or _meet(_data(one), _signals(other))
        or _meet(_signals(one), _data(other))
        or share_manifests(one, other)
    )


def share_manifests(one: Dataset, other: Dataset) -> bool:
    """Whether there may be a manifest of one that is a manifest, or a marker, of the other."""
    return _meet(_manifests(one), _signals(other)) or _meet(_signals(one), _manifests(other))


def globs_meet(one: str, other: str) -> bool:
    """Whether there is a key that fits both globs."""
    return _meet([("", one)], [("", other)])


def wrong_glob(glob: str) -> str | None:
    """What is wrong with a glob, if anything: none of these would ever fit, or mean what they seem to."""
    if not glob or glob.startswith("/") or ".." in glob.split("/"):
        return f"{glob!r} is over the rest of the key below the prefix, such as '*.csv' or '**/orders-*.csv.gz'"
    if any("**" in segment and segment != "**" for segment in glob.split("/")):
        return f"{glob!r}: ** stands between slashes, for any folders: '**/*.csv'"
    if any(bracket in glob for bracket in "[]{}"):
        return f"{glob!r}: brackets and braces stand for themselves; there are *, ? and **/"
    return None


def fits(glob: str, rest: str) -> bool:
    """Whether the rest of a key fits the glob."""
    return _pattern(glob).fullmatch(rest) is not None


def _fits_match(dataset: Dataset, rest: str) -> bool:
    return dataset.match is None or fits(dataset.match, rest)


# One step of a glob: a character, "?", "*", "**/" or "**" at the end; a character's flag says that it is one.
_Step = tuple[str, bool]


def _steps(glob: str) -> Iterator[_Step]:
    at = 0
    while at < len(glob):
        begins = at == 0 or glob[at - 1] == "/"
        if begins and glob.startswith("**/", at):
            yield "**/", False
            at += 3
        elif begins and glob[at:] == "**":
            yield "**", False
            at += 2
        else:
            yield glob[at], glob[at] not in "*?"
            at += 1


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> re.Pattern[str]:
    """What takes time in the length of a key only: keys are what senders choose, and a glob may have many stars.

    What stands between two stars, or between two `**/`, is taken where it comes first, and that is final (`(?>`): since
    the second one is any text, or any folders, taking a later place never helps.
    """
    runs: list[list[str]] = [[]]
    *folders, last = glob.split("/")
    for folder in folders:
        if folder == "**":
            runs.append([])
        else:
            runs[-1].append(_segment(folder) + "/")
    first, *others = ("".join(run) for run in runs)
    end = ".*" if last == "**" else _segment(last)
    if not others:
        return re.compile(first + end, re.DOTALL)
    *middle, rest = others
    between = "".join(f"(?>(?:.*?/)??{run})" for run in middle if run)
    return re.compile(f"{first}{between}(?:.*/)?{rest}{end}", re.DOTALL)


def _segment(glob: str) -> str:
    """The expression of what lies between two slashes."""
    first, *others = (re.escape(text).replace(r"\?", "[^/]") for text in glob.split("*"))
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>[^/]*?{text})" for text in middle if text) + "[^/]*" + last


def _data(dataset: Dataset) -> list[tuple[str, str]]:
    """The keys of the dataset's data, as pairs of a prefix that stands for itself and a glob below it."""
    return [(prefix, dataset.match or "**") for prefix in prefixes(dataset)]


def _signals(dataset: Dataset) -> list[tuple[str, str]]:
    """The keys of the markers and manifests, likewise."""
    ready = dataset.ready
    if ready is None:
        return []
    if ready.beside is not None:
        # Within a glob that ends in `**` they are data as far as globs can say.
        return [(prefix, glob + ready.beside) for prefix, glob in _data(dataset)]
    glob = f"**/{ready.folder}" if ready.folder is not None else str(ready.manifest)
    return [(prefix, glob) for prefix in prefixes(dataset)]


def _manifests(dataset: Dataset) -> list[tuple[str, str]]:
    return _signals(dataset) if dataset.ready is not None and dataset.ready.manifest is not None else []


def _meet(some: list[tuple[str, str]], others: list[tuple[str, str]]) -> bool:
    return any(
        _steps_meet(
            (*((char, True) for char in prefix), *_steps(glob)),
            (*((char, True) for char in other), *_steps(other_glob)),
        )
        for prefix, glob in some
        for other, other_glob in others
    )


def _steps_meet(one: tuple[_Step, ...], other: tuple[_Step, ...]) -> bool:
    """Whether one text fits both: the pairs of places in either that some beginning leads to, until both are ends."""
    start = ((0, False), (0, False))
    reached, todo = {start}, [start]
    while todo:
        left, right = todo.pop()
        if left == (len(one), False) and right == (len(other), False):
            return True
        following = [(next_left, right) for next_left in _skips(one, left)]
        following += [(left, next_right) for next_right in _skips(other, right)]
        following += [
            (next_left, next_right)
            for class_left, next_left in _moves(one, left)
            for class_right, next_right in _moves(other, right)
            if _share(class_left, class_right)
        ]
        for pair in following:
            if pair not in reached:
                reached.add(pair)
                todo.append(pair)
    return False


# A place is before a step; with True, within the folders that a "**/" stands for.
_Place = tuple[int, bool]
_ANY, _WITHIN = "any", "within"


def _skips(steps: tuple[_Step, ...], place: _Place) -> list[_Place]:
    """Where a place leads without a character."""
    at, inside = place
    if at == len(steps) or steps[at][1] or inside or steps[at][0] == "?":
        return []
    return [(at + 1, False)] + ([(at, True)] if steps[at][0] == "**/" else [])


def _moves(steps: tuple[_Step, ...], place: _Place) -> list[tuple[str, _Place]]:
    """Where a place leads by one character, and which: that one, any, or any but a slash."""
    at, inside = place
    if inside:
        return [(_ANY, place), ("/", (at + 1, False))]
    if at == len(steps):
        return []
    text, plain = steps[at]
    if plain:
        return [(text, (at + 1, False))]
    if text == "?":
        return [(_WITHIN, (at + 1, False))]
    return {"*": [(_WITHIN, place)], "**": [(_ANY, place)], "**/": []}[text]


def _share(one: str, other: str) -> bool:
    """Whether some character is of both classes."""
    if _ANY in (one, other) or one == other:
        return True
    return _WITHIN in (one, other) and "/" not in (one, other)
