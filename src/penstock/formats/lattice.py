"""Which type a column gets when a value comes that does not fit the one it has. Pure, as SQL where values are asked.

`docs/formats.md` has the table. A value fits a type that was found when no more is lost in it than further digits of a
fraction; a type that was declared is taken at its word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from penstock.declarations import Dataset
from penstock.quoting import literal

# From here on a DOUBLE does not tell a whole number from the next.
EXACT = 2**53
# In a schema's dialect: the columns that hold whole numbers beyond EXACT, and so never become DOUBLE.
LONG = "long"

_NO_TEXT = re.compile(r"^(VARCHAR|JSON|BLOB|BIT)$|^(STRUCT|MAP|UNION)\b|\]$", re.IGNORECASE)
_PLAIN_NUMBER = r"\s*[+-]?[0-9.,]+\s*"
_HAS_TIME = "[0-9][ Tt]+.*[1-9]"
_HAS_ZONE = ":[0-9.]+ *[+-][0-9:]*[1-9]"
# These only round: further digits of a fraction, or of a second.
_ROUNDING = {("DOUBLE", "FLOAT"), ("TIMESTAMP_NS", "TIMESTAMP"), ("TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE")}


@dataclass(frozen=True, kw_only=True)
class Misfits:
    """How many of an object's values in a column do not fit its type: all, those with a fraction; and how many of all
    its values would not fit DOUBLE.
    """

    failed: int
    fractions: int = 0
    not_double: int = 0


def wider(kind: str, misfits: Misfits, *, long: bool, text: bool) -> str | None:
    """The type that takes the misfits too, or None when they are to be put aside.

    `long`: rows from before hold numbers that DOUBLE would round. `text`: the column may become text.
    """
    if not misfits.failed:
        return None
    if kind == "BIGINT" and not long and misfits.failed == misfits.fractions and not misfits.not_double:
        return "DOUBLE"
    return "VARCHAR" if text and may_be_text(kind) else None


def may_be_text(kind: str) -> bool:
    """Whether a value of that type has one text that says all of it, and is none already."""
    return _NO_TEXT.search(kind) is None


def text_columns(dataset: Dataset) -> Callable[[str], bool]:
    """Whether a column may become text: the schema evolves, and nothing that is declared goes by its type.

    What a function of the declaration goes by is not known.
    """
    if dataset.schema != "evolve" or dataset.transform is not None:
        return lambda name: False
    said = [
        *dataset.columns,
        *dataset.derive.values(),
        *(check.predicate for check in (dataset.row_checks | dataset.object_checks).values()),
        *dataset.report.values(),
        *dataset.key,
        *dataset.partitions,
        *(text for text in (dataset.where, dataset.order_by, dataset.event_time) if text),
    ]
    words = {word for text in said for word in re.findall(r"\w+", text.lower())}
    # COLUMNS(…) names columns by a pattern.
    return (lambda name: False) if "columns" in words else (lambda name: name not in words)


def lossless(text: str, target: str, cast: str, *, plain: str | None = None) -> str:
    """The `cast` of a text to a type that was found; NULL where the type would not hold all that the text says.

    `plain` is the text with a decimal point. What is too small or too short for a loss is not looked at further.
    """
    match target.upper():
        case "DOUBLE":
            whole = f"TRY_CAST({plain or text} AS HUGEINT) = TRY_CAST({cast} AS HUGEINT)"
            # So a DOUBLE is written in full, though its last digits before the point are not its own.
            own = f"CAST(to_json({cast}) AS VARCHAR) = {plain or text}"
            return (
                f"CASE WHEN {text} BETWEEN '00' AND '0:' THEN NULL WHEN abs({cast}) >= {EXACT} AND "
                f"((isinf({cast}) AND NOT contains(lower({text}), 'inf')) OR "
                f"(regexp_full_match({text}, {literal(_PLAIN_NUMBER)}) AND ({whole}) IS NOT TRUE "
                f"AND ({own}) IS NOT TRUE)) THEN NULL ELSE {cast} END"
            )
        case "DATE":
            return _unless(text, f"strlen({text}) <= 10 AND NOT contains({text}, ' ')", _HAS_TIME, cast)
        case "TIME":
            return f"CASE WHEN NOT contains({text}, '-') THEN {cast} END"
        case "TIMESTAMP":
            return _unless(text, f"strlen({text}) <= 19", _HAS_ZONE, cast)
    return cast


def back_and_forth(value: str, source: str, target: str, cast: str) -> str:
    """The `cast` of a typed value to the type `target`; NULL unless it comes back as it was, or was but rounded."""
    if (source, target) in _ROUNDING:
        return cast
    return f"CASE WHEN TRY_CAST({cast} AS {source}) = {value} THEN {cast} END"


def _unless(text: str, short: str, form: str, cast: str) -> str:
    return f"CASE WHEN ({short}) OR NOT regexp_matches({text}, {literal(form)}) THEN {cast} END"
