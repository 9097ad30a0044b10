"""CSV as people bring it: delimiter, encoding, decimal comma, dates and null texts, found or declared."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import Csv, Dataset
from penstock.errors import DeclarationError, Unreadable
from penstock.formats import ReadResult, infer, read, read_together
from penstock.model import Schema
from tests.examples import examples

Given = Callable[..., tuple[dict[str, str], list[dict[str, Any]]]]


def at(folder: Path, content: str | bytes, name: str = "object") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def learn(folder: Path, content: str | bytes, key: str = "x.csv", **declared: Any) -> Schema:
    return infer(at(folder, content), key, Dataset(name="sales", **declared))


def load(folder: Path, content: str | bytes, schema: Schema | None = None, **declared: Any) -> ReadResult:
    dataset, path = Dataset(name="sales", **declared), at(folder, content)
    return read(path, "x.csv", dataset, schema or infer(path, "x.csv", dataset))


def kinds(schema: Schema) -> dict[str, str]:
    return {column.name: column.type for column in schema.columns}


def values(result: ReadResult) -> list[list[Any]]:
    return [list(row.values())[:-2] for row in result.rows.to_pylist()]


TEXT = "id,name\n1,Gr\u00fc\u00dfe \u201cquoted\u201d\n2,caf\u00e9\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom", "windows-1252", "gzip"]
)
def test_an_encoding_that_is_certain_is_found(tmp_path: Path, encoding: str) -> None:
    """A mark says it, or there is nothing else that it could be."""
    marks = {"utf-16-le-bom": ("utf-16-le", b"\xff\xfe"), "utf-16-be-bom": ("utf-16-be", b"\xfe\xff")}
    content = gzip.compress(TEXT.encode("windows-1252"))
    if encoding != "gzip":
        name, mark = marks.get(encoding, (encoding, b""))
        content = mark + TEXT.encode(name)
    found = load(tmp_path, content)
    assert values(found) == [[1, "Gr\u00fc\u00dfe \u201cquoted\u201d"], [2, "caf\u00e9"]]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("P\u0159\u00edli\u0161", "windows-1250"),
        ("\u041c\u043e\u0441\u043a\u0432\u0430", "windows-1251"),
        ("\u041c\u043e\u0441\u043a\u0432\u0430", "koi8-r"),
        ("Gr\u00fc\u00dfe", "cp850"),
        ("Gr\u00fc\u00dfe", "mac_roman"),
        ("fran\u00e7ais, tr\u00e8s", "windows-1252"),
        ("\u0130stanbul \u015fehri", "windows-1254"),
        ("\u0391\u03b8\u03ae\u03bd\u03b1", "windows-1253"),
        ("\u6771\u4eac", "shift_jis"),
        ("\u6771\u4eac", "gb18030"),
        ("\u05e9\u05dc\u05d5\u05dd", "windows-1255"),
    ],
)
def test_an_encoding_that_is_not_certain_is_asked_for(tmp_path: Path, text: str, encoding: str) -> None:
    """Refused with the option that says it; with that, it is read."""
    content = f'id,name\n1,"{text}"\n'.encode(encoding)
    with pytest.raises(Unreadable, match=r"csv=Csv\(encoding="):
        learn(tmp_path, content)
    assert values(load(tmp_path, content, csv=Csv(encoding=encoding))) == [[1, text]]


def test_no_later_object_is_read_by_a_guess(tmp_path: Path) -> None:
    """What was certain of the first object is not held to be so of the second."""
    schema = learn(tmp_path, TEXT.encode("windows-1252"))
    with pytest.raises(Unreadable, match="'1,\u0159\u00edz' as windows-1250"):
        load(tmp_path, "id,name\n1,\u0159\u00edz\n".encode("windows-1250"), schema)


def test_bytes_that_are_not_of_the_declared_encoding(tmp_path: Path) -> None:
    """The reason names encoding and place."""
    with pytest.raises(Unreadable, match="not windows-1252 text: near byte 10"):
        learn(tmp_path, b"id,name\n1\x81,a\n", csv=Csv(encoding="windows-1252"))
    assert values(load(tmp_path, b"\xff\xfe" + "id\n7\n".encode("utf-16-le"), csv=Csv(encoding="latin-1"))) == [[7]]


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
def test_the_delimiter_is_found_beside_decimal_commas(tmp_path: Path, delimiter: str) -> None:
    """What stands in numbers only parts no fields, with a header and without."""
    number = '"1,5"' if delimiter == "," else "1,5"
    rows = [["a", "b"], [number, "2,25"], [number, "3,1"]]
    if delimiter == ",":
        rows = [[field if field.startswith('"') or "," not in field else f'"{field}"' for field in row] for row in rows]
    text = "".join(delimiter.join(row) + "\n" for row in rows)
    schema = learn(tmp_path, text)
    assert list(kinds(schema)) == ["a", "b"]
    without = learn(tmp_path, text.split("\n", 1)[1])
    assert len(without.columns) == 2


@pytest.mark.parametrize(
    ("cells", "kind", "read_as"),
    [
        (["12,5", "1.234,56", "-0,5", "7", ""], "DOUBLE", [12.5, 1234.56, -0.5, 7.0, None]),
        (["1.234.567", "1,5"], "DOUBLE", [1234567.0, 1.5]),
        (["1,234", "2,345"], "VARCHAR", ["1,234", "2,345"]),
        (["0,234", "2,345"], "DOUBLE", [0.234, 2.345]),
        (["12,5", "n/a"], "VARCHAR", ["12,5", "n/a"]),
        (["12,5", "1.5"], "VARCHAR", ["12,5", "1.5"]),
        (["12,5", "1.234"], "VARCHAR", ["12,5", "1.234"]),
        (["007,5", "1,25"], "VARCHAR", ["007,5", "1,25"]),
        (["1,2,3", "1,5"], "VARCHAR", ["1,2,3", "1,5"]),
        (["1.234", "1.250"], "DOUBLE", [1.234, 1.25]),
    ],
)
def test_decimal_commas(tmp_path: Path, cells: list[str], kind: str, read_as: list[Any]) -> None:
    """A column is a number's when all its values are, and only where they can be read in one way."""
    text = "n;name\n" + "".join(f"{cell};x\n" for cell in cells)
    schema = learn(tmp_path, text)
    assert kinds(schema)["n"] == kind
    assert load(tmp_path, text, schema).rows.column("n").to_pylist() == read_as


def test_what_is_said_of_one_column_is_true_of_the_file(tmp_path: Path) -> None:
    """Beside a decimal comma, 1,234 is a fraction, 1.234 is not known, and 48.13741 is a fraction still."""
    text = "a;b;c;d;e\n1,5;1,234;1.234;48.13741;3\n2,25;2,345;2.500;11.57549;4\n"
    schema = learn(tmp_path, text)
    assert kinds(schema) == {"a": "DOUBLE", "b": "DOUBLE", "c": "VARCHAR", "d": "DOUBLE", "e": "BIGINT"}
    assert values(load(tmp_path, text, schema))[0] == [1.5, 1.234, "1.234", 48.13741, 3]
    later = load(tmp_path, "a;b;c;d;e\n1,5;1,2;x;48,1;3\n2.5;1,2;x;48.1;3\n1.234;1,2;x;1.5;3\n7;8;x;9;4\n", schema)
    assert values(later) == [[7.0, 8.0, "x", 9.0, 4]]
    assert later.rejected.column("reason").to_pylist() == [
        "d: not DOUBLE: 48,1",
        "a: not DOUBLE: 2.5",
        "a: not DOUBLE: 1.234",
    ]


def test_whole_numbers_widen_by_the_comma_too(tmp_path: Path) -> None:
    """A column of whole numbers, in a file with decimal commas, becomes DOUBLE by a later object's."""
    schema = learn(tmp_path, "a;e\n1,5;3\n2,25;4\n")
    found = load(tmp_path, "a;e\n1,5;3,5\n", schema)
    assert (kinds(found.schema)["e"], values(found)) == ("DOUBLE", [[1.5, 3.5]])
    assert found.schema.dialect == schema.dialect


def test_a_declared_comma_takes_dots_for_thousands(tmp_path: Path) -> None:
    """Said, there is no doubt; also with a comma between the fields."""
    text = "n;m;t\n1.234;1,234;1.5\n7;2;2.5\n"
    schema = learn(tmp_path, text, csv=Csv(decimal=","))
    assert kinds(schema) == {"n": "BIGINT", "m": "DOUBLE", "t": "VARCHAR"}
    assert values(load(tmp_path, text, schema, csv=Csv(decimal=",")))[0] == [1234, 1.234, "1.5"]
    quoted = 'a,b\n"1,5",x\n"2,5",y\n'
    assert kinds(learn(tmp_path, quoted))["a"] == "VARCHAR"
    assert values(load(tmp_path, quoted, csv=Csv(decimal=",")))[0] == [1.5, "x"]
    assert kinds(learn(tmp_path, "a;b\n1,5;x\n2,5;y\n", csv=Csv(decimal=".")))["a"] == "VARCHAR"


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["007", "008"], "VARCHAR"),
        (["01234", "99999"], "VARCHAR"),
        (["-07", "3"], "VARCHAR"),
        (["00.5", "1.5"], "VARCHAR"),
        (["0.5", "0"], "DOUBLE"),
        (["0", "10"], "BIGINT"),
        (["0x1F", "0x20"], "VARCHAR"),
        (["1_000", "2"], "VARCHAR"),
        (["9223372036854775807", "1"], "BIGINT"),
        (["9223372036854775808", "1"], "VARCHAR"),
        (["12345678901234567890.5", "1"], "VARCHAR"),
        (["1e300", "1.5"], "DOUBLE"),
        (["nan", "inf", "1.5"], "DOUBLE"),
        (["true", "false"], "BOOLEAN"),
    ],
)
def test_no_digit_is_lost(tmp_path: Path, cells: list[str], kind: str) -> None:
    """Zeros in front, and more digits than a number holds, make a text."""
    text = "n,name\n" + "".join(f"{cell},x\n" for cell in cells)
    schema = learn(tmp_path, text)
    assert kinds(schema)["n"] == kind
    found = load(tmp_path, text, schema)
    assert found.rejected.num_rows == 0
    if kind == "VARCHAR":
        assert found.rows.column("n").to_pylist() == cells


def test_a_later_zero_in_front_is_not_dropped(tmp_path: Path) -> None:
    """A row is put aside rather than read as another number, unless the type was declared."""
    schema = learn(tmp_path, "zip,n\n10115,1\n80331,2\n")
    found = load(tmp_path, "zip,n\n01067,1\n0,2\n", schema)
    assert found.rejected.column("reason").to_pylist() == ["zip: not BIGINT: 01067"]
    assert values(load(tmp_path, "zip,n\n01067,1\n", schema, columns={"zip": "BIGINT"})) == [[1067, 1]]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["2024-02-13", "2024-03-04"], "DATE"),
        (["2024/02/13", "2024/03/04"], "DATE"),
        (["13.02.2024", "01.02.2024"], "DATE"),
        (["01.02.2024", "03.02.2024"], "DATE"),
        (["13/02/2024", "01/02/2024"], "DATE"),
        (["02/13/2024", "01/02/2024"], "DATE"),
        (["01/02/2024", "03/02/2024"], "VARCHAR"),
        (["01-02-2024", "03-02-2024"], "VARCHAR"),
        (["13-02-24", "12-02-24"], "VARCHAR"),
        (["31-12-99", "12-02-24"], "DATE"),
        (["13/02/2024 10:00:00", "01/02/2024 11:00:00"], "TIMESTAMP"),
        (["03/02/2024 10:00:00", "01/02/2024 11:00:00"], "VARCHAR"),
        (["2024-02-13 10:00:00", "2024-02-14T11:00:00"], "TIMESTAMP"),
        (["2024-02-13T10:00:00Z", "2024-02-14T11:00:00+02:00"], "TIMESTAMP WITH TIME ZONE"),
        (["20240213", "20240214"], "BIGINT"),
    ],
)
def test_dates_that_could_be_others_stay_text(tmp_path: Path, cells: list[str], kind: str) -> None:
    """A date is found where all values can be read in one way only."""
    text = "d,name\n" + "".join(f"{cell},x\n" for cell in cells)
    schema = learn(tmp_path, text)
    assert kinds(schema)["d"] == kind
    assert load(tmp_path, text, schema).rejected.num_rows == 0


def test_a_declared_form_of_dates(tmp_path: Path) -> None:
    """What could be read in two ways is read as it is said, also in later objects."""
    how = Csv(date="%m/%d/%Y", timestamp="%m/%d/%Y %H:%M")
    text = "d,t\n01/02/2024,01/02/2024 10:00\n03/02/2024,03/02/2024 10:00\n"
    schema = learn(tmp_path, text, csv=how)
    assert kinds(schema) == {"d": "DATE", "t": "TIMESTAMP"}
    assert [str(value) for value in values(load(tmp_path, text, schema, csv=how))[0]] == [
        "2024-01-02",
        "2024-01-02 10:00:00",
    ]
    assert load(tmp_path, "d,t\n13/02/2024,\n", schema, csv=how).rejected.num_rows == 1


def test_a_header_is_declared(tmp_path: Path) -> None:
    """There, not there, or given by names."""
    text = "a,b\nc,d\n"
    assert values(load(tmp_path, text, csv=Csv(header=True))) == [["c", "d"]]
    assert values(load(tmp_path, text, csv=Csv(header=False))) == [["a", "b"], ["c", "d"]]
    named = Csv(header=["First Name", "Last"])
    schema = learn(tmp_path, text, csv=named)
    assert list(kinds(schema)) == ["first_name", "last"]
    found = load(tmp_path, "x,y\nz\n1,2,3\n", schema, csv=named)
    assert values(found) == [["x", "y"]]
    assert found.rejected.column("reason").to_pylist() == ["too few fields", "too many fields"]
    assert found.rejected.column("line").to_pylist() == [2, 3]


def test_skip_quote_and_null_are_declared(tmp_path: Path) -> None:
    """Lines before the header are left out, another quote is one, and texts may mean nothing."""
    text = "Report; of;\n\nid;name;qty\n1;'a;b';NULL\n2;-;3\n"
    how = Csv(skip=2, quote="'", null=["NULL", "-"])
    schema = learn(tmp_path, text, csv=how)
    assert kinds(schema) == {"id": "BIGINT", "name": "VARCHAR", "qty": "BIGINT"}
    assert values(load(tmp_path, text, schema, csv=how)) == [[1, "a;b", None], [2, None, 3]]
    bare = Csv(quote="", header=True)
    assert values(load(tmp_path, 'id,name\n1,"a\n2,b"\n', csv=bare)) == [[1, '"a'], [2, 'b"']]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"delimiter": ";;"}, "delimiter"),
        ({"delimiter": ""}, "delimiter"),
        ({"quote": "ab"}, "quote"),
        ({"delimiter": ";", "quote": ";"}, "quote"),
        ({"encoding": "latin-99"}, "encoding"),
        ({"encoding": "base64"}, "encoding"),
        ({"encoding": "undefined"}, "encoding"),
        ({"decimal": "x"}, "decimal"),
        ({"decimal": ",", "delimiter": ","}, "decimal"),
        ({"header": "id"}, "header"),
        ({"header": []}, "header"),
        ({"header": [1]}, "header"),
        ({"header": 3}, "header"),
        ({"skip": -1}, "skip"),
        ({"skip": "2"}, "skip"),
        ({"skip": True}, "skip"),
        ({"null": "NULL"}, "null"),
        ({"null": [None]}, "null"),
        ({"date": "dd.mm.yyyy"}, "date"),
        ({"timestamp": ""}, "timestamp"),
    ],
)
def test_a_wrong_option_is_named(declared: dict[str, Any], said: str) -> None:
    """It is an error of the declaration."""
    with pytest.raises(DeclarationError, match=f"csv: .*{said}"):
        Csv(**declared)


def test_options_are_of_their_class() -> None:
    """A dict of options is none."""
    with pytest.raises(DeclarationError, match="dataset sales: csv must be Csv"):
        Dataset(name="sales", csv={"delimiter": ";"})  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [";", "\t", "|"])
def test_a_later_object_with_another_delimiter_is_looked_at_anew(tmp_path: Path, other: str) -> None:
    """Its rows are read as they are, and what is remembered stays."""
    schema = learn(tmp_path, "id,name,qty\n1,a,2\n2,b,3\n")
    found = load(tmp_path, f"id{other}name{other}qty\n5{other}x,y{other}6\n", schema)
    assert values(found) == [[5, "x,y", 6]]
    assert found.schema == schema
    declared = load(tmp_path, "id;name;qty\n5;x,y;6\n", schema, csv=Csv(delimiter=","))
    assert declared.rows.column("id").to_pylist() == [None] * declared.rows.num_rows


def test_what_has_none_of_the_columns_is_not_read_together(tmp_path: Path) -> None:
    """Each is looked at by itself, also where a comma would part its lines alike."""
    dataset = Dataset(name="sales")
    schema = learn(tmp_path, "id,name,qty\n1,a,2\n2,b,3\n")
    other = 'id;"name";qty, all\n5;"x, y";6\n7;"z, y";8\n'
    paths = [at(tmp_path, other, f"o{number}") for number in range(3)]
    assert read_together(paths, "csv", dataset, schema) == {}
    alone = read(paths[0], "x.csv", dataset, schema)
    assert alone.rows.column("name").to_pylist() == ["x, y", "z, y"]


def test_without_a_header_the_number_of_columns_says_it(tmp_path: Path) -> None:
    """Another delimiter is found by it."""
    schema = learn(tmp_path, "1,2,3\n4,5,6\n")
    assert values(load(tmp_path, "7;8;9\n1;2;3\n", schema)) == [[7, 8, 9], [1, 2, 3]]


TORTURE: dict[str, bytes] = {
    "empty": b"",
    "only marks": b"\xef\xbb\xbf",
    "only a utf-16 mark": b"\xff\xfe",
    "half a utf-16 character": b"\xff\xfei\x00d",
    "header only": b"id,name\n",
    "mixed newlines": b"id,name\r\n1,a\n2,b\r\n3,c\n",
    "lone carriages": b"id,name\r1,a\r2,b\r",
    "NUL": b"id,name\n1,\x00\n",
    "NUL and latin-1": b"id,name\n1,\xe9\xe9\x00\n",
    "quoted newlines": b'id,name\n1,"a\r\nb\n\nc"\n',
    "an open quote": b'id,name\n1,"a\n2,b\n',
    "a thousand columns": (
        ",".join(f"c{n}" for n in range(1000)) + "\n" + ",".join("1,5;2"[:1] * 1000) + "\n"
    ).encode(),
    "no delimiter": b"name\na\nb\n",
    "only delimiters": b";;;;\n;;;;\n;;;;\n",
    "only quotes": b'"""""""\n""\n',
    "control characters": bytes(range(1, 32)) * 4,
    "a long cell": b"id,name\n1," + b"x" * 300_000 + b"\n",
    "surrogates": b"id,name\n1,\xed\xa0\x80\n",
    "duplicate names": b"a,a,A,a\n1,2,3,4\n",
    "names of spaces": b" , ,\n1,2,3\n",
}


@pytest.mark.parametrize("case", TORTURE)
@pytest.mark.parametrize("how", [Csv(), Csv(decimal=",", encoding="latin-1"), Csv(delimiter=";", quote="", skip=1)])
def test_whatever_comes_ends_as_rows_or_with_a_reason(tmp_path: Path, case: str, how: Csv) -> None:
    """No other error comes out, and every record is either a row or rejected."""
    with suppress(Unreadable):
        found = load(tmp_path, TORTURE[case], csv=how)
        assert found.total == found.rows.num_rows + found.rejected.num_rows


CELLS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r\x1d", exclude_categories=["Cs"]), max_size=8),
    st.integers(-(10**20), 10**20).map(str),
    st.sampled_from(["007", "1,5", "1.234,56", "1.5", "01/02/2024", "2024-01-01", "true", "nan", "", "a\nb", '"', ";"]),
)


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    quote=st.sampled_from(['"', "'"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_what_pythons_csv_writes_is_read_back(
    tmp_path: Path,
    rows: list[tuple[str, str]],
    delimiter: str,
    quote: str,
    encoding: str,
    end: str,
    quoting: Any,
) -> None:
    """Every text comes back, in whatever way it was quoted."""
    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=delimiter, quotechar=quote, lineterminator=end, quoting=quoting)
    writer.writerows([("id", "one", "two"), *((f"r{place}", *row) for place, row in enumerate(rows))])
    how = Csv(delimiter=delimiter, quote=quote, header=True)
    hints = {"one": "VARCHAR", "two": "VARCHAR"}
    found = load(tmp_path, sink.getvalue().encode(encoding), csv=how, columns=hints)
    # An empty text and no value are the same in CSV.
    assert [[cell or "" for cell in row[1:]] for row in values(found)] == [list(row) for row in rows]


FIRSTS = {
    "plain": ("id,name,qty\n1,a,2\n2,b,3\n", Csv()),
    "commas": ("id;name;qty\n1;a;2,5\n2;b;3,75\n", Csv()),
    "declared": ("id;name;qty\n1;a;2,5\n2;-;3\n", Csv(decimal=",", null=["-"], delimiter=";")),
    "names": ("1;a;2,5\n2;-;3\n", Csv(header=["id", "name", "qty"], delimiter=";")),
    "no header": ("1,2,3\n4,5,6\n", Csv()),
    "encoding": ("id,name,qty\n1,a,2\n2,b,3\n", Csv(encoding="latin-1")),
    "no quote": ("id,name,qty\n1,a,2\n2,b,3\n", Csv(quote="")),
}
NUMBERS = st.sampled_from(["1", "2,5", "2.5", "007", "1.234,5", "1.234", "-", "", "x", '"3,5"', "9,", "1e3"])
NAMES = st.sampled_from(["a", "b", "'c'", '"q;r,s"', "\u00fc", "-", '"open', ""])


@st.composite
def csvs(draw: st.DrawFn) -> bytes:
    """CSVs of one or another delimiter, encoding, header and kind of numbers."""
    delimiter = draw(st.sampled_from([",", ",", ";", ";", "\t"]))
    rows = draw(st.lists(st.tuples(st.sampled_from(["1", "2", "03"]), NAMES, NUMBERS), max_size=4))
    lines = [delimiter.join(row) for row in rows]
    header = draw(st.sampled_from(["id", "id", "id", "ID", None]))
    if header:
        lines.insert(0, delimiter.join([header, "name", "qty"]))
    encoding = draw(st.sampled_from(["utf-8"] * 6 + ["windows-1252", "utf-16", "utf-8-sig"]))
    return ("\n".join(lines) + "\n").encode(encoding)


@pytest.mark.hypothesis
@pytest.mark.parametrize("first", FIRSTS)
def test_together_is_as_alone_in_every_dialect(tmp_path: Path, first: str) -> None:
    """What is read together is what each object gives alone, found, remembered or declared."""
    text, how = FIRSTS[first]
    dataset = Dataset(name="sales", csv=how)
    schema = learn(tmp_path, text, csv=how)
    together = 0

    @settings(max_examples=examples(12), deadline=None, suppress_health_check=list(HealthCheck))
    @given(contents=st.lists(csvs(), min_size=4, max_size=10))
    def check(contents: list[bytes]) -> None:
        nonlocal together
        paths = [at(tmp_path, content, f"o{number}") for number, content in enumerate([*contents, text.encode()])]
        paths.append(at(tmp_path, text, "last"))
        found = read_together(paths, "csv", dataset, schema)
        together += len(found)
        for index, result in found.items():
            alone = read(paths[index], "x.csv", dataset, schema)
            assert result.rows.equals(alone.rows) or str(result.rows.to_pylist()) == str(alone.rows.to_pylist())
            assert result.rejected.equals(alone.rejected)
            assert (result.total, result.columns, result.schema) == (alone.total, alone.columns, alone.schema)

    check()
    assert (together > 0) == (first not in ("encoding", "no quote"))


def test_a_schema_is_kept_as_json(tmp_path: Path) -> None:
    """What is remembered of a dialect goes through the ledger and comes back."""
    schema = learn(tmp_path, FIRSTS["declared"][0], csv=FIRSTS["declared"][1])
    assert json.loads(json.dumps(schema.dialect)) == schema.dialect
