"""Loading a project's folders: what is found, in which order, and how each mistake is named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.declarations import Bucket, Dataset, Folder
from penstock.errors import DeclarationError
from penstock.project import Project, load_project
from penstock.sources import Source
from penstock.verification import Verification, github, standard_webhooks, unverified
from tests.loading import another_project

IMPORTS = "from penstock import Backfill, Bucket, Dataset, Folder, Ready, Source, unverified\n"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Each test's folders are importable in that test only."""
    with another_project():
        yield


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    (tmp_path / "flows").mkdir()

    def file(name: str, content: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(IMPORTS + content)
        return tmp_path

    return file


def refused(root: Path) -> str:
    with pytest.raises(DeclarationError) as raised:
        load_project(root)
    return str(raised.value)


def test_all_four_folders_are_loaded_in_order(write: Write) -> None:
    """Declarations come sorted by file, sensors by kind, and what is not penstock's is left out."""
    write("flows/b.py", 'DATASET = Dataset(name="b")')
    write("flows/a.py", 'DATASET = Dataset(name="a")')
    write("flows/_own.py", "raise RuntimeError")
    write("flows/notes.txt", "")
    write("sensors/inbox.py", "SENSOR = Folder()")
    write("sensors/landing.py", "SENSOR = Bucket()")
    write("webhook/app.py", "raise RuntimeError")
    write("webhook/shop.py", 'SOURCE = Source(name="shop", dataset="a", verify=unverified(because="a test"))')
    root = write("automations/all.py", "AUTOMATIONS = [1, 2]")
    found = load_project(root)
    assert [dataset.name for dataset in found.datasets] == ["a", "b"]
    assert (found.folders, found.buckets) == ((Folder(),), (Bucket(),))
    assert [source.name for source in found.sources] == ["shop"]
    assert found.automations == (1, 2)
    assert found.dataset("b").prefix == "b/"
    assert found.source("shop").dataset == "a"


def test_only_the_folders_that_were_asked_for(write: Write) -> None:
    """A run imports flows/ alone: what is broken elsewhere does not stop it."""
    write("flows/a.py", 'DATASET = Dataset(name="a")')
    write("webhook/shop.py", "raise RuntimeError")
    root = write("automations/bad.py", "raise RuntimeError")
    assert [dataset.name for dataset in load_project(root, only=["flows"]).datasets] == ["a"]


def test_sources_alone_are_not_checked_against_datasets(write: Write) -> None:
    """With webhook/ alone there are no datasets to compare with."""
    root = write("webhook/shop.py", 'SOURCE = Source(name="shop", dataset="a", verify=unverified(because="x"))')
    assert len(load_project(root, only=["webhook"]).sources) == 1


def test_loading_twice_gives_the_same(write: Write) -> None:
    """Loading again in the same process neither fails nor adds the folder to the path twice."""
    root = write("flows/a.py", 'DATASET = Dataset(name="a")')
    assert load_project(root) == load_project(root)
    assert sys.path.count(str(root)) == 1


def test_a_folder_without_flows_is_no_project(tmp_path: Path) -> None:
    """A folder that is no project is refused with the option to give."""
    assert "--project DIR" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("flows/a.py", "", "flows/a.py exports no DATASET"),
        ("flows/a.py", "DATASET = 7", "flows/a.py: DATASET is a int, not a Dataset"),
        ("sensors/a.py", "SENSOR = 'inbox'", "sensors/a.py: SENSOR is a str, not a Folder or Bucket"),
        ("webhook/a.py", "SOURCE = Folder()", "webhook/a.py: SOURCE is a Folder, not a Source"),
        ("automations/a.py", "AUTOMATIONS = 1", "automations/a.py: AUTOMATIONS is a int, not a list or tuple"),
        ("flows/a.py", "\n\nDATASET = Dataset(name='A b')", "flows/a.py:4: dataset name 'A b'"),
        ("flows/a.py", "\nraise KeyError('x')", "flows/a.py:3: KeyError: 'x'"),
        ("flows/a.py", "\ndef (", "flows/a.py: SyntaxError"),
        ("flows/a.py", "import nothing_of_that_name", "flows/a.py:2: ModuleNotFoundError"),
        ("flows/a b.py", "DATASET = 7", "flows/a b.py"),
    ],
)
def test_a_mistake_is_named_with_its_file(write: Write, name: str, content: str, says: str) -> None:
    """A missing or wrong export, or a file that cannot be imported, is told with file and line."""
    assert says in refused(write(name, content))


def test_a_name_that_another_module_has_is_told(write: Write, tmp_path: Path) -> None:
    """A file that is shadowed by another module of its name is refused rather than replaced by it."""
    other = tmp_path / "other"
    (other / "flows").mkdir(parents=True)
    (other / "flows" / "a.py").write_text(IMPORTS + 'DATASET = Dataset(name="b")')
    root = write("flows/a.py", 'DATASET = Dataset(name="a")')
    load_project(other)
    assert "has that name already" in refused(root)


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ("name='a'", "name='a'", "flows/one.py declares the dataset a too"),
        ("name='a'", "name='b', prefix='a/'", "flows/two.py:2: datasets b and a (flows/one.py) overlap: 'a/' and 'a/'"),
        ("name='a'", "name='b', prefix='a/deeper/'", "overlap"),
        ("name='a', prefix='x/y/'", "name='b', prefix='x/'", "overlap"),
        (
            "name='a', match='*.csv'",
            "name='b', prefix='a/', match='*.c*'",
            "'a/' with match '*.c*' and 'a/' with match",
        ),
        ("name='a', match='*.csv'", "name='b', prefix='a/'", "overlap"),
        ("name='a', match='**/*.csv'", "name='b', prefix='a/b/', match='*.csv'", "overlap"),
        ("name='a'", "name='b', backfill=Backfill(prefix='a/old/')", "'b/' and 'a/old/'"),
        (
            "name='a', match='a*', ready=Ready(manifest='*.json')",
            "name='b', prefix='a/', match='b*', ready=Ready(manifest='*.json')",
            "or both another manifest='…', since a manifest is read for one dataset",
        ),
        ("name='a', ready=Ready(manifest='*.json')", "name='b', prefix='a/', match='*.json'", "overlap"),
        ("name='a', match='*.csv', ready=Ready(beside='.ok')", "name='b', prefix='a/', match='*.ok'", "waiting for"),
        ("name='a', match='*.csv'", "name='b', match='[ab].csv'", "flows/two.py:2: dataset b: match '[ab].csv'"),
        ("name='a'", "name='b', ready=Ready(manifest='../x')", "dataset b: ready: manifest"),
        ("name='a'", "name='b', backfill=Backfill(prefix='_penstock/x/')", "penstock's own"),
    ],
)
def test_datasets_that_overlap_are_refused(write: Write, first: str, second: str, says: str) -> None:
    """Two datasets of one name, or of which both may take a key, cannot be together; nor what could never fit."""
    write("flows/one.py", f"DATASET = Dataset({first})")
    assert says in refused(write("flows/two.py", f"DATASET = Dataset({second})"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("name='a'", "name='ab'"),
        ("name='a', match='*.csv'", "name='b', prefix='a/', match='*.json'"),
        ("name='a', match='*.csv'", "name='b', prefix='a/b/'"),
        (
            "name='a', match='*.csv', ready=Ready(folder='_OK')",
            "name='b', prefix='a/', match='*.json', ready=Ready(folder='_OK')",
        ),
    ],
    ids=["two-folders", "by-suffix", "below", "one-marker"],
)
def test_datasets_that_share_no_key_are_fine(write: Write, first: str, second: str) -> None:
    """Two folders that look alike, globs that no key fits together, and a marker that is there for both."""
    write("flows/a.py", f"DATASET = Dataset({first})")
    assert len(load_project(write("flows/ab.py", f"DATASET = Dataset({second})")).datasets) == 2


def test_sources_are_checked_together(write: Write) -> None:
    """A source that feeds no dataset, and two of one name, are refused by name."""
    write("flows/a.py", "DATASET = Dataset(name='a')")
    root = write("webhook/x.py", "SOURCE = Source(name='x', dataset='b', verify=unverified(because='t'))")
    assert "source x feeds the dataset 'b'" in refused(root)


def test_two_sources_of_one_name(write: Write) -> None:
    """Two files cannot declare the same source."""
    write("flows/a.py", "DATASET = Dataset(name='a')")
    write("webhook/x.py", "SOURCE = Source(name='x', dataset='a', verify=unverified(because='t'))")
    root = write("webhook/y.py", "SOURCE = Source(name='x', dataset='a', verify=unverified(because='t'))")
    assert "declare the source x" in refused(root)


def test_an_unknown_name_is_answered_with_those_there_are(tmp_path: Path) -> None:
    """Asking for a dataset or source that is not declared names the ones that are."""
    found = Project(root=tmp_path, datasets=(Dataset(name="a"),), folders=(), buckets=(), sources=())
    with pytest.raises(DeclarationError, match="no dataset 'x'; there are: a"):
        found.dataset("x")
    with pytest.raises(DeclarationError, match="no source 'x'; there are: none"):
        found.source("x")


def test_a_project_elsewhere_loads_in_a_fresh_process(write: Write) -> None:
    """The project's own modules can import one another by path, from whatever folder the command runs."""
    write("flows/_shared.py", 'NAME = "a"')
    root = write("flows/a.py", "from flows._shared import NAME\nDATASET = Dataset(name=NAME)")
    code = (
        "import sys; from pathlib import Path; from penstock.project import load_project; "
        "print(load_project(Path(sys.argv[1])).datasets[0].name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)], cwd="/", capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "a\n"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Dataset(name=""), "use a-z"),
        (lambda: Dataset(name="x" * 64), "has 64 letters"),
        (lambda: Dataset(name="a__rejected"), "__rejected"),
        (lambda: Dataset(name="a", prefix="x"), "must look like 'folder/'"),
        (lambda: Dataset(name="a", prefix="/x/"), "must look like 'folder/'"),
        (lambda: Dataset(name="a", prefix="x/../y/"), "must look like 'folder/'"),
        (lambda: Dataset(name="a", prefix="_penstock/x/"), "penstock's own"),
        (lambda: Dataset(name="a", threshold=1.1), "from 0 to 1"),
        (lambda: Dataset(name="a", threshold=float("nan")), "from 0 to 1"),
        (lambda: Dataset(name="a", max_attempts=3), "at least 4"),
        (lambda: Dataset(name="a", columns={"A B": "BIGINT"}), "columns name 'A B'"),
        (lambda: Dataset(name="a", derive={"1": "x"}), "derive name '1'"),
        (lambda: Dataset(name="a", report={"x;": "x"}), "report name 'x;'"),
        (lambda: Source(name="A", dataset="a", verify=github("S")), "use a-z"),
        (lambda: Source(name="a", dataset="a", verify=github("S"), max_bytes=0), "at least 1"),
        (github, "needs the name"),
        (lambda: standard_webhooks("whsec_abc"), "never by its value"),
        (lambda: unverified(because=" "), "must say why"),
        (lambda: Verification(scheme="github"), "needs the name"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(make: Callable[[], object], says: str) -> None:
    """Each rule of a declaration is checked when it is made, and the message says what would do."""
    with pytest.raises(DeclarationError, match=says):
        make()


def test_a_name_with_a_newline_is_refused() -> None:
    """A name's end is its end: a trailing newline does not slip through."""
    with pytest.raises(DeclarationError):
        Dataset(name="a\n")
