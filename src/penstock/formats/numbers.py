"""Numbers in texts: whole ones, and those with a decimal comma or with thousands. Pure, as SQL."""

from __future__ import annotations

from typing import Literal

from penstock.quoting import literal

# `found`: a dot parts thousands only where a comma or a second dot says so. `declared`: it always does. `point`: the
# point is the decimal mark as declared, and so a comma parts thousands.
Comma = Literal["found", "declared", "point"]

WHOLE = r"\s*[+-]?[0-9]+\s*"
WHOLE_WITHOUT_ZEROS = r"\s*[+-]?(0|[1-9][0-9]*)\s*"
_GROUPS: dict[Comma, str] = {
    "found": r"[0-9]{1,3}(\.[0-9]{3}){2,}",
    "declared": r"[0-9]{1,3}(\.[0-9]{3})+",
    "point": r"[0-9]{1,3}(,[0-9]{3})+",
}
FRACTION = r"\s*[+-]?([0-9]{1,3}(\.[0-9]{3})+|[0-9]+)?,[0-9]+\s*"
GROUPED: dict[Comma, str] = {comma: rf"\s*[+-]?{groups}\s*" for comma, groups in _GROUPS.items()}
GROUPED_FRACTION = rf"\s*[+-]?{_GROUPS['point']}\.[0-9]*\s*"


def comma_of(dialect: dict[str, object], column: str) -> Comma | None:
    """Whether a column's numbers have a decimal comma, or commas at all, and how that is known."""
    if (declared := dialect.get("decimal")) is not None:
        return "declared" if declared == "," else "point"
    commas = dialect.get("commas", ())
    return "found" if isinstance(commas, list) and column in commas else None


def whole_of(text: str, target: str, comma: Comma | None, *, zeros: bool) -> str:
    """A text as a whole number of the type `target`; NULL where it is none, or has `zeros` in front that count."""
    # DuckDB rounds '2.5' and takes '0x1F' and '1_000'; neither is what the data says.
    form = WHOLE_WITHOUT_ZEROS if zeros else WHOLE
    plain = f"WHEN regexp_full_match({text}, {literal(form)}) THEN TRY_CAST({text} AS {target})"
    if comma is None:
        return f"CASE {plain} END"
    mark = "," if comma == "point" else "."
    grouped = (
        f"regexp_full_match({text}, {literal(GROUPED[comma])}) THEN TRY_CAST(replace({text}, '{mark}', '') AS {target})"
    )
    return f"CASE {plain} WHEN {grouped} END"


def pointed(text: str, comma: Comma) -> str:
    """A number as it is with a decimal point, and with no mark for thousands."""
    return f"replace({text}, ',', '')" if comma == "point" else f"replace(replace({text}, '.', ''), ',', '.')"


def fraction_of(text: str, target: str, comma: Comma) -> str:
    """A text with those marks, or without any, as a number of the type `target`; NULL where it is none."""
    form = f"{GROUPED_FRACTION if comma == 'point' else FRACTION}|{GROUPED[comma]}"
    other = "," if comma == "point" else "."
    return (
        f"CASE WHEN regexp_full_match({text}, {literal(form)}) "
        f"THEN TRY_CAST({pointed(text, comma)} AS {target}) "
        f"WHEN NOT contains({text}, '{other}') THEN TRY_CAST({text} AS {target}) END"
    )
