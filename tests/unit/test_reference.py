"""docs/reference/ is what the code says, and has all of it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import click
import pytest
from starlette.routing import Route

from penstock import events
from penstock.settings import PREFIX, Settings
from penstock.webhook.guard import ASKED, Area
from penstock.webhook.metrics import Metrics
from penstock.webhook.problems import KINDS
from scripts.reference import FOLDER, commands, edge, pages

SOURCE = Path(__file__).resolve().parents[2] / "src" / "penstock"


# Not at import: every worker of pytest would make them.
made = cache(pages)


def sections(page: str) -> dict[str, str]:
    """What stands below each heading of a page, up to the next."""
    parts = re.split(r"^#{2,3} (.+)$", made()[page], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> dict[str, str]:
    """The rows of a text's tables by what stands first in them."""
    return dict(re.findall(r"^\| `([^`]+)`[^|]*\|(.*)\|$", text.replace("\\|", "/"), re.MULTILINE))


@pytest.mark.parametrize("name", ["cli.md", "settings.md", "events.md", "metrics.md", "http.md"])
def test_a_page_is_made_from_the_code(name: str) -> None:
    """What is kept is what is made now."""
    kept = (FOLDER / name).read_text(encoding="utf-8")
    assert kept == made()[name], f"docs/reference/{name} is not what the code says: run `make docs`"


def test_there_are_no_other_pages() -> None:
    """A page that is made no more would stay."""
    assert {page.name for page in FOLDER.iterdir()} == set(made())


def test_every_command_and_option_is_there_and_says_what_it_is() -> None:
    """Each under its command; the word that calls one is the one that the command knows."""
    found = sections("cli.md")
    told = dict(commands())
    assert set(found) == set(told)
    assert {"penstock up", "penstock quarantine ls", "penstock import"} < set(told)
    for path, command in told.items():
        assert command.help, path
        assert "\\b" not in command.help, f"{path}: a raw docstring hides from click which lines are to stay"
        assert f"```\n{path}" in found[path]
        for one in command.params:
            if isinstance(one, click.Option) and not one.hidden:
                assert one.help, (path, one.opts)
                assert one.help.replace("|", "\\|") in found[path]
                assert all(re.search(rf"`{name}[` ]", found[path]) for name in (*one.opts, *one.secondary_opts)), path


def test_every_setting_is_there_and_says_what_it_is() -> None:
    """Under its environment variable, with its default and its meaning."""
    found = rows(made()["settings.md"])
    assert set(found) == {PREFIX + name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        line = found[PREFIX + name.upper()]
        assert field.description, name
        assert field.description in line
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert f"`{field.default:g}`" in line or f"`{field.default}`" in line


def test_every_event_is_there_with_its_payload() -> None:
    """Those that the code names are those whose payloads are declared, and nobody writes a name by hand."""
    constants = {value for name, value in vars(events).items() if name.isupper() and isinstance(value, str)}
    named = constants - {events.REQUEST}
    assert set(sections("events.md")) == named == set(events.PAYLOADS) == set(events.SENT)
    for name, kinds in events.PAYLOADS.items():
        fields = {field for payload in kinds.values() for field in payload}
        assert set(rows(sections("events.md")[name])) == fields
    used = {field for kinds in events.PAYLOADS.values() for payload in kinds.values() for field in payload}
    assert used == set(events.FIELDS)
    by_hand = [
        path
        for path in SOURCE.rglob("*.py")
        if path != SOURCE / "events.py" and any(f'"{name}"' in path.read_text(encoding="utf-8") for name in named)
    ]
    assert by_hand == []


def test_every_metric_is_there() -> None:
    """As a scrape names it, where nothing has been counted yet; none is made outside of `metrics`."""
    scraped = re.findall(r"^# TYPE (\w+) (?!gauge$)\w+$|^# TYPE (\w+) gauge$", Metrics().text().decode(), re.MULTILINE)
    exposed = {counted or gauge for counted, gauge in scraped}
    created = {name for name in exposed if name.endswith("_created")}
    assert set(rows(made()["metrics.md"])) == exposed - created
    makers = [path for path in SOURCE.rglob("*.py") if "prometheus_client import Coll" in path.read_text("utf-8")]
    assert makers == [SOURCE / "webhook" / "metrics.py"]


def test_every_route_is_there() -> None:
    """With each of its methods and the status codes of what it may refuse with."""
    found = sections("http.md")
    app = edge()
    for route in app.routes:
        assert isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}:
            if route.path == app.openapi_url:
                assert f"`{method} {route.path}`" in made()["http.md"]
            else:
                said = found[f"{method} {route.path}"]
                assert re.search(r"^Area: \w+", said, re.MULTILINE)
                assert re.search(r"^\| 20\d \| (?!Successful Response)", said, re.MULTILINE)
    assert set(ASKED) == set(Area)
    for kind, (status, title) in KINDS.items():
        assert f"| {status} | `urn:penstock:problem:{kind}` | {title} |" in found["Errors"]
