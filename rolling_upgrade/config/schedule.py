"""Convert cron schedules to systemd's OnCalendar expressions."""

from __future__ import annotations

import re

EXPECTED = "five cron fields such as 0 2 * * *, or @daily"

_SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
_WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NAMES = {
    "month": {name.lower(): number for number, name in enumerate(_MONTHS, 1)},
    "day of the week": {name.lower(): number for number, name in enumerate(_WEEKDAYS)},
}
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def on_calendar(text: str) -> tuple[str, ...]:
    """Return the calendar expressions of a cron schedule. Raises ValueError that names the invalid field.

    When both day fields are restricted, cron runs on either day and one expression would require both: return two.
    Source: crontab(5); systemd.time(7), CALENDAR EVENTS; several OnCalendar= lines of a timer add up.
    """
    fields = _SHORTHANDS.get(text.strip().lower(), text).split()
    if len(fields) != len(_FIELDS):
        raise ValueError(EXPECTED)
    minutes, hours, days, months, weekdays = (
        _values(field, *bounds) for field, bounds in zip(fields, _FIELDS, strict=True)
    )
    _check_day_exists(days, months, restricted_weekdays=not fields[4].startswith("*"))
    time = f"{_listed(hours, 24)}:{_listed(minutes, 60)}:00"
    every_month, every_day = _listed(months, 12), _listed(days, 31)
    week = {day % 7 for day in weekdays}
    by_week = f"{','.join(_WEEKDAYS[day] for day in sorted(week))} " if len(week) < 7 else ""
    if fields[2].startswith("*") or fields[4].startswith("*"):
        return (f"{by_week}*-{every_month}-{every_day} {time}",)
    return f"*-{every_month}-{every_day} {time}", f"{by_week}*-{every_month}-* {time}"


def _check_day_exists(days: set[int], months: set[int], *, restricted_weekdays: bool) -> None:
    if not restricted_weekdays and all(min(days) > _LONGEST_MONTH[month - 1] for month in months):
        raise ValueError(f"{EXPECTED}; that month has no day {min(days)}")


def _values(field: str, what: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for part in field.split(","):
        match = re.fullmatch(r"(\*|\w{1,3})(?:-(\w{1,3}))?(?:/([0-9]{1,2}))?", part)
        if match is None or (match[1] == "*" and match[2]):
            raise ValueError(f"{EXPECTED}; {what}: {part!r} is not *, a value, a range or a list")
        first = low if match[1] == "*" else _number(match[1], what, low, high)
        last = _last(match, first, what, low, high)
        step = int(match[3] or 1)
        if step == 0 or last < first:
            raise ValueError(f"{EXPECTED}; {what}: {part!r} matches nothing")
        values.update(range(first, last + 1, step))
    return values


def _last(match: re.Match[str], first: int, what: str, low: int, high: int) -> int:
    """Return the end of a range; `*` and a value with a step extend to the end of the field."""
    if match[2]:
        last = _number(match[2], what, low, high)
        return 7 if what == "day of the week" and last == 0 and first > 0 else last
    if match[1] == "*":
        return 6 if what == "day of the week" else high
    return high if match[3] else first


def _number(text: str, what: str, low: int, high: int) -> int:
    number = _NAMES.get(what, {}).get(text.lower(), -1)
    if re.fullmatch(r"[0-9]{1,2}", text):
        number = int(text)
    if not low <= number <= high:
        raise ValueError(f"{EXPECTED}; {what}: {text!r} is not between {low} and {high}")
    return number


def _listed(values: set[int], total: int) -> str:
    return "*" if len(values) == total else ",".join(f"{value:02}" for value in sorted(values))
