"""A field or a name that penstock has not, and the one that was meant."""

from __future__ import annotations

import re
import sys
from dataclasses import fields

from penstock.checks import Check
from penstock.declarations import Backfill, Bucket, Dataset, Folder, Ready
from penstock.dialects import Csv, Excel
from penstock.nearest import did_you_mean
from penstock.own_flows import Deployment
from penstock.sources import Chosen, Emit, Source

_DECLARED = {
    kind.__name__: kind
    for kind in (Backfill, Bucket, Check, Chosen, Csv, Dataset, Deployment, Emit, Excel, Folder, Ready, Source)
}
# As Python words them; `tests/unit/test_options.py` asks it.
_FIELD = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
_IMPORT = re.compile(r"cannot import name '(\w+)' from 'penstock' ")
_ATTRIBUTE = re.compile(r"module 'penstock' has no attribute '(\w+)'")


def unknown_name(error: Exception) -> str | None:
    """What to say in the place of Python's own words; None when the error is of another kind."""
    if isinstance(error, TypeError) and (found := _FIELD.match(str(error))) and found[1] in _DECLARED:
        return _no_field(found[1], found[2])
    if isinstance(error, ImportError | AttributeError):
        name = _IMPORT.match(str(error)) or _ATTRIBUTE.match(str(error))
        if name is not None:
            near = did_you_mean(name[1], sys.modules["penstock"].__all__, shown="{}")
            return f"penstock has no {name[1]}{near or ': docs/datasets.md has what there is'}"
    return None


def _no_field(kind: str, said: str) -> str:
    names = [one.name for one in fields(_DECLARED[kind])]
    near = did_you_mean(said, names, shown="{}=")
    return f"{kind} has no {said}{near or ': it has ' + ', '.join(names)}"
