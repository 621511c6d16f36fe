"""Cron schedules as systemd calendar expressions, and invalid schedules."""

from __future__ import annotations

import pytest

from rolling_upgrade.config.resolution import parse_database_url
from rolling_upgrade.config.schedule import on_calendar
from rolling_upgrade.engine.model import DatabaseServer


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 2 * * *", ("*-*-* 02:00:00",)),
        ("@hourly", ("*-*-* *:00:00",)),
        ("@weekly", ("Sun *-*-* 00:00:00",)),
        ("@monthly", ("*-*-01 00:00:00",)),
        ("*/20 8-10 * * mon-fri", ("Mon,Tue,Wed,Thu,Fri *-*-* 08,09,10:00,20,40:00",)),
        ("5/20 * * * *", ("*-*-* *:05,25,45:00",)),
        ("0 3 * * 5-7", ("Sun,Fri,Sat *-*-* 03:00:00",)),
        ("0 3 * * Fri-Sun", ("Sun,Fri,Sat *-*-* 03:00:00",)),
        ("0 3 * * */2", ("Sun,Tue,Thu,Sat *-*-* 03:00:00",)),
        ("0 0 29 feb *", ("*-02-29 00:00:00",)),
        ("30 4 1,15 * 5", ("*-*-01,15 04:30:00", "Fri *-*-* 04:30:00")),
    ],
)
def test_on_calendar_matches_the_times_of_cron(cron: str, expected: tuple[str, ...]) -> None:
    assert on_calendar(cron) == expected


@pytest.mark.parametrize(
    ("cron", "error"),
    [
        ("0 2 * *", "five cron fields"),
        ("60 2 * * *", "minute: '60' is not between 0 and 59"),
        ("0 24 * * *", "hour"),
        ("0 0 0 * *", "day of the month"),
        ("0 0 30 2 *", "that month has no day 30"),
        ("0 5-1 * * *", "hour: '5-1' matches nothing"),
        ("*/0 * * * *", "matches nothing"),
        ("*-5 * * * *", "minute"),
        ("0 0 * mon *", "month: 'mon'"),
        ("@reboot", "five cron fields"),
    ],
)
def test_on_calendar_invalid_schedule_raises_with_its_field(cron: str, error: str) -> None:
    with pytest.raises(ValueError, match=error.replace("*", "\\*")):
        on_calendar(cron)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://ark:s3cret@db.test:5433/ark", DatabaseServer("postgresql://ark@db.test:5433/ark", "s3cret")),
        (
            "postgres://a%40b:p%3Aw%25@db/ark?sslmode=require&pool_size=3",
            DatabaseServer("postgresql://a%40b@db/ark?sslmode=require", "p:w%"),
        ),
        ("postgresql+asyncpg://ark@db/ark?password=x", DatabaseServer("postgresql://ark@db/ark", "x")),
        ("postgresql://ark@host.containers.internal/ark", DatabaseServer("postgresql://ark@127.0.0.1/ark")),
        ("postgresql:///ark?host=/run/postgresql", DatabaseServer("postgresql:///ark?host=%2Frun%2Fpostgresql")),
        ("postgresql://ark@[::1]/ark", DatabaseServer("postgresql://ark@[::1]/ark")),
    ],
)
def test_database_server_separates_password_and_address(url: str, expected: DatabaseServer) -> None:
    found = parse_database_url(url)

    assert found == expected


@pytest.mark.parametrize("url", ["", "sqlite:////data/ark.db", "mysql://ark:x@db/ark"])
def test_database_server_of_another_kind_is_none(url: str) -> None:
    assert parse_database_url(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ark@db:port/ark",
        "postgresql://ark:a b@db/ark",
        "postgresql://[x/ark",
        "postgresql://ark:%C2%82@db/ark",
    ],
)
def test_database_server_invalid_url_raises(url: str) -> None:
    with pytest.raises(ValueError, match="a URL such as"):
        parse_database_url(url)
