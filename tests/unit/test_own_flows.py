"""Flows of a project's own as deployments: what is refused, and what is deployed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prefect import flow

from penstock.automations.define import run_deployment
from penstock.automations.everyday import on_arrival
from penstock.automations.forms import Names, as_deployed, form_of, references, stand_in
from penstock.automations.lint import lint
from penstock.errors import DeclarationError, PenstockError
from penstock.flows.deployments import all_wanted
from penstock.flows.rows import as_table
from penstock.own_flows import Deployment
from penstock.project import Project, load_project
from penstock.settings import Settings
from tests.loading import another_project

_HEAD = """
from datetime import timedelta
from prefect import flow
from penstock import Dataset, Deployment

@flow
def analyse(factor: int = 1): pass

"""


@flow
def analyse(factor: int = 1) -> None:
    """Analyses what came."""


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Loads a project of these files of `flows/`, each after what they all begin with."""

    def load(**files: str) -> Project:
        (tmp_path / "flows").mkdir()
        for name, content in files.items():
            (tmp_path / "flows" / f"{name}.py").write_text(_HEAD + content)
        return load_project(tmp_path)

    with another_project():
        yield load


def test_a_file_may_declare_a_dataset_and_flows(loaded: Callable[..., Project]) -> None:
    """A flow's entrypoint is its file's module and its name there; the dataset that it consumes has no `ingest`."""
    project = loaded(
        a='DATASET = Dataset(name="logs", every=timedelta(hours=1))\n'
        'DEPLOYMENTS = [Deployment(flow=analyse, consumes="logs", cron=["0 3 * * *"], tags=["night"])]',
        b='mine = analyse.with_options(name="mine")\nDEPLOYMENTS = (Deployment(flow=mine),)',
        c='DATASET = Dataset(name="other")',
    )
    assert [(own.entrypoint, str(own.file)) for own in project.own_flows] == [
        ("flows.a.analyse", "flows/a.py"),
        ("flows.b.mine", "flows/b.py"),
    ]
    assert project.consumers == {"logs": "analyse"}
    wanted = {one.name: one for one in all_wanted(project.datasets, Settings(project="shop"), project.own_flows)}
    assert sorted(wanted) == ["analyse/shop.logs", "ingest/shop.other", "mine/shop", "verify/shop"]
    own = wanted["analyse/shop.logs"]
    assert own.fields["tags"] == ["logs", "night", "penstock:shop"]
    assert len(own.schedules) == 2, "the dataset's own too"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        pytest.param({"a": "DEPLOYMENTS = [analyse]"}, "flows/a.py: DEPLOYMENTS holds 'analyse'", id="a flow"),
        pytest.param({"a": "DEPLOYMENTS = Deployment(flow=analyse)"}, "not a list or tuple", id="no list"),
        pytest.param(
            {"a": "DEPLOYMENTS = [Deployment(flow=analyse.with_options(name='x'))]"},
            "flows/a.py: the flow 'x' is not to be found by a worker",
            id="not importable",
        ),
        pytest.param(
            {"a": "DEPLOYMENTS = [Deployment(flow=analyse, consumes='logs')]"},
            "flows/a.py:9: the flow analyse consumes the dataset 'logs', which flows/ lacks",
            id="no such dataset",
        ),
        pytest.param(
            {
                "a": "DATASET = Dataset(name='logs')\nDEPLOYMENTS = [Deployment(flow=analyse, consumes='logs')]",
                "b": "o = analyse.with_options(name='o')\nDEPLOYMENTS = [Deployment(flow=o, consumes='logs')]",
            },
            "flows/b.py: the flow o consumes logs, and so does analyse in flows/a.py",
            id="two consumers",
        ),
        pytest.param(
            {"a": "DEPLOYMENTS = [Deployment(flow=analyse)]", "b": "DEPLOYMENTS = [Deployment(flow=analyse)]"},
            "flows/b.py: flows/a.py deploys the flow analyse by that name too",
            id="one name twice",
        ),
    ],
)
def test_what_cannot_be_deployed_is_named_with_its_file(
    loaded: Callable[..., Project], files: dict[str, str], says: str
) -> None:
    """What a worker could not run, or what two files declare against each other, is refused when they are loaded."""
    with pytest.raises(DeclarationError) as raised:
        loaded(**files)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param({"flow": print}, "that is no Prefect flow", id="no flow"),
        pytest.param({"flow": analyse.with_options(name="ingest")}, "the name of one of penstock's", id="reserved"),
        pytest.param({"name": "a", "consumes": "b"}, "leave out name=", id="name and consumes"),
        pytest.param({"name": "A b"}, "use a-z", id="name"),
        pytest.param({"every": timedelta(0)}, "more than no time", id="every"),
        pytest.param({"every": 45}, "must be a timedelta: every=timedelta", id="every is no span"),
        pytest.param({"cron": "0 3 * * *"}, "cron is a list", id="cron"),
        pytest.param({"cron": ["never"]}, "no cron expression: minute, hour", id="cron expression"),
        pytest.param({"cron": ["H 3 * * *"]}, "no cron expression", id="cron by chance"),
        pytest.param({"rrule": ["FREQ=DAYLY"]}, "did you mean DAILY", id="frequency"),
        pytest.param({"rrule": ["FREQ=DAILY;INTERVALL=2"]}, "no INTERVALL; did you mean INTERVAL", id="part"),
        pytest.param({"rrule": ["FREQ=MINUTELY;INTERVAL=0"]}, "from 1 on", id="interval"),
        pytest.param({"rrule": ["FREQ=DAILY;COUNT=3"]}, "counts from a beginning", id="count"),
        pytest.param({"rrule": ["FREQ=DAILY;UNTIL=20300101T000000Z"]}, "leave out the Z", id="until"),
        pytest.param({"rrule": ["every day"]}, "not like NAME=VALUE", id="no rule"),
        pytest.param({"rrule": ["FREQ=DAILY;BYHOUR=27"]}, "hour must be in", id="hour"),
        pytest.param({"rrule": [f"RDATE:{'20260101T000000,' * 500}"]}, "may have 6500", id="long rule"),
        pytest.param({"rrule": [7]}, "must be a list of texts", id="rule is no text"),
        pytest.param({"timezone": "Europe/Berlin"}, "there is neither", id="timezone"),
        pytest.param({"cron": ["0 3 * * *"], "timezone": "berlin"}, "did you mean 'Europe/Berlin'", id="city"),
        pytest.param({"cron": ["0 3 * * *"], "timezone": "Europe/Berln"}, "did you mean 'Europe/Berlin'", id="zone"),
        pytest.param({"parameters": {"faktor": 2}}, "takes no parameter 'faktor'; it takes: factor; did", id="param"),
        pytest.param({"parameters": ["factor"]}, "must be values by name", id="parameters"),
        pytest.param({"concurrency_limit": 0}, "number of runs, from 1 on", id="limit"),
        pytest.param({"concurrency_limit": True}, "number of runs, from 1 on", id="limit is no number"),
        pytest.param({"concurrency_limit": 1, "collision": "cancel"}, "did you mean 'cancel_new'", id="collision"),
        pytest.param({"collision": "cancel_new"}, "there is none", id="collision without a limit"),
        pytest.param(
            {"flow": analyse.with_options(retry_delay_seconds=[5, 60])},  # type: ignore[arg-type]
            "is one number",
            id="retry delays",
        ),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(options: dict[str, Any], says: str) -> None:
    """The error says what to write."""
    with pytest.raises(DeclarationError, match=says):
        Deployment(**{"flow": analyse, **options})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("parameters={'faktor': 2}", "takes no parameter 'faktor'; it takes: factor; did you mean 'factor'?"),
        ("cron=['never']", "cron 'never' is no cron expression"),
        ("rrule=['FREQ=DAYLY']", "did you mean DAILY?"),
        ("evry=timedelta(1)", "Deployment has no evry; did you mean every=?"),
    ],
    ids=["parameter", "cron", "rrule", "field"],
)
def test_a_wrong_declaration_is_named_with_file_and_line(
    loaded: Callable[..., Project], options: str, says: str
) -> None:
    """What cannot be deployed is refused when the project is loaded, at the line of its Deployment."""
    line = 1 + len((_HEAD + "DEPLOYMENTS = [").splitlines())
    with pytest.raises(DeclarationError) as raised:
        loaded(a=f"DEPLOYMENTS = [\n    Deployment(flow=analyse, {options}),\n]")
    assert str(raised.value).startswith(f"flows/a.py:{line}: ")
    assert says in str(raised.value)


def test_schedules_that_prefect_takes_are_taken(loaded: Callable[..., Project]) -> None:
    """Several at once, each in its zone; rules of several lines, with a beginning, and in small letters."""
    project = loaded(
        a="DEPLOYMENTS = [Deployment(flow=analyse, every=timedelta(seconds=45), cron=['@daily', '0 3 * * 1-5'], "
        "rrule=['freq=weekly;byday=mo', 'DTSTART:20260101T060000\\nRRULE:FREQ=DAILY;COUNT=3\\nEXDATE:20260102T060000'],"
        " timezone='Europe/Berlin')]"
    )
    own = all_wanted(project.datasets, Settings(project="shop"), project.own_flows)[0]
    assert len(own.schedules) == 5


def test_an_automation_for_the_wrong_flow_is_an_error() -> None:
    """The lint says what to write; the right flow is known to load its dataset."""
    deployments = ["analyse/shop.logs", "ingest/shop.logs", "ingest/shop.sales"]
    names = Names.of({"deployment": [(name, stand_in("deployment", name)) for name in deployments]})
    names = names.consumed_by({"logs": "analyse"}, project="shop")

    def found(*automations: Any) -> list[str]:
        declared = [(form_of(one, project="shop"), one) for one in automations]
        return [f"{one.rule}: {one.reason}" for one in lint(declared, names=names, schemas={}, foreign=(), files={})]

    assert found(on_arrival("logs", flow="analyse"), on_arrival("sales")) == []
    (wrong,) = found(on_arrival("logs"))
    assert wrong.startswith("consumer: ")
    assert "write on_arrival('logs', flow='analyse')" in wrong
    (unknown,) = found(on_arrival("sales", flow="analyse"))
    assert unknown.startswith("unresolved: ")
    assert names.datasets_of("shop") == ["logs", "sales"]


def test_a_flow_is_found_by_its_functions_name() -> None:
    """Prefect's `count-words` is `count_words`, unless there is one of that very name."""
    automation = on_arrival("notes", flow="count_words")
    form = form_of(replace(automation, actions=[*automation.actions, run_deployment("tell_me/shop")]), project="shop")

    def called(*there: str) -> list[str]:
        return [name for _, name in references(as_deployed(form, there))]

    assert called("count-words/shop.notes", "tell-me/shop") == ["count-words/shop.notes", "tell-me/shop"]
    assert called("count-words/shop.notes", "count_words/shop.notes") == ["count_words/shop.notes", "tell_me/shop"]


def test_a_project_without_flows_of_its_own_needs_no_prefect(tmp_path: Path) -> None:
    """Loading datasets imports neither Prefect nor what claims are made of."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "a.py").write_text('from penstock import Dataset\n\nDATASET = Dataset(name="a")\n')
    code = (
        "import sys; from pathlib import Path; from penstock.project import load_project; "
        f"load_project(Path({str(tmp_path)!r})); assert not {{'prefect', 'pyarrow'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_rows_of_several_kinds_are_a_table() -> None:
    """Dicts that lack a key have no value there; what offers Arrow is taken as it is."""
    assert as_table([{"a": 1}, {"a": 2, "b": "x"}]).to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]
    table = as_table([{"a": 1}])
    assert as_table(table) is table

    class Frame:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return views.__arrow_c_stream__()

    # As polars has texts and categories.
    texts = pa.array(["x", "y", "x"]).cast(pa.string_view())
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 0, None], pa.int32()), texts)
    views = pa.table({"text": texts, "code": codes})
    found = as_table(Frame())
    assert found.schema.types == [pa.string(), pa.string()]
    assert found.to_pydict() == {"text": ["x", "y", "x"], "code": ["x", "x", None]}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        pytest.param(7, "a list of dicts, and not int", id="no rows"),
        pytest.param("text", "a list of dicts, and not str", id="text"),
        pytest.param([7], "this one holds int", id="no dicts"),
        pytest.param([{"a": 1}, {"a": "x"}], "make no table", id="mixed types"),
    ],
)
def test_what_makes_no_table_is_said(rows: object, says: str) -> None:
    """The error says what rows are."""
    with pytest.raises(PenstockError, match=says):
        as_table(rows)


def test_the_flow_of_the_docs_is_deployed(loaded: Callable[..., Project]) -> None:
    """The first example of docs/flows.md is a file of a project, and its automation fits it."""
    docs = (Path(__file__).parents[2] / "docs" / "flows.md").read_text(encoding="utf-8")
    example, automation = (block.partition("```")[0] for block in docs.split("```python\n")[1:3])
    project = loaded(pictures=example)
    wanted = [one.name for one in all_wanted(project.datasets, Settings(project="shop"), project.own_flows)]
    assert wanted == ["measure/shop.pictures", "verify/shop"]
    found: dict[str, Any] = {}
    exec(automation, found)  # noqa: S102 - the docs' own
    names = Names.of({"deployment": [(name, stand_in("deployment", name)) for name in wanted]})
    names = names.consumed_by(project.consumers, project="shop")
    declared = [(form_of(one, project="shop"), one) for one in found["AUTOMATIONS"]]
    assert lint(declared, names=names, schemas={}, foreign=(), files={}) == []
