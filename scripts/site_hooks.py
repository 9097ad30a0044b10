r"""What the site shows otherwise than the repository: two hooks of mkdocs.

A link to a file of the repository outside of docs/, which the site does not have, becomes the file's path, or a link to
it once mkdocs.yml has `repo_url`. One to no file is left as it is, so that the strict build refuses it.

A pipe in a table's code is written `\|`, as most readers of Markdown want it; the site's would show the backslash.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

_CODE = re.compile(r"`[^`\n]+`")
_ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """The page as the site shows it; mkdocs calls it."""
    root = Path(config.docs_dir).parent
    return plain_pipes(outward(markdown, page.file.src_uri, root=root, repository=config.repo_url or ""))


def outward(markdown: str, uri: str, *, root: Path, repository: str) -> str:
    """The text of the page docs/`uri` with such links changed; `root` is the repository's folder."""

    def changed(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(uri), target))
        if path.startswith(("docs/", "..")) or not (root / path).exists():
            return found[0]
        if repository:
            return f"[{words}]({repository.rstrip('/')}/blob/main/{path}{anchor})"
        return f"`{path}`" if words.strip("`") in path else f"{words} (`{path}`)"

    return _LINK.sub(changed, markdown)


def plain_pipes(markdown: str) -> str:
    """The text without the backslashes before pipes in the code of tables."""

    def bare(found: re.Match[str]) -> str:
        return found[0].replace("\\|", "|")

    return _ROW.sub(lambda row: _CODE.sub(bare, row[0]), markdown)
