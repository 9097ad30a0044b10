"""What is wrong with the SQL of a declaration, found without any data.

Each expression is parsed, and bound as `shape.py` and `reports.py` will ask it. Of columns that nothing is known of yet
only that much is said which holds whatever they are.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from penstock.declarations import Dataset
from penstock.formats import delivery
from penstock.formats.engine import cursor
from penstock.formats.result import RESCUED, ROW
from penstock.formats.shape import LINE
from penstock.machine_faults import first_line, raise_machine_fault
from penstock.model import Schema
from penstock.quoting import quoted

_OWN = {ROW: "BIGINT", RESCUED: "VARCHAR", LINE: "BIGINT"}
_NO_COLUMN = re.compile(r'Referenced (?:column|table) "([^"]+)" not found')
_AGGREGATE = "GROUP BY clause"
_NEAREST = 3


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something wrong in a declaration: `where` are the field and what of it (`derive`, `total`)."""

    where: tuple[str, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Parsed:
    """What an expression refers to, in lower case; `open_ended` when that is not all of it."""

    refers: frozenset[str]
    open_ended: bool


def faults_of(dataset: Dataset, known: Schema | None) -> list[Fault]:
    """Everything that is wrong, by the columns that are remembered, or the hints where none are yet.

    A column that is not there is a fault only where all of them are known.
    """
    with cursor() as connection:
        return _Examined(connection, dataset, known).faults()


class _Examined:
    """One dataset under examination."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, dataset: Dataset, known: Schema | None) -> None:
        self._connection = connection
        self._dataset = dataset
        self._found: list[Fault] = []
        types = self._types()
        columns = {column.name: column.type for column in known.columns} if known else {}
        if not known and dataset.format == "delivery":
            columns = dict(delivery.COLUMNS)
        self._complete = bool(columns)
        self._columns = {**columns, **types}
        # Columns of which no type is known.
        self._unsure: set[str] = set()

    def faults(self) -> list[Fault]:
        dataset = self._dataset
        if dataset.transform is not None and not callable(dataset.transform):
            self._add(("transform",), f"{dataset.transform!r} is no function")
        parsed = {where: self._parse(where, text) for where, text in self._expressions()}
        names = {name.lower() for name in (*self._columns, *dataset.derive, *_OWN)}
        # A partition's may come from the key's path.
        self._unsure = {name for name in (*dataset.partitions, *dataset.columns) if name not in names}
        if not self._complete:
            referred = {name for one in parsed.values() if one for name in one.refers}
            self._unsure |= {name for name in (*referred, *dataset.select) if name not in names}
        names |= self._unsure
        inner = self._rows_before(parsed)
        self._names(names)
        self._whole_objects(inner, parsed)
        return self._found

    def _expressions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        dataset = self._dataset
        yield from ((("derive", name), text) for name, text in dataset.derive.items())
        if dataset.where is not None:
            yield ("where",), dataset.where
        for checks in (dataset.row_checks, dataset.object_checks):
            yield from ((("checks", name), check.predicate) for name, check in checks.items())
        yield from ((("report", name), text) for name, text in dataset.report.items())

    def _rows_before(self, parsed: Mapping[tuple[str, ...], _Parsed | None]) -> str:
        """The query for the rows before `select`, when the expressions over one row are bound to it."""
        columns = [f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in {**_OWN, **self._columns}.items()]
        columns += [f"NULL AS {quoted(name)}" for name in sorted(self._unsure)]
        inner = f"SELECT {', '.join(columns)}"
        names = {name.lower() for name in (*self._columns, *self._unsure)}
        for name, text in self._dataset.derive.items():
            where = ("derive", name)
            value = (
                f"({text}\n)" if self._binds(where, parsed[where], f"SELECT *, ({text}\n) FROM ({inner})") else "NULL"
            )
            if value == "NULL" or not self._sure(parsed[where]):
                self._unsure.add(name.lower())
            replaced = f"REPLACE ({value} AS {quoted(name)})" if name in names else f", {value} AS {quoted(name)}"
            inner = f"SELECT * {replaced} FROM ({inner})"
            names.add(name)
        if self._dataset.where is not None:
            self._binds(
                ("where",), parsed[("where",)], f"SELECT ({self._dataset.where}\n) IS NOT TRUE, * FROM ({inner})"
            )
        for name, check in self._dataset.row_checks.items():
            where = ("checks", name)
            self._binds(where, parsed[where], f"SELECT ({check.predicate}\n) IS NOT TRUE, * FROM ({inner})")
        return inner

    def _whole_objects(self, inner: str, parsed: Mapping[tuple[str, ...], _Parsed | None]) -> None:
        """The expressions over the rows of an object, or of a load, which are those that `select` left."""
        dataset = self._dataset
        names = {name.lower() for name in (*self._columns, *self._unsure, *dataset.derive)}
        kept = [quoted(name) for name in dataset.select if name.lower() in names]
        rows = f"SELECT {', '.join([*kept, *map(quoted, _OWN)])} FROM ({inner})" if kept else inner
        wanted = {("checks", name): check.predicate for name, check in dataset.object_checks.items()}
        wanted |= {("report", name): text for name, text in dataset.report.items()}
        for where, text in wanted.items():
            # With an aggregate beside it a column alone is refused.
            self._binds(
                where, parsed[where], f"SELECT count(*), ({text}\n) FROM ({rows})", certain=dataset.transform is None
            )

    def _binds(self, where: tuple[str, ...], parsed: _Parsed | None, sql: str, *, certain: bool = True) -> bool:
        """Whether the expression fits the columns, as far as that can be said; a fault otherwise."""
        if parsed is None or parsed.open_ended:
            return False
        sure = certain and self._sure(parsed)
        try:
            self._connection.sql(sql)
        except duckdb.CatalogException as error:
            self._add(where, first_line(error))
            return False
        except duckdb.Error as error:
            raise_machine_fault(error)
            said = first_line(error)
            if _AGGREGATE in said:
                self._add(where, self._why_aggregate(where))
            elif sure:
                self._add(where, said + self._instead(said, where))
            return False
        return True

    def _why_aggregate(self, where: tuple[str, ...]) -> str:
        if where[0] == "report" or (where[0] == "checks" and where[1] in self._dataset.object_checks):
            return "it names a column outside an aggregate, of which many rows have no one value: sum(…), max(…), …"
        besides = "; of an object as a whole it is asked with Check(…, over='object')" if where[0] == "checks" else ""
        return f"it has an aggregate, and is asked of each row alone{besides}"

    def _sure(self, parsed: _Parsed | None) -> bool:
        return parsed is not None and not parsed.open_ended and not parsed.refers & self._unsure

    def _instead(self, said: str, where: tuple[str, ...]) -> str:
        missing = _NO_COLUMN.search(said)
        return self._nearest(missing[1], where) if missing else ""

    def _nearest(self, name: str, where: tuple[str, ...]) -> str:
        derived = list(self._dataset.derive)
        if where[0] == "derive" and name in derived and derived.index(name) >= derived.index(where[1]):
            return f" {name} is derived later: put it first"
        names = [*self._columns, *(one for one in derived if one not in self._columns)]
        near = difflib.get_close_matches(name.lower(), names, n=_NEAREST)
        return f" Nearest: {', '.join(near)}" if near else f" There are: {', '.join(names[:20])}"

    def _types(self) -> dict[str, str]:
        """The type hints that are types."""
        good = {}
        for name, kind in self._dataset.columns.items():
            where = ("columns", name)
            if not isinstance(kind, str):
                self._add(where, f"a type is a text such as 'BIGINT', not {kind!r}")
                continue
            found = self._select_list(f"SELECT CAST(NULL AS {kind}\n)")
            if isinstance(found, str) or len(found) != 1 or found[0].get("class") != "CAST":
                self._add(where, f"{kind!r} is no type; types are in DuckDB's words, such as BIGINT or DECIMAL(10,2)")
                continue
            try:
                self._connection.sql(f"SELECT CAST(NULL AS {kind}\n)")
            except duckdb.Error as error:
                raise_machine_fault(error)
                self._add(where, first_line(error))
                continue
            good[name] = kind
        return good

    def _names(self, names: set[str]) -> None:
        """Columns that are named for something."""
        dataset = self._dataset
        if self._complete:
            asked = [("select", name) for name in dataset.select]
            asked += [("checks", name) for name, check in self._checked_columns() if check.lower() not in names]
            if not dataset.select and dataset.transform is None:
                asked += self._written()
            for field, name in asked:
                column = dict(self._checked_columns())[name] if field == "checks" else name
                if column.lower() not in names:
                    where = (field, name)
                    self._add(where, f"no column is called {column!r}.{self._nearest(column, where)}")
        if dataset.select and dataset.transform is None:
            for field, name in self._written():
                if name not in dataset.select:
                    self._add((field, name), f"select leaves the column {name!r} out: name it there too")

    def _written(self) -> list[tuple[str, str]]:
        found = [("key", name) for name in self._dataset.key]
        named = (("order_by", self._dataset.order_by), ("event_time", self._dataset.event_time))
        return found + [(field, name) for field, name in named if name is not None]

    def _checked_columns(self) -> list[tuple[str, str]]:
        return [(name, check.column) for name, check in self._dataset.row_checks.items() if check.column is not None]

    def _parse(self, where: tuple[str, ...], text: str) -> _Parsed | None:
        if not isinstance(text, str) or not text.strip():
            self._add(where, f"an SQL expression is a text, not {text!r}")
            return None
        found = self._select_list(f"SELECT ({text}\n)")
        if isinstance(found, str):
            self._add(where, found)
            return None
        if len(found) != 1:
            self._add(where, f"it is {len(found)} expressions, where one is wanted")
            return None
        refers: set[str] = set()
        open_ended = False
        for node in _nodes(found[0]):
            if node.get("class") == "COLUMN_REF":
                refers.add(str(node["column_names"][0]).lower())
            # What a subquery or `COLUMNS(…)` refers to is another matter.
            open_ended = open_ended or node.get("class") in ("SUBQUERY", "STAR")
        return _Parsed(refers=frozenset(refers), open_ended=open_ended)

    def _select_list(self, sql: str) -> list[dict[str, Any]] | str:
        """The expressions of a statement that should be one SELECT of them and nothing else; or what is wrong."""
        row = self._connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
        assert row is not None
        told = json.loads(row[0])
        if told["error"]:
            if int(told.get("position") or 0) >= len(sql) - 1:
                return "it ends where DuckDB expects more of it"
            return f"Parser Error: {told['error_message'].splitlines()[0]}"
        node = told["statements"][0]["node"]
        only = len(told["statements"]) == 1 and node["type"] == "SELECT_NODE" and node["from_table"]["type"] == "EMPTY"
        besides = ("where_clause", "having", "qualify", "sample")
        if not only or node["modifiers"] or node["group_expressions"] or any(node[name] for name in besides):
            return "it must be one expression, and is more than that"
        return list(node["select_list"])

    def _add(self, where: tuple[str, ...], reason: str) -> None:
        if all(fault.where != where for fault in self._found):
            self._found.append(Fault(where=where, reason=reason))


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value)


def common(found: Sequence[Sequence[Fault]]) -> list[Fault]:
    """The faults that are there for each of several schemas, one of which an object may have."""
    shared = set.intersection(*({fault.where for fault in one} for one in found)) if found else set()
    return [fault for fault in (found[0] if found else ()) if fault.where in shared]
