"""What the options of a dataset may be, and what is said of one that is not so. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from penstock.checks import Check
from penstock.dialects import Csv, Excel
from penstock.model import NAME
from penstock.nearest import did_you_mean
from penstock.schedules import wrong_cron

# Those that are one of a few words.
WORDS: Mapping[str, tuple[str, ...]] = {
    "format": ("auto", "csv", "tsv", "json", "ndjson", "parquet", "arrow", "excel", "log", "delivery"),
    "nested": ("flatten", "keep"),
    "write": ("append", "merge", "replace_partition"),
    "schema": ("rescue", "evolve", "freeze"),
    "on_overwrite": ("replace", "append", "ignore"),
}
# What a format is called elsewhere, such as in the name of a file.
_OTHER_NAMES = {
    "xlsx": "excel",
    "xlsm": "excel",
    "xlsb": "excel",
    "xls": "excel",
    "ods": "excel",
    "jsonl": "ndjson",
    "geojson": "json",
    "feather": "arrow",
    "ipc": "arrow",
    "tab": "tsv",
    "webhook": "delivery",
}
_MAPPINGS = {
    "columns": '{"day": "DATE"}',
    "checks": '{"amount_positive": "amount > 0", "id_known": not_null("id")}',
    "derive": '{"gross": "amount * 1.2"}',
    "report": '{"total": "sum(amount)"}',
}
_LISTS = {"select": "columns", "key": "columns", "partitions": "columns", "cron": "expressions such as '0 3 * * *'"}
_TEXTS = ("prefix", "match", "records", "pattern", "where", "order_by", "event_time")
_FLAGS = ("ordered", "event_per_object")
_SPANS = {"every": "timedelta(minutes=15)", "lateness": "timedelta(hours=1)"}
_CSV, _JSON, _EXCEL = ("csv", "tsv"), ("json", "ndjson"), ("excel",)
_LONGEST_NAME = 63


def wrong_name(what: str, name: object) -> str | None:
    """Why a dataset or a column cannot be called so; None when it can."""
    if isinstance(name, str) and NAME.match(name):
        return None
    if isinstance(name, str) and NAME.match(name[:_LONGEST_NAME]) and len(name) > _LONGEST_NAME:
        return f"{what} {name!r} has {len(name)} letters, and may have {_LONGEST_NAME}"
    return f"{what} {name!r}: use a-z, 0-9 and _, beginning with a letter"


def wrong_prefix(prefix: str, example: str) -> str | None:
    """Why no keys begin so; None when some may."""
    if any(sign in prefix for sign in "*?["):
        return f"prefix {prefix!r} is how keys begin, letter by letter; a glob over the rest goes into match='*.csv'"
    if not prefix.endswith("/") or prefix.startswith("/") or ".." in prefix.split("/"):
        return f"prefix {prefix!r} must look like {example!r}"
    return None


def wrong_option(said: Mapping[str, Any]) -> str | None:
    """What is wrong with the first of a dataset's fields that cannot be so; None when all may be."""
    return next(_wrong(said), None)


def _wrong(said: Mapping[str, Any]) -> Iterator[str]:
    for what, words in WORDS.items():
        if said[what] not in words:
            yield _not_a_word(what, said[what], words)
    for what, example in _MAPPINGS.items():
        yield from _wrong_mapping(what, said[what], example)
    for what, items in _LISTS.items():
        yield from _wrong_list(what, said[what], items)
    for what in _TEXTS:
        if said[what] is not None and not isinstance(said[what], str):
            yield f"{what} {said[what]!r} must be a text"
    for what in _FLAGS:
        if not isinstance(said[what], bool):
            yield f"{what} {said[what]!r} must be True or False"
    for what, example in _SPANS.items():
        yield from _wrong_span(what, said[what], example)
    for cron in said["cron"]:
        if wrong := wrong_cron(cron):
            yield wrong
    yield from _wrong_number(said)
    if said["transform"] is not None and not callable(said["transform"]):
        yield f"transform {said['transform']!r} must be a function of an object's rows: transform=with_tax"
    yield from _not_of_the_format(said)


def _not_a_word(what: str, found: object, words: tuple[str, ...]) -> str:
    other = _OTHER_NAMES.get(found.lower().lstrip(".")) if what == "format" and isinstance(found, str) else None
    near = f"; did you mean {other!r}?" if other else did_you_mean(found, words)
    return f"{what} {found!r}: use {', '.join(words[:-1])} or {words[-1]}{near}"


def _wrong_mapping(what: str, found: object, example: str) -> Iterator[str]:
    if not isinstance(found, Mapping):
        values = "texts or helpers" if what == "checks" else "texts"
        yield f"{what} must be {values} by name, {what}={example}, not a {type(found).__name__}"
        return
    for name, value in found.items():
        if not isinstance(name, str):
            yield f"{what} {name!r}: its name must be a text: {what}={example}"
        if what == "checks":
            if reason := (value if isinstance(value, Check) else Check(value)).wrong():
                yield f"check {name}: {reason}"
        elif not isinstance(value, str):
            yield f"{what} {name}: {value!r} must be a text: {what}={example}"


def _wrong_list(what: str, found: object, items: str) -> Iterator[str]:
    if isinstance(found, str):
        yield f"{what} is a list of {items}: {what}=[{found!r}]"
    elif not isinstance(found, list | tuple) or not all(isinstance(item, str) for item in found):
        yield f"{what} {found!r} must be a list of {items}, as texts"


def _wrong_span(what: str, found: object, example: str) -> Iterator[str]:
    if found is None and what == "every":
        return
    if not isinstance(found, timedelta):
        yield f"{what} {found!r} must be a timedelta: {what}={example}"
    elif found < timedelta(0) or (what == "every" and not found):
        yield f"{what} {found!r} must be {'more than no time' if what == 'every' else 'no less than no time'}"


def _wrong_number(said: Mapping[str, Any]) -> Iterator[str]:
    threshold, days, attempts = said["threshold"], said["retain_days"], said["max_attempts"]
    if not _is_number(threshold) or not 0 <= threshold <= 1:
        yield f"threshold {threshold!r} is a share, from 0 to 1: threshold=0.9"
    if isinstance(days, timedelta):
        yield f"retain_days is a number of days: retain_days={days / timedelta(days=1):g}"
    elif days is not None and not (_is_number(days) and days > 0):
        yield f"retain_days {days!r} must be more than 0, or None to keep for ever"
    if type(attempts) is not int:
        yield f"max_attempts {attempts!r} must be a whole number"


def _not_of_the_format(said: Mapping[str, Any]) -> Iterator[str]:
    """What another format than the declared one has."""
    declared = said["format"]
    for what, usual, formats in (
        ("csv", Csv(), _CSV),
        ("excel", Excel(), _EXCEL),
        ("records", None, _JSON),
        ("nested", "flatten", _JSON),
    ):
        if said[what] != usual and declared not in ("auto", *formats):
            those = " or ".join(map(repr, formats))
            yield f"{what}= is for format={those}, and says nothing of {declared!r}; leave out one of the two"


def _is_number(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)
