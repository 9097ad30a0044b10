"""The pages: each command can be called so, each is run or says why not, and each file of a project is one."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from penstock.cli.main import cli
from penstock.project import FOLDERS, load_project
from tests.pipelines.pages import Block, blocks, called, commands, files_read, is_up, missing

ROOT = Path(__file__).resolve().parents[2]
DOCS = ["README.md", *sorted(str(one.relative_to(ROOT)) for one in (ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted(str(one.relative_to(ROOT)) for one in (ROOT / "examples").glob("*/README.md"))
# Which datasets a page takes for granted.
_GIVEN = {"docs/webhooks.md": ["orders"]}
OTHERS = ["CONTRIBUTING.md", "src/penstock/template/README.md"]

PAGE = """# A page

<!-- before: printf 'a\\n1\\n' > a.csv -->
<!-- exits: 1 -->
```sh
penstock up   # stays
cat > b.csv <<'END'
a'b
# no comment
END
penstock query "SELECT 1
FROM b" | head -n 1 && \\
  penstock why b
# only a comment
```

```text
one line
```

Words.

```text
of nobody
```

<!-- not run: needs docker -->

   ```sh
   docker compose up
   ```

```python
# flows/a.py
A = 1
```
"""


def _of(page: str) -> list[Block]:
    return blocks(page, (ROOT / page).read_text(encoding="utf-8"))


def test_blocks_are_found_with_what_is_said_before_them() -> None:
    """Language, line, notes, and what a page shows of what a block prints."""
    first, shown, alone, docker, python = blocks("p.md", PAGE)
    assert (first.language, first.line, first.note("exits"), first.shown) == ("sh", 5, "1", "one line\n")
    assert first.note("before") == "printf 'a\\n1\\n' > a.csv"
    assert (shown.language, alone.shown, first.runs_here) == ("text", None, True)
    assert (docker.text, docker.note("not run"), docker.runs_here) == ("docker compose up\n", "needs docker", False)
    assert (str(python.file), shown.file) == ("flows/a.py", None)


def test_commands_are_found_whole() -> None:
    """Over several lines, with here-documents and quotes; comments are none."""
    up, written, asked = commands(blocks("p.md", PAGE)[0].text)
    assert is_up(up)
    assert not is_up("penstock update")
    assert written.splitlines() == ["cat > b.csv <<'END'", "a'b", "# no comment", "END"]
    assert [*called(asked)] == [["query", "SELECT 1\nFROM b"], ["why", "b"]]
    assert [*called(written), *called("pip install penstock-1.whl")] == []


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("cp a.csv b.csv inbox/x/", ["a.csv", "b.csv"]),
        ("uv run python data/make.py --rows 3 > x", ["data/make.py"]),
        ("uv run penstock send shop order.json --id 7", ["order.json"]),
        ("echo cp", []),
    ],
)
def test_files_that_a_command_reads(command: str, files: list[str]) -> None:
    """Those that must be there."""
    assert [*files_read(command)] == files


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("statsu", "there is no penstock statsu"),
        ("quarantine lst", "there is no penstock quarantine lst"),
        ("replay --forse", "--forse"),
        ("send shop", "lacks {'file'}"),
    ],
)
def test_a_call_that_cannot_be_made_is_found(call: str, why: str) -> None:
    """A command, an option and an argument that are not there."""
    with pytest.raises(AssertionError, match=why):
        _parse(call.split(), "p.md:1")


def test_what_is_shown_is_compared_by_first_words() -> None:
    """Numbers may differ, lines may be left out, their order may not change."""
    printed = "sales  12 rows\nloaded at 12:03:11\nweather 3\n"
    assert missing("sales  900 rows\n…\nweather 4\n", printed) is None
    assert missing("weather 4\nsales  900 rows\n", printed) == "sales  900 rows"
    assert missing("sales  many rows\n", printed) == "sales  many rows"


@pytest.mark.parametrize("page", [*DOCS, *EXAMPLES])
def test_each_command_is_run_or_says_why_not(page: str) -> None:
    """`sh` is the one language of commands; who says that another runs it names a file that is there."""
    for block in _of(page):
        assert block.language not in ("bash", "shell", "console", "zsh"), f"{block.where}: write ```sh"
        session = page in DOCS and block.language in ("", "text") and re.search(r"^\$ ", block.text, re.M)
        assert not session, f"{block.where}: write ```sh, and ```text for what it prints"
        assert block.note("not run") != "", f"{block.where}: not run without a reason"
        if (by := block.note("run by")) is not None:
            assert (ROOT / by).is_file(), f"{block.where}: there is no {by}"
    if page in EXAMPLES and any(block.language == "sh" for block in _of(page)):
        test = ROOT / "tests" / "pipelines" / f"test_example_{Path(page).parent.name.replace('-', '_')}.py"
        assert test.is_file(), f"{page} is run by {test.relative_to(ROOT)}, which is not there"


@pytest.mark.parametrize("page", [*DOCS, *EXAMPLES, *OTHERS])
def test_each_call_of_penstock_can_be_made(page: str) -> None:
    """Its command and its options are there, and it has the arguments that it needs."""
    for block in _of(page):
        for command in _shown(block):
            for call in called(command):
                _parse(call, block.where)


def _shown(block: Block) -> list[str]:
    """The commands of a block; of one that shows a session, what stands behind its prompt."""
    session = re.findall(r"^\$ (.*)$", block.text, re.M) if block.language in ("", "text") else []
    return commands(block.text if block.language == "sh" else "\n".join(session))


def _parse(call: Sequence[str], where: str) -> None:
    command: click.Command = cli
    context, rest = click.Context(cli, info_name="penstock"), list(call)
    try:
        while isinstance(command, click.Group):
            _, rest, _ = command.make_parser(context).parse_args(rest)
            if not rest:
                # `penstock --help`.
                return
            found = command.get_command(context, rest[0])
            assert found is not None, f"{where}: there is no penstock {' '.join(call)}"
            command, context, rest = found, click.Context(found, info_name=rest[0], parent=context), rest[1:]
        values, _, _ = command.make_parser(context).parse_args(rest)
    except click.UsageError as error:
        raise AssertionError(f"{where}: penstock {' '.join(call)}: {error.format_message()}") from None
    needed = {one.name for one in command.params if isinstance(one, click.Argument) and one.required}
    # What was not given is a mark of click's own.
    lacking = {name for name in needed if not isinstance(values.get(str(name)), str | tuple | list)}
    assert not lacking or "help" in values, f"{where}: penstock {' '.join(call)} lacks {lacking}"


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_files_that_an_example_names_are_there(page: str) -> None:
    """In its folder, or made by a command before."""
    made: set[str] = set()
    for block in _of(page):
        for command in _shown(block):
            made |= set(re.findall(r">>?\s*([\w./-]+)", command))
            for file in files_read(command):
                if not re.search(r"[$*<>]", file) and file not in made:
                    assert (ROOT / page).parent.joinpath(file).exists(), f"{block.where}: {command}: no {file}"


@pytest.mark.parametrize("page", [page for page in DOCS if any(block.language == "python" for block in _of(page))])
def test_python_is_python(page: str, tmp_path: Path) -> None:
    """Every block parses, and the files of a project can be loaded as that project's, in each of their versions."""
    (tmp_path / "flows").mkdir()
    for dataset in _GIVEN.get(page, ()):
        (tmp_path / "flows" / f"{dataset}.py").write_text(
            f"from penstock import Dataset\n\nDATASET = Dataset(name={dataset!r})\n"
        )
    for block in _of(page):
        if block.language != "python":
            continue
        ast.parse(block.text, block.where)
        if block.file and block.file.parts[0] in FOLDERS:
            path = tmp_path / block.file
            if path.exists():
                _load(tmp_path)
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text)
    _load(tmp_path)


def _load(project: Path) -> None:
    """As a process of its own would: what it imports is importable here only."""
    path, before = list(sys.path), {name: sys.modules.pop(name) for name in _of_a_project()}
    try:
        load_project(project)
    finally:
        sys.path[:] = path
        for name in _of_a_project():
            del sys.modules[name]
        sys.modules.update(before)


def _of_a_project() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in FOLDERS]
