"""What only the PostgreSQL warehouse has to do: its types and names, and a server that many use or that goes away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
import pytest

from penstock import faults
from penstock.cli.doctor import examine
from penstock.cli.free_ports import free_port
from penstock.errors import (
    DeclarationError,
    DoesNotFit,
    QueryRefused,
    SettingsError,
    Transient,
    WarehouseLocked,
    WarehouseUnavailable,
)
from penstock.ledger.database import Database
from penstock.settings import load_settings, provenance
from penstock.warehouse.base import LoadPart, LoadResult
from penstock.warehouse.duckdb import DuckDBWarehouse
from penstock.warehouse.postgres import PostgresWarehouse
from penstock.warehouse.postgres_session import Session
from penstock.wiring import open_warehouse
from tests.conformance.ledgers import postgres_bench as postgres_ledger
from tests.conformance.warehouses import COLUMNS, NOW, WarehouseBench, part, postgres_bench
from tests.real_postgres import real_postgres, shared_postgres

NOON = datetime(2026, 3, 1, 12, 0, 0, 1)  # noqa: DTZ001 - what a column without time zone gives
Load = Callable[..., LoadResult]
A = part("a.csv", {"id": [1, 2], "name": ["x", None]})
B = part("b.csv", {"id": [3], "name": ["y"]})


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WarehouseBench]:
    with postgres_bench(tmp_path) as made:
        yield made


@pytest.fixture
def load(bench: WarehouseBench) -> Load:
    def run(*parts: LoadPart, token: int = 1, columns: Any = COLUMNS, dataset: str = "sales") -> LoadResult:
        return bench.warehouse.load(dataset, columns, parts, token=token, run="r1", now=NOW)

    return run


def rows(bench: WarehouseBench, sql: str) -> list[tuple[Any, ...]]:
    return bench.warehouse.query(sql, limit=1000).rows


def made_by_duckdb(*expressions: str) -> tuple[pa.Table, tuple[tuple[str, str], ...]]:
    """A row of values and a row of NULLs, with the columns' types as the formats name them."""
    values = ", ".join(f"{expression} AS c{number}" for number, expression in enumerate(expressions))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        relation = connection.sql(f"SELECT {values} UNION ALL SELECT {', '.join(['NULL'] * len(expressions))}")
        return relation.to_arrow_table(), tuple(zip(relation.columns, map(str, relation.types), strict=True))


def as_part(table: pa.Table) -> LoadPart:
    own = part("t.csv", {"id": list(range(table.num_rows))}).rows.drop_columns(["id"])
    for name, column in zip(table.column_names, table.columns, strict=True):
        own = own.append_column(name, column)
    return replace(A, rows=own)


@pytest.mark.parametrize(
    ("expression", "kind", "value"),
    [
        ("true", "boolean", True),
        ("CAST(-7 AS TINYINT)", "smallint", -7),
        ("CAST(7 AS UINTEGER)", "bigint", 7),
        ("9223372036854775807", "bigint", 2**63 - 1),
        ("CAST(18446744073709551615 AS UBIGINT)", "numeric", Decimal(2**64 - 1)),
        ("CAST('-170141183460469231731687303715884105727' AS HUGEINT)", "numeric", Decimal(-(2**127) + 1)),
        ("CAST(0.1 AS DOUBLE)", "double precision", 0.1),
        ("CAST('-inf' AS DOUBLE)", "double precision", float("-inf")),
        ("CAST(1.5 AS FLOAT)", "real", 1.5),
        ("CAST('12.340' AS DECIMAL(18,3))", "numeric", Decimal("12.340")),
        ("'ä\u2028\"''\\\n,'", "text", "ä\u2028\"'\\\n,"),
        ("''", "text", ""),
        ("'\\N'", "text", "\\N"),
        ("'\\.'", "text", "\\."),
        ("'a' || chr(0) || 'b'", "text", "a\ufffdb"),
        ("DATE '2026-03-01'", "date", date(2026, 3, 1)),
        ("TIME '12:34:56.789012'", "time without time zone", time(12, 34, 56, 789012)),
        ("TIMESTAMP '2026-03-01 12:00:00.000001'", "timestamp without time zone", NOON),
        (
            "TIMESTAMPTZ '2026-03-01 12:00:00+05'",
            "timestamp with time zone",
            datetime(2026, 3, 1, 7, tzinfo=UTC),
        ),
        ("INTERVAL '-3 days'", "interval", timedelta(days=-3)),
        ("CAST('\\x00\\xFF' AS BLOB)", "bytea", b"\x00\xff"),
        ("UUID '11111111-2222-3333-4444-555555555555'", "uuid", UUID("11111111-2222-3333-4444-555555555555")),
        ("{'a': 1, 'b': [1.5, NULL], 'c': 'x\"y'}", "jsonb", {"a": 1, "b": [1.5, None], "c": 'x"y'}),
        ("MAP {'k': DATE '2026-03-01'}", "jsonb", {"k": "2026-03-01"}),
        ("[1, 2, NULL]", "jsonb", [1, 2, None]),
        ("CAST('{\"n\": 12345678901234567890}' AS JSON)", "jsonb", {"n": 12345678901234567890}),
        (
            r"""CAST('["\u0000\u0000\u0000x", "\\u0000", "\\\u0000"]' AS JSON)""",
            "jsonb",
            ["\ufffd" * 3 + "x", "\\u0000", "\\\ufffd"],
        ),
        ("CAST('a' AS ENUM('a', 'b'))", "text", "a"),
    ],
)
def test_every_type_has_its_like(bench: WarehouseBench, load: Load, expression: str, kind: str, value: Any) -> None:
    """A value of each DuckDB type comes back as the same value of PostgreSQL's like type, and NULL as NULL."""
    table, columns = made_by_duckdb(expression)
    load(as_part(table), columns=columns)
    sql = "SELECT c0, format_type(a.atttypid, NULL) FROM sales, pg_attribute a WHERE attrelid = 'sales'::regclass "
    found = rows(bench, sql + "AND attname = 'c0' ORDER BY _penstock_row")
    assert found == [(value, kind), (None, kind)]


def test_dates_before_christ(bench: WarehouseBench, load: Load) -> None:
    """Dates that Python does not know are the same in both."""
    table, columns = made_by_duckdb("DATE '0044-03-15 (BC)'", "TIMESTAMP '0044-03-15 (BC) 12:00:00'")
    load(as_part(table), columns=columns)
    assert rows(bench, "SELECT c0::text, c1::text FROM sales WHERE c0 IS NOT NULL") == [
        ("0044-03-15 BC", "0044-03-15 12:00:00 BC")
    ]


def test_names_that_postgres_would_cut_or_has_itself(bench: WarehouseBench, load: Load) -> None:
    """Long names stay apart, a system column's name gets a _, capitals make no second column, and loads go on."""
    long = [f"{'c' * 60}_{number}" for number in (1000, 2000)]
    dataset = "d" * 60
    columns = tuple((name, "BIGINT") for name in [*long, "xmin", "Odd", "user", "100%s"])
    values: dict[str, Sequence[int]] = {name: [number] for number, (name, _) in enumerate(columns)}
    for key in ("a.csv", "b.csv"):
        one = part(key, values, dataset=dataset, rejected=[(2, 3, "r", "raw")])
        load(one, dataset=dataset, columns=columns)
        columns = tuple((name.lower(), kind) for name, kind in columns)
        values = {name.lower(): value for name, value in values.items()}
    assert bench.warehouse.count(dataset) == 2
    assert bench.warehouse.damaged(dataset) == []
    found = bench.warehouse.query(f"SELECT * FROM {dataset}", limit=9)
    assert found.rows[0][:6] == (0, 1, 2, 3, 4, 5)
    assert found.columns[2:6] == ("xmin_", "Odd", "user", "100%s")
    names = [name for (name,) in rows(bench, "SELECT tablename FROM pg_tables WHERE tablename LIKE 'ddd%' ORDER BY 1")]
    assert names[1] == dataset
    assert names[0].startswith("d" * 54 + "_")


def test_a_dataset_may_be_called_like_a_system_table(bench: WarehouseBench, load: Load) -> None:
    """Tables are looked for in the warehouse's own schema only."""
    one = part("a.csv", {"id": [1], "name": ["x"]}, dataset="pg_class")
    load(one, dataset="pg_class")
    assert bench.warehouse.count("pg_class") == 1


def test_a_foreign_table_is_left_alone(bench: WarehouseBench, load: Load) -> None:
    """A table that is not penstock's is neither filled nor changed, and the error says what to do."""
    bench.spoil("CREATE TABLE sales (id bigint, secret text)")
    bench.spoil("GRANT ALL ON sales TO warehouse")
    with pytest.raises(DeclarationError, match="search_path"):
        load(A)
    assert bench.warehouse.query("SELECT * FROM sales", limit=1).columns == ("id", "secret")


@pytest.mark.parametrize(
    ("columns", "values", "words"),
    [
        ([(f"c{i}", "BIGINT") for i in range(1650)], None, "at most 1600 columns"),
        ([(f"c{i}", "BIGINT") for i in range(1200)], None, "row is too big"),
        ([("j", "JSON")], ['{"secret": 1e400000}'], "overflows numeric"),
    ],
    ids=["many columns", "wide", "number"],
)
def test_what_the_rows_cause_is_said_and_is_not_transient(
    bench: WarehouseBench, load: Load, columns: Any, values: Any, words: str
) -> None:
    """Rows that PostgreSQL cannot hold are DoesNotFit in the server's words, without the row; others still load."""
    load(A)
    bad = part("bad.json", {name: values or [1] for name, _ in columns})
    with pytest.raises(DoesNotFit, match=words) as refused:
        load(bad, columns=columns)
    assert "secret" not in str(refused.value)
    assert bench.warehouse.markers([bad.ref.name]) == set()
    assert load(B).loaded == (B.ref.name,)


def _trigger(state: str, *, at_commit: bool) -> tuple[str, str]:
    when = "DEFERRABLE INITIALLY DEFERRED" if at_commit else ""
    return (
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'it fails so' USING ERRCODE = '{state}'; END $$",
        f"CREATE {'CONSTRAINT' if at_commit else ''} TRIGGER fail AFTER INSERT ON _penstock_objects {when} "
        "FOR EACH ROW EXECUTE FUNCTION fail()",
    )


@pytest.mark.parametrize("at_commit", [False, True])
@pytest.mark.parametrize(
    ("state", "kind"),
    [
        *((state, WarehouseUnavailable) for state in ("53100", "53200", "57014", "40001", "58030", "25006", "XX001")),
        *((state, DoesNotFit) for state in ("22003", "23514", "54000", "P0001")),
        *((state, DeclarationError) for state in ("42501", "0A000")),
    ],
)
def test_the_state_decides_who_is_to_blame(
    bench: WarehouseBench, load: Load, state: str, kind: type[Exception], *, at_commit: bool
) -> None:
    """By SQLSTATE the server's troubles wait, the tables' go to the owner, and the data's blame the object."""
    load(A)
    for sql in _trigger(state, at_commit=at_commit):
        bench.spoil(sql)
    with pytest.raises(kind, match="it fails so"):
        load(B)
    assert bench.warehouse.markers([B.ref.name]) == set()


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("CREATE VIEW seen AS SELECT id FROM sales", "sales.*view seen"),
        ("ALTER TABLE sales DROP COLUMN _penstock_row", "sales.*_penstock_row"),
        ("ALTER TABLE sales OWNER TO postgres", "permission denied for table sales|owner of table sales"),
    ],
)
def test_a_table_somebody_changed_is_named(bench: WarehouseBench, load: Load, sql: str, words: str) -> None:
    """What stands in the way at the tables is a DeclarationError that names table and hindrance."""
    load(A)
    bench.spoil(sql)
    with pytest.raises(DeclarationError, match=words):
        load(part("c.csv", {"id": [1.5], "name": ["x"]}), columns=(("id", "DOUBLE"), ("name", "VARCHAR")))


def test_sessions_are_ours_whatever_the_role_says(bench: WarehouseBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads read what was committed last, and a server that is gone without a word is noticed."""
    bench.spoil(f"ALTER DATABASE {bench.address.rpartition('/')[2]} SET default_transaction_isolation = serializable")
    isolation: list[str] = []

    def watch(session: Session, dataset: str, token: int, project: str | None) -> None:
        isolation.append(session.ask("SHOW transaction_isolation")[0][0])
        limits.update(session._connection.info.get_parameters())

    limits: dict[str, str] = {}
    monkeypatch.setattr(Session, "take_token", watch)
    bench.warehouse.fence("sales", 1)
    assert isolation == ["read committed"]
    assert {name: limits[name] for name in ("keepalives_idle", "keepalives_interval", "keepalives_count")} == {
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "3",
    }
    assert limits["tcp_user_timeout"] == "30000"


def test_the_ledgers_sessions_are_its_own_whatever_the_role_says(tmp_path: Path) -> None:
    """The ledger's writers read after they have the write lock, and notice a server that is gone without a word."""
    with postgres_ledger(tmp_path) as bench:
        name = bench.url.rpartition("/")[2]
        shared_postgres().execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
        database = Database(bench.url, project="p")
        try:
            with database.write() as connection:
                assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "read committed"
                limits = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
        finally:
            database.close()
    assert (limits["keepalives_idle"], limits["tcp_user_timeout"]) == ("10", "30000")


def test_another_schema(bench: WarehouseBench) -> None:
    """The URL's search_path chooses where the tables are."""
    bench.spoil("CREATE SCHEMA own AUTHORIZATION warehouse")
    other = PostgresWarehouse(f"{bench.address}?options=-csearch_path%3Down")
    other.load("sales", COLUMNS, [A], token=1, run="r", now=NOW)
    assert (other.count("sales"), bench.warehouse.count("sales")) == (2, 0)
    assert bench.warehouse.markers([A.ref.name]) == set()
    nowhere = PostgresWarehouse(f"{bench.address}?options=-csearch_path%3Dnowhere")
    with pytest.raises(WarehouseUnavailable, match="search_path"):
        nowhere.fence("sales", 1)


def test_two_projects_do_not_load_into_one_dataset(bench: WarehouseBench) -> None:
    """What one project loaded would pass for loaded by the other, whose objects are called alike: it is refused."""
    PostgresWarehouse(bench.address).load("sales", COLUMNS, [A], token=1, run="r", now=NOW)
    mine, yours = (PostgresWarehouse(bench.address, project=name) for name in ("mine", "yours"))
    mine.fence("sales", 2)
    with pytest.raises(SettingsError, match=r"that of the project 'mine'.*search_path"):
        yours.fence("sales", 1)
    with pytest.raises(SettingsError, match="of its own"):
        yours.load("sales", COLUMNS, [A], token=9, run="r", now=NOW)
    yours.load("other", COLUMNS, [], token=1, run="r", now=NOW)
    mine.load("sales", COLUMNS, [A], token=3, run="r", now=NOW)
    assert mine.count("sales") == 2


def test_a_query_keeps_to_reading(bench: WarehouseBench, load: Load) -> None:
    """A query can neither leave its transaction nor its role, whatever it holds."""
    load(A)
    for sql in (
        "SELECT 1; COMMIT; DELETE FROM sales",
        "WITH gone AS (DELETE FROM sales RETURNING *) SELECT * FROM gone",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT pg_read_file('/etc/hostname')",
        "SELECT * FROM sales FOR UPDATE",
    ):
        with pytest.raises(QueryRefused):
            bench.warehouse.query(sql, limit=10)
    # Up to PostgreSQL 15 a transaction that only reads may make one of these.
    with suppress(QueryRefused):
        bench.warehouse.query("SELECT lo_create(0)", limit=1)
    assert rows(bench, "SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]
    assert bench.warehouse.count("sales") == 2


def test_a_query_fetches_no_more_than_its_limit(bench: WarehouseBench, load: Load) -> None:
    """Of an answer that would never end the first rows come at once."""
    found = bench.warehouse.query(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n", limit=3, seconds=5
    )
    assert (found.rows, found.truncated) == ([(1,), (2,), (3,)], True)


def test_a_server_that_is_away_is_transient() -> None:
    """Nobody at the address is WarehouseUnavailable, for a load and for a question."""
    away = PostgresWarehouse(f"postgresql://warehouse:x@127.0.0.1:{free_port()}/none")
    for ask in (lambda: away.count("sales"), lambda: away.fence("sales", 1), lambda: away.query("SELECT 1", limit=1)):
        with pytest.raises(WarehouseUnavailable):
            ask()
    assert issubclass(WarehouseUnavailable, Transient)


def test_the_sqlalchemy_spelling_of_a_url_is_taken(bench: WarehouseBench, load: Load) -> None:
    """A URL with a driver's name, as the ledger has it, opens the same database."""
    load(A)
    assert PostgresWarehouse(bench.address.replace("postgresql:", "postgresql+psycopg:")).count("sales") == 2


def test_a_connection_lost_before_the_commit_is_transient(
    bench: WarehouseBench, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server ends the session of a load nothing of it is there, and the object is not blamed."""
    load(A)

    def end_it(seam: str) -> None:
        if seam == "warehouse.before_commit":
            bench.spoil("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'warehouse'")

    monkeypatch.setattr(faults, "point", end_it)
    with pytest.raises(WarehouseUnavailable):
        load(B)
    monkeypatch.undo()
    assert bench.warehouse.markers([B.ref.name]) == set()
    assert load(B).loaded == (B.ref.name,)


def test_a_newer_holder_does_not_wait_for_a_stalled_one(
    bench: WarehouseBench, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load that stands still before its commit is ended by the newer fence, and fails when it goes on."""
    load(A, token=1)
    inside, go_on = threading.Event(), threading.Event()

    def stall(seam: str) -> None:
        if seam == "warehouse.before_commit":
            inside.set()
            assert go_on.wait(60)

    monkeypatch.setattr(faults, "point", stall)
    monkeypatch.setattr("penstock.warehouse.postgres._GRACE_SECONDS", 0.3)
    with ThreadPoolExecutor(1) as pool:
        older = pool.submit(load, B, token=4)
        try:
            assert inside.wait(30)
            bench.warehouse.fence("sales", 5)
            assert bench.warehouse.markers([B.ref.name]) == set()
        finally:
            go_on.set()
        with pytest.raises(WarehouseUnavailable):
            older.result(30)
    monkeypatch.undo()
    assert bench.warehouse.markers([B.ref.name]) == set()
    assert load(B, token=5).loaded == (B.ref.name,)


def test_an_older_fence_ends_nobody(bench: WarehouseBench, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load of the newest holder is waited for, and never ended by an older one."""
    inside, go_on = threading.Event(), threading.Event()

    def stall(seam: str) -> None:
        if seam == "warehouse.before_commit":
            inside.set()
            assert go_on.wait(60)

    monkeypatch.setattr(faults, "point", stall)
    monkeypatch.setattr("penstock.warehouse.postgres._GRACE_SECONDS", 0.3)
    impatient = PostgresWarehouse(bench.address, wait_seconds=2)
    with ThreadPoolExecutor(1) as pool:
        newest = pool.submit(load, A, token=4)
        try:
            assert inside.wait(30)
            with pytest.raises(WarehouseLocked, match="sales"):
                impatient.fence("sales", 3)
        finally:
            go_on.set()
        assert newest.result(30).loaded == (A.ref.name,)


def test_what_was_acknowledged_survives_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """After kill -9 of the server in the middle of the next load, what was loaded is there and the next is not."""
    with real_postgres() as server:
        warehouse = PostgresWarehouse(server.url())
        warehouse.load("sales", COLUMNS, [A], token=1, run="r", now=NOW)

        def die(seam: str) -> None:
            if seam == "warehouse.before_commit":
                server.kill()

        with monkeypatch.context() as patch:
            patch.setattr(faults, "point", die)
            with pytest.raises(WarehouseUnavailable):
                warehouse.load("sales", COLUMNS, [B], token=1, run="r", now=NOW)
        server.start()
        assert warehouse.markers([A.ref.name, B.ref.name]) == {A.ref.name}
        assert warehouse.damaged("sales") == []
        assert warehouse.load("sales", COLUMNS, [A, B], token=1, run="r", now=NOW).loaded == (B.ref.name,)


def test_the_settings_choose_it(bench: WarehouseBench, load: Load, tmp_path: Path) -> None:
    """With a URL the rows are in PostgreSQL and without one in DuckDB; another kind of URL is refused unshown."""
    load(A)
    assert open_warehouse(load_settings(tmp_path, warehouse_url=bench.address)).count("sales") == 2
    assert isinstance(open_warehouse(load_settings(tmp_path)), DuckDBWarehouse)
    with pytest.raises(SettingsError, match="PENSTOCK_WAREHOUSE_URL") as refused:
        open_warehouse(load_settings(tmp_path, warehouse_url="mysql://user:hush@host/db"))
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://user:hu/sh@host/db", "postgresql://user:hu%sh@host/db"])
def test_a_url_that_is_misread_is_refused_unshown(url: str) -> None:
    """A password that was not percent-encoded is an error that says so, without any part of the password."""
    with pytest.raises(SettingsError, match="%2F") as refused:
        PostgresWarehouse(url)
    assert "hu" not in str(refused.value)


@pytest.mark.parametrize("away", [False, True])
def test_doctor_shows_no_password(bench: WarehouseBench, tmp_path: Path, *, away: bool) -> None:
    """Settings and findings name ledger and warehouse without their passwords, whether they answer or not."""
    with postgres_ledger(tmp_path) as ledger:
        urls = {"ledger_url": ledger.url, "warehouse_url": bench.address}
        passwords = [url.split(":")[2].partition("@")[0] for url in urls.values()]
        if away:
            urls = {name: f"{url}_gone?password={passwords[0]}" for name, url in urls.items()}
        settings = load_settings(tmp_path, project="p", **urls)
        findings = {finding.part: finding for finding in examine(settings)}
    assert (findings["ledger"].ok, findings["warehouse"].ok) == (not away, not away)
    shown = "".join(str(line) for line in [*provenance(settings), *findings.values()])
    assert not any(password in shown for password in passwords)
    assert "PENSTOCK_WAREHOUSE_URL" in shown
