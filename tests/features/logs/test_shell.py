"""Parsing of log lines of each source, and of the --since option."""

from __future__ import annotations

import pytest

from rolling_upgrade.features.logs import shell as logs
from rolling_upgrade.features.logs.shell import LogLine, Since


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("90s", Since(90)),
        ("10m", Since(600)),
        ("1d", Since(86_400)),
        ("2026-11-23T07:00:00Z", Since(moment="2026-11-23T07:00:00Z")),
        ("2026-11-23T09:30:00+02:00", Since(moment="2026-11-23T07:30:00Z")),
    ],
)
def test_since_parses_a_duration_or_a_time(typed: str, expected: Since) -> None:
    assert logs.since(typed) == expected


@pytest.mark.parametrize("typed", ["yesterday", "10", "-5m", "10m; id", "2026-13-01T00:00:00", ""])
def test_since_rejects_other_text(typed: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        logs.since(typed)


def test_parse_container_line_has_time_and_text() -> None:
    line = logs.parse("web1", "backend\tblue\t2026-11-23T07:08:19.801718524Z GET /\tsaid 200")

    assert (line.host, line.source, line.label, line.text) == ("web1", "backend", "blue", "GET /\tsaid 200")
    assert line.at == pytest.approx(1795417699.8017185)


def test_parse_line_in_pieces_is_joined() -> None:
    text = "2026-11-23T07:08:19.801718524Z starts2026-11-23T07:08:19.802708390Z now"

    assert logs.parse("web1", f"backend\tblue\t{text}").text == "startsnow"


def test_parse_line_that_starts_with_a_time_keeps_it() -> None:
    text = "2026-11-23T07:08:19.8Z 2026-11-23T07:08:19.799999999Z ready"

    assert logs.parse("web1", f"backend\tblue\t{text}").text == "2026-11-23T07:08:19.799999999Z ready"


@pytest.mark.parametrize(
    ("printed", "at"),
    [
        ("nginx\terror+0200\t2026/11/23 09:08:19 [error] 7#7: upstream", 1795417699),
        ('nginx\taccess+0000\t10.0.0.1 - - [23/Nov/2026:07:08:19 +0000] "GET / HTTP/1.1" 200', 1795417699),
        ("units\tjournal\t2026-11-23T07:08:19.000000+0000 web1 boot[7]: started", 1795417699),
        ("nginx\taccess+0000\tno time in it", 0),
        ("nginx\terror+0000\t2026/99/99 09:08:19 nonsense", 0),
        ("backend\tblue\tError: no such container", 0),
    ],
)
def test_parse_time_of_every_source(printed: str, at: float) -> None:
    assert logs.parse("web1", printed).at == at


def test_parse_message_of_the_script_is_a_note() -> None:
    assert logs.parse("web1", "backend\tnote\tgreen serves now") == LogLine(
        "web1", "backend", "", "green serves now", note=True
    )
