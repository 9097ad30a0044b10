"""Column names of a table, and how a column is addressed in its source. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from penstock.errors import Unreadable

# PostgreSQL cuts identifiers at 63 bytes; a duplicate's number must still fit.
LONGEST = 56

_KEY = re.compile(r'\."((?:[^"\\]|\\.)*)"')


def normalised(originals: Iterable[str]) -> list[str]:
    """Table column names for source names, in order: lower case, `_` between words, unique, none of penstock's own."""
    names: list[str] = []
    taken: set[str] = set()
    for original in originals:
        base = _normal(original)
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        names.append(name)
    return names


def spelling(original: str) -> tuple[str, ...]:
    """What the spellings of a name have in common: case, spaces, accents and signs left out. A sign alone is one."""
    return tuple(_words(key) or key for key in json_keys(original))


def places_of(originals: Sequence[str], columns: Sequence[str]) -> list[int | None]:
    """For each of the remembered names `columns`, where an object with the names `originals` has it.

    The same name goes first, then that of a JSON path with `_` between its keys, then another spelling; of several that
    are equal the second is the second.
    """
    found: dict[int, int] = {}
    left = dict(enumerate(originals))
    for theirs, ours in _ALIKE:
        places: dict[object, list[int]] = defaultdict(list)
        for place, original in left.items():
            places[theirs(original)].append(place)
        for number, column in enumerate(columns):
            if number not in found and (some := places[ours(column)]):
                found[number] = some.pop(0)
                del left[found[number]]
        if not left:
            break
    return [found.get(number) for number in range(len(columns))]


def _words(original: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", original.lower()) if not unicodedata.combining(c))
    return "_".join("".join(c if c.isalnum() else " " for c in plain).split())


def _normal(original: str) -> str:
    name = _words(original).encode()[:LONGEST].decode(errors="ignore").strip("_")
    if original.lower().startswith("_penstock"):
        name = f"source_{name}"
    if not name:
        return "column"
    return f"_{name}" if name[0].isdigit() else name


def json_path(keys: Sequence[str]) -> str:
    """How a JSON column's source is written: `$."properties"."mag"`."""
    return "$" + "".join("." + json.dumps(key, ensure_ascii=False) for key in keys)


def json_keys(path: str) -> tuple[str, ...]:
    """The keys of a path that `json_path` wrote; a CSV header's name is one key, where formats mix in a dataset."""
    if not path.startswith('$."'):
        return (path,)
    return tuple(json.loads(f'"{key}"') for key in _KEY.findall(path))


def flat_name(original: str) -> str:
    """The name under which a table-like file holds what another object of the dataset had at a JSON path."""
    return "_".join(json_keys(original))


def json_pointer(keys: Sequence[str]) -> str:
    """RFC 6901. Unlike DuckDB's own paths it can address any key, `*` and the empty one too.

    Raises Unreadable for a key with U+0000, at which DuckDB takes its SQL to end.
    """
    if any("\0" in key for key in keys):
        raise Unreadable("a key of its records has a U+0000 in it; send it without")
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


_ALIKE: tuple[tuple[Callable[[str], object], Callable[[str], object]], ...] = (
    (str, str),
    (str, flat_name),
    (spelling, spelling),
)
