# /// script
# requires-python = ">=3.11"
# dependencies = ["mermaidx==0.10.1"]
# ///
"""The drawings in docs/: text in the Markdown, pictures on the site. `make pictures` draws those whose text changed.

A page of the repository is drawn by whoever shows it. The site has SVGs, kept in docs/pictures/: its theme would load
Mermaid from elsewhere when somebody looks at the page.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parents[1] / "docs"
_DRAWING = re.compile(r"^```mermaid\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_SIZE = re.compile(r'width="100%"(.*?) style="[^"]*"(.*?viewBox="[^"]*? ([\d.]+) ([\d.]+)")', re.DOTALL)


def main() -> None:
    """Draw what has no picture of its text, and remove pictures that have no text."""
    wanted = dict(drawings())
    for path in DOCS.glob("pictures/*.svg"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        if not is_drawn(path, text):
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{_stamp(text)}\n{_draw(text)}\n", encoding="utf-8")
            print(path.relative_to(DOCS))


def drawings() -> Iterator[tuple[Path, str]]:
    """Each drawing's text, with the picture of it."""
    for page in sorted(DOCS.rglob("*.md")):
        uri = page.relative_to(DOCS).as_posix()
        for number, found in enumerate(_DRAWING.finditer(page.read_text(encoding="utf-8")), start=1):
            yield DOCS / _picture(uri, number), found[1]


def is_drawn(path: Path, text: str) -> bool:
    """Whether the picture is one of this text."""
    return path.exists() and path.read_text(encoding="utf-8").startswith(_stamp(text))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """The page with pictures in the place of texts; mkdocs calls it. A picture is a link to itself in its own size."""
    uri, numbers = page.file.src_uri, iter(range(1, 100))

    def picture(found: re.Match[str]) -> str:
        above = _HEADING.findall(markdown, 0, found.start())
        path = posixpath.relpath(_picture(uri, next(numbers)), posixpath.dirname(uri) or ".")
        return f"[![{above[-1] if above else uri}]({path})]({path})\n"

    return _DRAWING.sub(picture, markdown)


def _picture(uri: str, number: int) -> str:
    return f"pictures/{uri.removesuffix('.md').replace('/', '-')}-{number}.svg"


def _stamp(text: str) -> str:
    return f"<!-- Drawn by `make pictures` from the text {hashlib.sha256(text.encode()).hexdigest()[:16]} -->"


def _draw(text: str) -> str:
    import mermaidx  # type: ignore[import-not-found]  # only where pictures are drawn

    plain = {"htmlLabels": False, "flowchart": {"htmlLabels": False}}
    svg: str = mermaidx.render(text, theme="neutral", config=plain).svg()
    # As wide as its container is no size for an image.
    return _SIZE.sub(r'width="\3" height="\4"\1\2', svg, count=1)


if __name__ == "__main__":
    main()
