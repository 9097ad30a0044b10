"""`penstock new`: the project that it makes, and what it refuses."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penstock.cli.new import is_package, new
from penstock.cli.project_files import Origin, filled, name_from, origin_given, origin_of, values_for
from penstock.errors import PenstockError, SettingsError
from penstock.settings import load_settings
from tests.compose_file import EXAMPLE, ROOT, TEXT, variables_of

_OWN = {"flows", "sensors", "webhook", "automations"}
_LEFT = re.compile(r"@[a-z]+@|# @")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PENSTOCK_PROJECT", "PENSTOCK_PROJECT_DIR", "PENSTOCK_HOME", "PENSTOCK_INBOX"):
        monkeypatch.delenv(name, raising=False)


def make(*arguments: object) -> Result:
    return CliRunner().invoke(new, [str(argument) for argument in arguments])


def made(folder: Path, *arguments: object) -> dict[str, str]:
    """The files of a new project with their text."""
    result = make(folder, *arguments)
    assert result.exit_code == 0, result.output or result.exception
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".whl")
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def wheel(folder: Path, version: str = "9.8.7") -> Path:
    path = folder / f"penstock-{version}-py3-none-any.whl"
    path.write_bytes(b"a wheel")
    return path


class TestTheProject:
    """What is in the folder afterwards."""

    def test_it_has_the_shape_of_this_repository(self, tmp_path: Path) -> None:
        """A file each in the four folders, a test, an example, the services, and nothing that Python compiled."""
        files = made(tmp_path / "shop")
        assert files.keys() >= {
            *("flows/sales.py", "sensors/inbox.py", "webhook/sales.py", "automations/on_arrival.py"),
            *("tests/test_sales.py", "examples/sales.csv", "README.md", "pyproject.toml"),
            *(".env.example", ".gitignore", ".dockerignore", "docker-compose.yml", "docker/penstock.Dockerfile"),
        }
        assert not [name for name in files if name.endswith((".in", ".pyc"))]

    def test_no_placeholder_is_left(self, tmp_path: Path) -> None:
        """Each file says the project's own name, version and source."""
        files = made(tmp_path / "shop", "--from", "index")
        assert {name: found[0] for name, text in files.items() if (found := _LEFT.search(text))} == {}
        assert "\nname: shop\n" in files["docker-compose.yml"]
        assert files["README.md"].startswith("# shop\n")

    def test_its_python_imports_from_penstock_only(self, tmp_path: Path) -> None:
        """Declarations import names of `penstock` itself; the rest is the standard library's."""
        for name, text in made(tmp_path / "shop").items():
            if not name.endswith(".py"):
                continue
            tree = ast.parse(text, name)
            assert ast.get_docstring(tree), name
            modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            beside = {
                module for module in modules if module and module.partition(".")[0] not in sys.stdlib_module_names
            }
            assert beside == ({"penstock"} if name.partition("/")[0] in _OWN else set()), name

    def test_its_example_is_loaded(self, tmp_path: Path) -> None:
        """The generated test of the example passes as it stands."""
        made(tmp_path / "shop")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            "example",
            str(tmp_path / "shop"),
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert "1 passed" in done.stdout, done.stdout + done.stderr

    @pytest.mark.parametrize("name", ["shop", "My Shop!", "north_2"])
    def test_its_settings_know_it_by_the_name_that_was_said(self, tmp_path: Path, name: str) -> None:
        """The name in pyproject.toml, the one that is told and the one in resource ids are one."""
        result = make(tmp_path / name)
        known = load_settings(tmp_path / name).project
        assert f"is the project {known}:" in result.output
        assert tomllib.loads((tmp_path / name / "pyproject.toml").read_text())["project"]["name"] == known

    def test_an_empty_folder_is_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`penstock new .` stays in the folder that one works in, which is there still."""
        (tmp_path / "shop").mkdir()
        monkeypatch.chdir(tmp_path / "shop")
        before = (tmp_path / "shop").stat().st_ino
        result = make(".")
        assert result.exit_code == 0
        assert (tmp_path / "shop").stat().st_ino == before
        assert load_settings(Path()).project == "shop"
        assert "cd " not in result.output

    def test_it_needs_this_pythons(self, tmp_path: Path) -> None:
        """A project takes the Pythons that penstock takes, and its own package is never built."""
        ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        theirs = tomllib.loads(made(tmp_path / "shop", "--from", "index")["pyproject.toml"])
        assert theirs["project"]["requires-python"] == ours["requires-python"]
        assert theirs["project"]["dependencies"] == [f"penstock>={ours['version']}"]
        assert theirs["tool"]["uv"] == {"package": False}


class TestTheServices:
    """The template's services are this repository's own, which are tested."""

    def test_the_compose_file_is_this_repositorys(self, tmp_path: Path) -> None:
        """But for comments, the name and the secret of a source that a new project has not."""
        theirs = made(tmp_path / "penstock-copy", "--name", "shop")["docker-compose.yml"]
        ours = "\n".join(line for line in TEXT.splitlines() if "GITHUB_WEBHOOK_SECRET" not in line)
        ours = ours.replace("\nname: penstock\n", "\nname: shop\n").replace("penstock:local", "shop:local")
        assert bare(theirs) == bare(ours.replace("PENSTOCK_PROJECT: penstock\n", "PENSTOCK_PROJECT: shop\n"))

    @pytest.mark.parametrize(
        "name", ["make_env.py", "minio.Dockerfile", "postgres.Dockerfile", "postgres-init.sh", "worker_health.py"]
    )
    def test_the_images_are_this_repositorys(self, tmp_path: Path, name: str) -> None:
        """But for comments, and how that one secret is made."""
        theirs = made(tmp_path / "shop")[f"docker/{name}"]
        ours = [line for line in (ROOT / "docker" / name).read_text().splitlines() if "GITHUB_WEBHOOK" not in line]
        assert bare(theirs) == bare("\n".join(ours))

    def test_the_example_of_env_is_this_repositorys(self, tmp_path: Path) -> None:
        """It names what the services ask for and no value that is a secret."""
        theirs = variables_of(made(tmp_path / "shop")[".env.example"])
        ours = variables_of(EXAMPLE)
        del ours["GITHUB_WEBHOOK_SECRET"]
        assert theirs == ours

    def test_the_image_takes_what_the_context_lets_in(self, tmp_path: Path) -> None:
        """Whatever is copied from the project passes .dockerignore, and is there."""
        files = made(tmp_path / "shop")
        copied = {
            source
            for line in bare(files["docker/penstock.Dockerfile"])
            if line.startswith("COPY ") and "--from" not in line
            for source in line.split()[1:-1]
        }
        let_in = {line[1:] for line in bare(files[".dockerignore"]) if line.startswith("!")}
        assert copied == let_in
        # uv makes the lock file; a wheel is there where the project brings one.
        there = copied - {"uv.lock", "*.whl"}
        assert [source for source in there if not (tmp_path / "shop" / source).exists()] == []


def bare(text: str) -> list[str]:
    """The lines that are no comments."""
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


class TestWherePenstockComesFrom:
    """The project gets the penstock that made it, or the one that is said."""

    def test_a_wheel_comes_along(self, tmp_path: Path) -> None:
        """It is copied, and named by the project without the folder where it was."""
        files = made(tmp_path / "shop", "--from", wheel(tmp_path))
        project = tomllib.loads(files["pyproject.toml"])
        assert project["tool"]["uv"]["sources"] == {"penstock": {"path": "penstock-9.8.7-py3-none-any.whl"}}
        assert project["project"]["dependencies"] == ["penstock>=9.8.7"]
        assert (tmp_path / "shop" / "penstock-9.8.7-py3-none-any.whl").read_bytes() == b"a wheel"
        assert str(tmp_path) not in "".join(files.values())

    def test_a_checkout_stays_where_it_is(self, tmp_path: Path) -> None:
        """This repository is one, and is where the tests' own penstock comes from."""
        said = tomllib.loads(made(tmp_path / "said", "--from", ROOT)["pyproject.toml"])
        found = tomllib.loads(made(tmp_path / "found")["pyproject.toml"])
        assert said["tool"]["uv"]["sources"] == {"penstock": {"path": str(ROOT), "editable": True}}
        assert found["tool"]["uv"] == said["tool"]["uv"]

    @pytest.mark.parametrize(
        ("told", "source"),
        [
            (None, ""),
            ({"url": "https://host/penstock-1.whl"}, '{ url = "https://host/penstock-1.whl" }'),
            (
                {"url": "https://host/repo.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
                '{ git = "https://host/repo.git", rev = "abc" }',
            ),
        ],
        ids=["index", "address", "git"],
    )
    def test_what_was_installed_tells(self, told: dict[str, Any] | None, source: str) -> None:
        """An index is the default; an address and a commit are said."""
        assert origin_of(told).source == source

    def test_a_wheel_that_was_installed_is_found(self, tmp_path: Path) -> None:
        """Its address is decoded."""
        folder = tmp_path / "with space"
        folder.mkdir()
        path = wheel(folder)
        assert origin_of({"url": path.as_uri(), "archive_info": {}}).wheel == path

    def test_a_wheel_that_is_gone_is_told(self, tmp_path: Path) -> None:
        """The error says what to give instead."""
        gone = tmp_path / "penstock-1.0-py3-none-any.whl"
        with pytest.raises(SettingsError, match=r"penstock-1\.0.*is not there.*--from.*index"):
            origin_of({"url": gone.as_uri()})

    @pytest.mark.parametrize("name", ["other-1.0-py3-none-any.whl", "penstock.txt", "nothing"])
    def test_what_is_no_penstock_is_refused(self, tmp_path: Path, name: str) -> None:
        """Neither a wheel of something else nor any other file or folder is taken for it."""
        (tmp_path / "other-1.0-py3-none-any.whl").write_bytes(b"")
        (tmp_path / "penstock.txt").write_bytes(b"")
        with pytest.raises(SettingsError, match=r"neither a wheel of penstock .* nor a checkout"):
            origin_given(tmp_path / name)


class TestRefusals:
    """Nothing that is there is touched."""

    def test_a_folder_that_is_not_empty(self, tmp_path: Path) -> None:
        """What is in it stays, and nothing comes to it."""
        (tmp_path / "mine.txt").write_text("mine")
        with pytest.raises(SettingsError, match="not empty"):
            raise_of(make(tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    def test_a_file(self, tmp_path: Path) -> None:
        """A file is no folder."""
        (tmp_path / "shop").write_text("mine")
        with pytest.raises(SettingsError, match="no folder"):
            raise_of(make(tmp_path / "shop"))
        assert (tmp_path / "shop").read_text() == "mine"

    def test_what_cannot_be_written_whole_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A full disk at the last file leaves neither the folder nor a part of it."""
        path = wheel(tmp_path)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("shutil.copyfile", full)
        with pytest.raises(PenstockError, match="No space left"):
            raise_of(make(tmp_path / "shop", "--from", path))
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("name", ["", "___", "é", "!?", "a" * 60], ids=["none", "signs", "accent", "marks", "long"])
    def test_a_name_that_cannot_be_one(self, name: str) -> None:
        """The error names the option that says another."""
        with pytest.raises(SettingsError, match="--name"):
            name_from(name, taken=lambda _: False)

    @pytest.mark.parametrize("name", ["penstock", "Prefect", "pytest"])
    def test_the_name_of_a_package(self, tmp_path: Path, name: str) -> None:
        """A project of that name would stand for the package that it needs."""
        with pytest.raises(SettingsError, match="name of a package"):
            raise_of(make(tmp_path / "shop", "--name", name))
        assert list(tmp_path.iterdir()) == []

    def test_the_name_of_a_package_that_only_the_project_needs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pytest is not here where penstock alone is, and is a name that is taken all the same."""

        def nothing(name: str) -> None:
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(metadata, "distribution", nothing)
        with pytest.raises(SettingsError, match="name of a package"):
            name_from("pytest", taken=is_package)
        assert name_from("shop", taken=is_package) == "shop"

    def test_a_placeholder_that_nobody_knows(self) -> None:
        """A mistake in the template is an error, not a text in somebody's file."""
        values = values_for("shop", Origin(), version="1")
        with pytest.raises(KeyError, match="other"):
            filled("@name@ @other@\n", values)


def raise_of(result: Result) -> None:
    assert result.exception is not None, result.output
    raise result.exception
