"""A run's report as markdown. Pure."""

from __future__ import annotations

from typing import Any

from penstock.flows.report import Report


def as_markdown(dataset: str, report: Report, seconds: float) -> str:
    """What Prefect's UI shows of a run: counts, outcomes, and the dataset's own figures."""
    lines = [
        f"# {dataset}",
        "",
        "| objects loaded | rows | rejected rows | seconds |",
        "| ---: | ---: | ---: | ---: |",
        f"| {report.loaded} | {report.rows} | {report.rejected} | {seconds} |",
    ]
    others = {state: count for state, count in sorted(report.outcomes.items()) if state != "loaded"}
    if others:
        lines += ["", "| not loaded | objects |", "| --- | ---: |"]
        lines += [f"| {state} | {count} |" for state, count in others.items()]
        lines += ["", "Why: `penstock why KEY`"]
    if report.filtered:
        lines += ["", f"{report.filtered:,} rows were passed over by `where`."]
    if report.warnings:
        lines += ["", "| warned by check | rows |", "| --- | ---: |"]
        lines += [f"| {_shown(name)} | {count} |" for name, count in report.warnings.items()]
    if (times := report.times) is not None:
        lines += ["", "| first event | last event | late rows |", "| --- | --- | ---: |"]
        lines += [f"| {times.least.isoformat()} | {times.greatest.isoformat()} | {times.late} |"]
    if report.figures:
        lines += ["", "| figure | value |", "| --- | ---: |"]
        lines += [f"| {name} | {_shown(value)} |" for name, value in report.figures.items()]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_shown(key)}: {_shown(inner)}" for key, inner in sorted(value.items()))
    if isinstance(value, float):
        return f"{value:,.2f}"
    # What comes from the data must not end a cell or a line of the table.
    return " ".join(str(value).split()).replace("|", "\\|")
