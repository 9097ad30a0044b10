"""What was found, as a table for the terminal and as `RESULTS.md`: from the JSON alone, and the notes beside it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Found = Mapping[str, Any]

_HEAD = """\
# What `make bench` measured

Written by `{command}`; the figures are in `{json}`. Every one is held against something that was measured in the same
run, on the same machine: read the ratios, not the seconds.
"""
_COLUMNS = "| what | measured | against | ratio | must reach | reached |\n| --- | ---: | --- | ---: | --- | --- |"


def write(found: Found, out: Path, *, notes: Path) -> None:
    """Write the JSON and, beside it, RESULTS.md."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2) + "\n")
    explained = tomllib.loads(notes.read_text()) if notes.exists() else {}
    out.with_name("RESULTS.md").write_text(render(found, explained, json_name=out.name))


def lines(bench: Found) -> Iterator[str]:
    """A bench's figures, a line each."""
    for kind in ("failed", "skipped"):
        if bench[kind]:
            yield f"   {kind.upper()}: {bench[kind]}"
    for figure in bench["figures"]:
        what, measured, against, ratio, target, reached = _cells(figure)
        held = f" against {against}" if against else ""
        times = f", {ratio}" if ratio else ""
        judged = f"; must reach {target}: {reached}" if target else ""
        yield f"   {what}: {measured}{held}{times}{judged}"
    if bench["verified"]:
        yield f"   correct: {bench['verified']}"


def table(found: Found) -> str:
    """Every figure of a run, as one Markdown table."""
    rows = [_row(figure) for bench in found["benches"] for figure in bench["figures"]]
    rows += [f"| {b['title']} | | | | | **FAILED** |" for b in found["benches"] if b["failed"]]
    rows += [f"| {b['title']} | | | | | skipped |" for b in found["benches"] if b["skipped"]]
    return "\n".join([_COLUMNS, *rows])


def render(found: Found, notes: Mapping[str, Mapping[str, str]], *, json_name: str) -> str:
    """The text of RESULTS.md. `notes` say, by a figure's name, what bounds it and what was tried."""
    parts = [
        _HEAD.format(command=found["command"], json=json_name),
        _when(found),
        "## The table\n\n" + table(found) + "\n",
        "## Where we are slower\n\n" + "\n".join(_slower(found, notes)) + "\n",
        "## How it was measured\n",
        *(_section(bench) for bench in found["benches"]),
    ]
    return "\n".join(parts)


def _when(found: Found) -> str:
    quick = "\nA `--quick` run: the sizes are too small for the times to mean anything.\n" if found["quick"] else ""
    described = "\n".join(f"| {name} | {value} |" for name, value in found["machine"].items())
    took = f"Measured on {found['began']}, in {found['seconds'] / 60:.0f} minutes.\n"
    return f"{took}{quick}\n## The machine\n\n| what | is |\n| --- | --- |\n{described}\n"


def _slower(found: Found, notes: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    figures = [figure for bench in found["benches"] for figure in bench["figures"]]
    missed = [figure for figure in figures if figure["reached"] is False]
    if not missed:
        yield "Every target was reached in this run.\n"
    for figure in missed:
        what, measured, against, ratio, target, _ = _cells(figure)
        held = f" against {against} ({ratio})" if ratio else ""
        note = notes.get(figure["name"], {})
        why = f"What bounds it: {note['bound']}" if "bound" in note else "What bounds it has not been looked into."
        tried = f" What was tried: {note['tried']}" if "tried" in note else ""
        yield f"- **{what}**: {measured}{held}; it must reach {target}. {why}{tried}"
    for figure in figures:
        if figure["target"] is None and _is_slower(figure):
            what, measured, against, ratio, _, _ = _cells(figure)
            yield f"- {what}: {measured} against {against} ({ratio}; no target)."
    for name, note in notes.items():
        if "besides" in note and all(figure["name"] != name for figure in missed):
            yield f"- {note['besides']}"


def _is_slower(figure: Found) -> bool:
    """Worse than what it is held against: more of whatever it is, or less of what is done a second."""
    if figure["ratio"] is None:
        return False
    return bool(figure["ratio"] < 1 if figure["unit"] == "/s" else figure["ratio"] > 1)


def _section(bench: Found) -> str:
    found = [f"### {bench['title']}\n"]
    if bench["failed"]:
        found.append(f"**Failed, so that no time counts:** {_one_line(bench['failed'])}\n")
    if bench["skipped"]:
        found.append(f"Skipped: {bench['skipped']}\n")
    if bench["method"]:
        found.append(bench["method"] + "\n")
    if bench["verified"]:
        found.append(f"Compared before any time counted: {bench['verified']}.\n")
    found += [f"- {figure['what']}: {figure['note']}" for figure in bench["figures"] if figure["note"]]
    if bench["spread"]:
        names = ("n", "min", "p50", "p95", "p99", "max")
        found.append("\n| seconds | " + " | ".join(names) + " |\n| --- |" + " ---: |" * len(names))
        found += [
            f"| {what} | {values['n']:.0f} | " + " | ".join(f"{values[name]:.3f}" for name in names[1:]) + " |"
            for what, values in bench["spread"].items()
        ]
    return "\n".join(found) + f"\n\nIt took {bench['seconds']:.0f} s.\n"


def _row(figure: Found) -> str:
    return "| " + " | ".join(_cells(figure)) + " |"


def _cells(figure: Found) -> tuple[str, str, str, str, str, str]:
    target = figure["target"]
    on = target["on"] if target and target["on"] != "value" else "times"
    ratio = "" if figure["ratio"] is None else f"{_number(figure['ratio'])} ×{' faster' if on == 'faster' else ''}"
    against = f"{figure['against']}: {_with_unit(figure['peer'], figure['unit'])}" if figure["against"] else ""
    must = ""
    if target:
        sign = "≥" if target["at_least"] else "≤"
        bound = _with_unit(target["bound"], figure["unit"]) if target["on"] == "value" else f"{target['bound']:g} ×"
        must = f"{sign} {bound}{' faster' if target['on'] == 'faster' else ''}"
    reached = {True: "yes", False: "**no**", None: ""}[figure["reached"]]
    return figure["what"], _with_unit(figure["value"], figure["unit"]), against, ratio, must, reached


def _with_unit(value: float | None, unit: str) -> str:
    if value is None:
        return "not measured"
    return f"{_number(value)}{unit}" if unit in ("/s", "%") else f"{_number(value)} {unit}".rstrip()


def _number(value: float) -> str:
    """Three digits that say something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1g}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]
