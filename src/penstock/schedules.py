"""What a schedule may say (cron expressions, recurrence rules, time zones), as Prefect judges. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from penstock.nearest import did_you_mean

# Where a rule says no beginning, Prefect writes one in, counted from here.
_ANCHOR = datetime(2020, 1, 1)  # noqa: DTZ001 - of no time zone
_BEGINNING = re.compile(r"DTSTART:(\d{8}T\d{6})\n(?:RRULE:)?")
_PARTS = (
    *("FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYSETPOS", "BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYEASTER"),
    *("BYWEEKNO", "BYWEEKDAY", "BYDAY", "BYHOUR", "BYMINUTE", "BYSECOND"),
)
_FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")
_LONGEST_RULE = 6500


def wrong_cron(text: object) -> str | None:
    """Why this is no cron expression; None when it is one."""
    if isinstance(text, str) and _croniter().is_valid(text) and not {"r", "h"} & set(text.lower().split()):
        return None
    return f"cron {text!r} is no cron expression: minute, hour, day, month and weekday, such as '0 3 * * *'"


def wrong_rule(text: object) -> str | None:
    """Why this is no recurrence rule; None when it is one."""
    if not isinstance(text, str):
        return f"rrule {text!r} must be a text, such as 'FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=3'"
    if (wrong := _wrong_part(text)) is not None:
        return f"rrule {text!r}: {wrong}"
    if len(text) > _LONGEST_RULE:
        return f"rrule {text[:40]!r}… has {len(text)} letters, and may have {_LONGEST_RULE}"
    try:
        import_module("dateutil.rrule").rrulestr(text)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        return f"rrule {text!r} is no recurrence rule, such as 'FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=3': {error}"
    return None


def wrong_zone(text: object) -> str | None:
    """Why this is no time zone; None when it is one."""
    zones = available_timezones()
    if isinstance(text, str) and text in zones:
        return None
    near = ""
    if isinstance(text, str):
        city = sorted(zone for zone in zones if zone.lower().endswith(f"/{text.lower()}"))
        near = f"; did you mean {city[0]!r}?" if city else did_you_mean(text, sorted(zones))
    return f"timezone {text!r} is no time zone, such as 'Europe/Berlin'{near}"


def shown_rule(rule: str) -> str:
    """A rule without the beginning that Prefect wrote into it, which is a later one whenever it is asked anew.

    A beginning that makes a difference stays.
    """
    beginning = _BEGINNING.match(rule)
    if beginning is None:
        return rule.removeprefix("RRULE:")
    rest = rule[beginning.end() :]
    since = datetime.strptime(beginning[1], "%Y%m%dT%H%M%S") - _ANCHOR  # noqa: DTZ007 - of no time zone
    period = _period(rest)
    return rest if not since or (period and not since % period) else rule


def _period(rule: str) -> timedelta | None:
    """How long it is from one time of a rule to the next, for those of which Prefect moves the beginning."""
    parts = dict(part.partition("=")[::2] for part in rule.upper().split(";"))
    unit = {"SECONDLY": timedelta(seconds=1), "MINUTELY": timedelta(minutes=1)}.get(parts.get("FREQ", ""))
    return None if unit is None or "COUNT" in parts else unit * int(parts.get("INTERVAL", 1))


def _wrong_part(text: str) -> str | None:
    begins = "DTSTART" in text.upper()
    for line in text.split("\n"):
        head, colon, rule = line.rpartition(":")
        if colon and head.upper() not in ("RRULE", "EXRULE"):
            continue
        for part in rule.split(";"):
            name, equals, value = part.partition("=")
            if not equals:
                return f"{part!r} is not like NAME=VALUE, such as 'FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=3'"
            if name.upper() not in _PARTS:
                return f"there is no {name}{did_you_mean(name, _PARTS, shown='{}')}"
            if name.upper() == "INTERVAL" and not (value.isdecimal() and int(value)):
                return f"INTERVAL is a number from 1 on, not {value}"
            if not begins and (wrong := _wrong_without_beginning(name.upper(), value.upper())):
                return f"{part} {wrong}"
            if name.upper() == "FREQ" and value.upper() not in _FREQUENCIES:
                near = did_you_mean(value, _FREQUENCIES, shown="{}")
                return f"FREQ is one of {', '.join(_FREQUENCIES)}, not {value}{near}"
    return None


def _wrong_without_beginning(name: str, value: str) -> str | None:
    # Prefect has such a rule begin in 2020, in the schedule's time zone: it would never run, and nobody would say so.
    if name == "COUNT":
        return "counts from a beginning: say it in a line before, DTSTART:20260301T030000, and then RRULE:…"
    if name == "UNTIL" and value.endswith("Z"):
        return "has another time zone than a rule without DTSTART: leave out the Z"
    return None


@cache
def _croniter() -> Any:
    """Prefect's own, without Prefect, whose import takes more than a second."""
    prefect = find_spec("prefect")
    assert prefect is not None
    assert prefect.submodule_search_locations
    path = Path(prefect.submodule_search_locations[0]) / "_vendor" / "croniter" / "croniter.py"
    spec = spec_from_file_location("_penstock_croniter", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.croniter
