"""What a host prints of its logs, read back; and times as a person types them."""

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
def test_since_length_or_time_is_read(typed: str, expected: Since) -> None:
    assert logs.since(typed) == expected


@pytest.mark.parametrize("typed", ["yesterday", "10", "-5m", "10m; id", "2026-13-01T00:00:00", ""])
def test_since_anything_else_is_refused(typed: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        logs.since(typed)


def test_parse_line_of_a_container_has_its_time_and_its_words() -> None:
    line = logs.parse("web1", "backend\tblue\t2026-11-23T07:08:19.801718524Z GET /\tsaid 200")

    assert (line.host, line.source, line.label, line.text) == ("web1", "backend", "blue", "GET /\tsaid 200")
    assert line.at == pytest.approx(1795417699.8017185)


def test_parse_line_written_in_pieces_is_put_together() -> None:
    said = "2026-11-23T07:08:19.801718524Z starts2026-11-23T07:08:19.802708390Z now"

    assert logs.parse("web1", f"backend\tblue\t{said}").text == "startsnow"


def test_parse_line_that_begins_with_a_time_of_its_own_keeps_it() -> None:
    said = "2026-11-23T07:08:19.8Z 2026-11-23T07:08:19.799999999Z ready"

    assert logs.parse("web1", f"backend\tblue\t{said}").text == "2026-11-23T07:08:19.799999999Z ready"


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
def test_parse_times_of_every_source_are_one(printed: str, at: float) -> None:
    assert logs.parse("web1", printed).at == at


def test_parse_word_of_the_script_is_a_note() -> None:
    assert logs.parse("web1", "backend\tnote\tgreen serves now") == LogLine(
        "web1", "backend", "", "green serves now", note=True
    )
