"""A dataset's file as text, from what an example showed. Pure.

The text is as `ruff format` leaves it, whatever the project's line length is, from 88 on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from penstock.declarations import Dataset
from penstock.dialects import Csv, Excel
from penstock.errors import DeclarationError
from penstock.formats.names import normalised
from penstock.formats.packed import bare_name
from penstock.keys import may_overlap
from penstock.model import NAME, Column
from penstock.quoting import quoted

_WIDTH = 88
_LONGEST = 50
_UNSAYABLE = re.compile(r"[^A-Za-z0-9 ._()-]")
_PLAIN_PREFIX = re.compile(r"[^\"'\\\x00-\x1f\x7f]+/")
_NUMBERS = re.compile(r"^(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT|U[A-Z]+INT|INTEGER|FLOAT|DOUBLE|DECIMAL.*)$")

_COUNTED = {"quantity", "qty", "price", "amount", "count", "total", "cost"}
_NOT_COUNTED = {"id", "code", "number", "change", "delta", "diff", "difference", "balance"}


@dataclass(frozen=True, kw_only=True)
class Hint:
    """A column whose type one file cannot tell for sure. Unless `said`, it is only shown as a comment."""

    column: str
    type: str
    why: str
    said: bool


def name_from(filename: str) -> str:
    """What a dataset of such files may be called: without suffix, and without dates and numbers at either end."""
    stem = bare_name(filename).rpartition("/")[2]
    stem = stem.partition(".")[0]
    # What has no letter at all is normalised to a word that says nothing.
    ascii_only = re.sub(r"[^a-z0-9]+", "_", normalised([stem])[0]) if any(map(str.isalnum, stem)) else ""
    parts = [part for part in ascii_only.split("_") if part]
    while len(parts) > 1 and parts[-1].isdigit():
        parts.pop()
    while parts and parts[0].isdigit():
        parts.pop(0)
    name = "_".join(parts)[:_LONGEST].strip("_")
    if not NAME.match(name):
        raise DeclarationError(f"{filename!r} gives no name for a dataset: say one with --name")
    return name


def refuse_overlap(dataset: Dataset, others: Sequence[Dataset]) -> None:
    """Raise DeclarationError when another dataset has the name or takes what this one would."""
    for other in others:
        if other.name == dataset.name:
            raise DeclarationError(f"there is a dataset {dataset.name} already; choose another name with --name")
        if may_overlap(dataset, other):
            raise DeclarationError(
                f"the dataset {other.name} takes {other.prefix!r} already, which overlaps {dataset.prefix!r}, and an "
                f"object belongs to one. What the file would bring there: penstock preview FILE --dataset {other.name}"
            )
    if not _PLAIN_PREFIX.fullmatch(dataset.prefix):
        raise DeclarationError(f"the folder {dataset.prefix!r} has quotes or control characters; rename it first")


def dataset_source(
    dataset: Dataset, columns: Sequence[Column], hints: Sequence[Hint], *, example: str, reserved: Collection[str]
) -> str:
    """The file that declares `dataset`, whose `columns` hints are those of `hints` that are `said`.

    `columns` are those of the example, `reserved` the words that SQL reads otherwise.
    """
    shown = _UNSAYABLE.sub("_", example)[:_LONGEST]
    lines = [f'"""The dataset {dataset.name}, declared after the example {shown.strip(" .")}."""', ""]
    names = ", ".join(["Csv"] * (dataset.csv != Csv()) + ["Dataset"] + ["Excel"] * (dataset.excel != Excel()))
    lines += [f"from penstock import {names}", "", "DATASET = Dataset(", f'    name="{dataset.name}",']
    if dataset.prefix != f"{dataset.name}/":
        lines.append(f'    prefix="{dataset.prefix}",')
    if dataset.format != "auto":
        lines.append(f'    format="{dataset.format}",')
    if dataset.pattern:
        lines.append(f"    pattern={_code_of(dataset.pattern)},")
    if dataset.csv != Csv():
        lines.append(f"    csv=Csv({_csv_of(dataset.csv)}),")
    if dataset.excel != Excel():
        lines.append(f"    excel=Excel({_excel_of(dataset.excel)}),")
    if dataset.records:
        lines.append(f"    records={_code_of(dataset.records)},")
    lines += _hint_lines(hints)
    lines += _check_lines(columns, reserved)
    return "\n".join([*lines, ")", ""])


def _csv_of(csv: Csv) -> str:
    said = {"delimiter": csv.delimiter, "encoding": csv.encoding, "decimal": csv.decimal, "skip": csv.skip}
    return ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in said.items() if value is not None
    )


def _excel_of(excel: Excel) -> str:
    said = []
    if excel.sheet is not None:
        said.append(f"sheet={_code_of(excel.sheet) if isinstance(excel.sheet, str) else excel.sheet}")
    if excel.header_row != Excel().header_row:
        said.append(f"header_row={excel.header_row}")
    return ", ".join(said)


def _code_of(text: str) -> str:
    """A literal of Python, as it is written by hand where that can be."""
    if text.isprintable() and '"' not in text and not text.endswith("\\"):
        return f'r"{text}"' if "\\" in text else f'"{text}"'
    return repr(text)


def automation_source(name: str) -> str:
    """The file with the automation that loads what arrives."""
    line = automation_line(name)
    if len(line) > _WIDTH:
        line = f'AUTOMATIONS = [\n    on_arrival("{name}"),\n]'
    return (
        f'"""What is new in {name} is loaded as soon as it arrives."""\n\nfrom penstock import on_arrival\n\n{line}\n'
    )


def automation_line(name: str) -> str:
    """How an automation file declares it."""
    return f'AUTOMATIONS = [on_arrival("{name}")]'


def _hint_lines(hints: Sequence[Hint]) -> list[str]:
    said = [hint for hint in hints if hint.said]
    unsaid = [hint for hint in hints if not hint.said]
    lines = []
    if said:
        lines.append("    columns={")
        for hint in said:
            lines += [f"        # {hint.why}", f'        "{hint.column}": "{hint.type}",']
        for hint in unsaid:
            lines += [f"        # {hint.why}", f'        # "{hint.column}": "{hint.type}",']
        lines.append("    },")
    elif unsaid:
        lines.append("    # columns={")
        for hint in unsaid:
            lines += [f"    #     # {hint.why}", f'    #     "{hint.column}": "{hint.type}",']
        lines.append("    # },")
    return lines


def _is_counted(name: str) -> bool:
    """Whether a number of that name is hardly ever below 0."""
    words = set(name.split("_"))
    return bool(words & _COUNTED) and not words & _NOT_COUNTED


def _check_lines(columns: Sequence[Column], reserved: Collection[str]) -> list[str]:
    usable = [column for column in columns if NAME.match(column.name) and len(column.name) <= 48]
    number = next((one.name for one in usable if _NUMBERS.match(one.type.upper()) and _is_counted(one.name)), None)
    first = usable[0].name if usable else "a_column"
    name, column, test = (
        (f"{number}_not_negative", number, ">= 0") if number else (f"{first}_given", first, "IS NOT NULL")
    )
    subject = f"'{quoted(column)} {test}'" if column in reserved else f'"{column} {test}"'
    return [
        "    # A row is good when each check is true for it; the others are put aside.",
        "    # checks={",
        f'    #     "{name}": {subject},',
        "    # },",
        "    # With less than this share of good rows a file goes to quarantine as a whole.",
        "    # threshold=0.9,",
    ]
