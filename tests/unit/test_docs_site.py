"""docs/ is a site: it builds strictly, asks nobody else for anything, and has every page and every picture."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from penstock.ledger.states import BIRTHS, MOVES
from scripts.pictures import drawings, is_drawn
from scripts.site_hooks import outward, plain_pipes

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
EXAMPLES = sorted(path.parent.name for path in ROOT.glob("examples/*/pyproject.toml"))
# What a browser loads without being asked to; of links only those that are no `a`.
LOADED = {"src", "srcset", "href", "data", "poster"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet, which hides the warnings from --strict too.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class _Loads(HTMLParser):
    """The addresses that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "a":
            self.addresses += [value or "" for name, value in attrs if name in LOADED]


def html(site: Path) -> Iterator[tuple[Path, str]]:
    for page in sorted(site.rglob("*.html")):
        yield page, page.read_text(encoding="utf-8")


def test_every_page_is_on_the_site(site: Path) -> None:
    """Each Markdown file is a page; the strict build has refused what is not in the navigation, and every dead link."""
    made = {page.relative_to(site).with_suffix("").as_posix() for page, _ in html(site)} - {"404"}
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")}
    assert made == {re.sub(r"README$", "index", page) for page in pages}


def test_it_asks_nobody_else(site: Path) -> None:
    """No page and no style loads from elsewhere, and none has the element for which the theme would fetch Mermaid."""
    for page, text in html(site):
        found = _Loads()
        found.feed(text)
        assert found.addresses, page
        assert not [one for one in found.addresses if re.match(r"(https?:)?//", one)], page
        assert 'class="mermaid"' not in text, page
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text(encoding="utf-8")), style


def test_pictures_stand_in_the_place_of_their_texts(site: Path) -> None:
    """One in a page of the site for each drawing in the Markdown, and nothing of its text."""
    for picture, _ in drawings():
        shown = [page for page, text in html(site) if f'pictures/{picture.name}"' in text]
        assert len(shown) == 1, picture
    for page, text in html(site):
        assert "stateDiagram-v2" not in text, page
        assert "flowchart TD" not in text, page


@pytest.mark.parametrize(("picture", "text"), [pytest.param(*one, id=one[0].name) for one in drawings()])
def test_a_picture_is_of_its_text(picture: Path, text: str) -> None:
    """It has the words of the drawing that stands in the Markdown now, and asks nobody else for anything."""
    assert is_drawn(picture, text), f"docs/pictures/{picture.name} is not of the text as it is: run `make pictures`"
    drawn = picture.read_text(encoding="utf-8")
    assert not re.search(r"(?:href|src)=\"(?!#)|@import|url\((?!#|&quot;#)|<script|<foreignObject", drawn)
    words = set(re.findall(r"\w{3,}", re.sub(r"<style>.*?</style>", "", drawn, flags=re.DOTALL)))
    for label in re.findall(r"\"([^\"]+)\"|^ +(\w+) -->", text, re.MULTILINE):
        assert set(re.findall(r"\w{3,}", "".join(label))) <= words, label


def test_there_are_no_other_pictures() -> None:
    """One whose text went would stay."""
    assert set(DOCS.glob("pictures/*")) == {picture for picture, _ in drawings()}


def test_the_concepts_have_every_move() -> None:
    """The drawing of the states there is the table in the code; what each is stands below it."""
    text = (DOCS / "concepts.md").read_text(encoding="utf-8")
    drawing = text.partition("stateDiagram-v2\n")[2].partition("```")[0]
    moves = {(state.value, target.value) for state, targets in MOVES.items() for target in targets}
    arrows = re.findall(r"^    (\S+) --> (\w+)$", drawing, re.MULTILINE)
    assert len(arrows) == drawing.count("-->")
    assert set(arrows) == moves | {("[*]", state.value) for state in BIRTHS}
    assert set(re.findall(r"^\| (\w+) \|", text, re.MULTILINE)) == {"state", *(state.value for state in MOVES)}


def test_every_example_is_listed() -> None:
    """Each by its README, in a line with its name."""
    page = (DOCS / "examples.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[(\w+)\]\(\.\./examples/\1/README\.md\) \|", page, re.MULTILINE)) == EXAMPLES


def test_every_decision_is_in_their_list() -> None:
    """They are no part of the navigation, and are reached from there."""
    listed = re.findall(r"\]\((0\d{3}-[\w-]+\.md)\)", (DOCS / "adr" / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(path.name for path in DOCS.glob("adr/0*.md"))


@pytest.mark.parametrize(
    ("written", "uri", "repository", "shown"),
    [
        pytest.param("[sales](../examples/data/README.md)", "a.md", "", "sales (`examples/data/README.md`)", id="path"),
        pytest.param("[`Makefile`](../Makefile)", "a.md", "", "`Makefile`", id="the path's own words"),
        pytest.param("[m](../../Makefile#x)", "adr/a.md", "https://git.example/p/", None, id="an address"),
        pytest.param("[a](../concepts.md)", "adr/a.md", "", "[a](../concepts.md)", id="within docs"),
        pytest.param("[a](../nowhere.md)", "a.md", "", "[a](../nowhere.md)", id="no file"),
        pytest.param("[a](../../../etc/passwd)", "a.md", "", "[a](../../../etc/passwd)", id="outside"),
    ],
)
def test_a_link_out_of_docs_is_told(written: str, uri: str, repository: str, shown: str | None) -> None:
    """As the file's path, or a link to it where the repository has an address; what is no such link stays."""
    wanted = shown or "[m](https://git.example/p/blob/main/Makefile#x)"
    assert outward(written, uri, root=ROOT, repository=repository) == wanted


def test_pipes_in_a_tables_code_are_shown_as_such() -> None:
    """Only there: elsewhere the backslash is meant."""
    assert plain_pipes("| `a \\| b` | c \\| d |\n`e \\| f`\n") == "| `a | b` | c \\| d |\n`e \\| f`\n"
