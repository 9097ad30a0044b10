"""Writes docs/reference/ from what the code says of its commands, settings, events, metrics and routes: `make docs`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import click
from fastapi import FastAPI
from prometheus_client.metrics import MetricWrapperBase

from penstock import events
from penstock.cli.main import cli
from penstock.settings import PREFIX, Settings
from penstock.webhook.app import create_app
from penstock.webhook.guard import ASKED, area_of
from penstock.webhook.metrics import Metrics
from penstock.webhook.ports import Intake
from penstock.webhook.problems import KINDS, Refusal, problem
from penstock.webhook.routes import HOOK

_TYPE = "urn:penstock:problem:"
FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
_MADE = "<!-- Made from the code by `make docs`: change the code, not this page. -->"

_COMMANDS = """\
# Commands

Every command ends with 0 when it did its work, 1 when it failed, 2 when it was called wrongly or a setting or a
declaration is wrong, 130 when it was stopped. `-h` and `--help` show what is here."""
_SETTINGS = """\
# Settings

Each is an environment variable, or a line of `.env` in the project's folder. Of several values the first counts: the
environment, `.env`, what `penstock up` made for itself (`secrets.json` and `up.json` in `.penstock/`), the default. An
empty one is as if it were not there. They are checked when a command starts; `penstock doctor` shows each value and
where it came from."""
_EVENTS = """\
# Events

What penstock sends to Prefect, for automations to match ([automations](../automations.md)). The resource's id is
`penstock.<project>.dataset.<name>`, `penstock.<project>.object.<bucket>/<key>` or `penstock.<project>.source.<name>`.
Sources may send [further ones](../webhooks.md#which-dataset) under names of their own, which may not begin as these
or Prefect's do."""
_METRICS = """\
# Metrics

`GET /metrics` of the webhook, in Prometheus's text format ([who may ask](http.md#get-metrics)). `source` is the name of
a declared source, or `(unknown)`; no label takes a value that a sender chooses. Of a histogram there are `_bucket`,
`_sum` and `_count`."""
_HTTP = """\
# HTTP

The webhook's routes. `GET /openapi.json` has them for programs, with the project's own ones (`webhook/app.py`); its
area is *operations*, as that of every own route. What a sender should do with an answer stands in
[webhooks](../webhooks.md#answers)."""


def main() -> None:
    """Write every page."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Each page's text by its file's name."""
    made = {"cli": _commands, "settings": _settings, "events": _events, "metrics": _metrics, "http": _http}
    return {f"{name}.md": "\n".join((_MADE, "", *lines())) + "\n" for name, lines in made.items()}


def commands(command: click.Command = cli, path: str = "penstock") -> Iterator[tuple[str, click.Command]]:
    """Each command with the words that call it, as `penstock quarantine ls`, those of groups behind their group."""
    if command.hidden:
        return
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from commands(below, f"{path} {name}")


def edge() -> FastAPI:
    """The webhook's application, without sources and without anything behind it."""
    return create_app(
        sources=[],
        intake=cast(Intake, None),
        resolve_secret=lambda _: "",
        notify_token="",
        buckets=[],
        clock=lambda: datetime.now(UTC),
        version="-",
    )


def _commands() -> Iterator[str]:
    yield _COMMANDS
    for path, command in commands():
        usage = command.collect_usage_pieces(click.Context(command, info_name=path))
        yield from ("", f"{'##' if path.count(' ') < 2 else '###'} {path}", "", "```")
        yield from (" ".join((path, *usage)), "```", "", _prose(command.help or ""))
        options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
        if options:
            rows = [[_spelled(one), _default(one), one.help or ""] for one in options]
            yield from ("", *_table(["option", "default", "is"], rows))


def _spelled(option: click.Option) -> str:
    names = "`, `".join((*option.opts, *option.secondary_opts))
    if option.is_flag:
        return f"`{names}`"
    value = option.make_metavar(click.Context(cli))
    return f"`{names} {value}`{', repeatable' if option.multiple else ''}"


def _default(option: click.Option) -> str:
    default = option.get_default(click.Context(cli))
    # Where there is none, newer clicks have a sentinel.
    told = f"`{default}`" if default and isinstance(default, str | int | Path) and not option.is_flag else ""
    return f"`{option.envvar}`, else {told}" if option.envvar else told


def _settings() -> Iterator[str]:
    yield _SETTINGS
    yield ""
    described = Settings.model_json_schema()["properties"]
    rows = [
        [f"`{PREFIX}{name.upper()}`", _values(one), _code(one["default"]), one.get("description", "")]
        for name, one in described.items()
    ]
    yield from _table(["variable", "value", "default", "is"], rows)


def _values(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " ".join(f"`{value}`" for value in schema["enum"])
    kind = {"boolean": "`true` `false`", "string": "text"}.get(schema["type"], schema["type"])
    if schema.get("writeOnly"):
        kind = "secret"
    elif schema.get("format") == "path":
        kind = "path"
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    bounds = [f"from {low:,}"] if low is not None else [f"over {above:,g}"] if above is not None else []
    if (high := schema.get("maximum")) is not None:
        bounds.append(f"to {high:,g}" if isinstance(high, float) else f"to {high:,}")
    return f"{kind} {' '.join(bounds)}".strip()


def _code(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return f"`{text}`" if text not in ("", ".") else ""


def _events() -> Iterator[str]:
    yield _EVENTS
    for name, kinds in events.PAYLOADS.items():
        yield from ("", f"## {name}", "", f"Sent when {events.SENT[name]}.")
        for kind, payload in kinds.items():
            rows = [[f"`{field}`", of, events.FIELDS[field]] for field, of in payload.items()]
            yield from ("", *_table([f"payload, of the {kind}", "type", "is"], rows))


def _metrics() -> Iterator[str]:
    yield _METRICS
    yield ""
    rows = []
    for one in vars(Metrics()).values():
        if isinstance(one, MetricWrapperBase):
            (family,) = one.describe()
            suffix = "_total" if family.type == "counter" else ""
            labels = " ".join(f"`{label}`" for label in one._labelnames)
            rows.append([f"`{family.name}{suffix}`", family.type, labels, family.documentation])
    yield from _table(["metric", "type", "labels", "is"], rows)


def _http() -> Iterator[str]:
    yield _HTTP
    yield ""
    yield from _table(["area", "asks of a request"], [[area.value, words] for area, words in ASKED.items()])
    document = edge().openapi()["paths"]
    for path, methods in document.items():
        for method, said in methods.items():
            yield from ("", f"## {method.upper()} {path}", "", said["description"], "")
            yield from (f"Area: {_areas(method.upper(), path)}.", "")
            answers = [[status, one["description"].replace(_TYPE, "")] for status, one in said["responses"].items()]
            yield from _table(["status", "when"], sorted(answers))
    yield from ("", "## Errors", "")
    yield "Problem details (RFC 9457), as `application/problem+json`. `type` is what a program may rely on."
    yield ""
    kinds = [problem(Refusal(kind, "")) for kind in KINDS]
    rows = [[str(one.status), f"`{one.type}`", one.title] for one in kinds]
    yield from _table(["status", "type", "title"], rows)


def _areas(method: str, path: str) -> str:
    if path != HOOK:
        return area_of(method, path, (), ()).value
    verified, unverified = area_of(method, "/hooks/a", ["a"], []), area_of(method, "/hooks/a", [], ["a"])
    return f"{verified.value}, or {unverified.value} where the source verifies nothing"


def _prose(text: str) -> str:
    # Click leaves the lines of a paragraph as they are that begins so.
    parts = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(f"```\n{part[2:]}\n```" if part.startswith("\b\n") else part for part in parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


if __name__ == "__main__":
    main()
