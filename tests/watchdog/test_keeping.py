"""The watchdog's own files: what it was given, what it remembers, and what the history says runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fabfile.commands import definition, record
from fabfile.errors import ConfigError
from fabfile.model import Application, Channels, Hook, Mail, Outcome, Release, Rollout, Severity, Thresholds, Transfer
from fabfile.model.watch import Memory, Pulse, WatchRules
from fabfile.watchdog import keeping
from fabfile.watchdog.keeping import Settings
from tests.commands.sample import application
from tests.commands.test_record import RELEASE

SETTINGS = Settings(
    "shop",
    "web1",
    "production",
    WatchRules(False, 1.5, 2, 1, 60, 0),
    Rollout("25%", 2, 1.5, transfer=Transfer.PUSH),
    Thresholds(free_percent=5.0),
    Channels(Hook("https://hooks.test/s3cret", Severity.WARNING), Mail("mx", "a@b.c", ("d@e.f",), password="p")),
)
MEMORY = Memory((Pulse("backend", 2, 1, 0, 1), Pulse("前端")), (12.5, 99.0), "r1", True, 7.25)
#: What is in a file after a crash, a full disk or a person.
DAMAGED = (b"", b"{", b"[]", b"null", b"7", b'"text"', b"\0" * 200, b"\xff\xfe", b'{"boot": 1}', b'{"memory": []}')


@pytest.fixture
def app(tmp_path: Path) -> Application:
    """An application whose directory is the test's own."""
    found = application(name=f"../..{tmp_path}/home")
    for name in ("watchdog", "config"):
        (Path(found.home) / name).mkdir(parents=True)
    return found


@pytest.fixture
def home(app: Application) -> Path:
    return Path(app.home)


def write(home: Path, *releases: Release) -> None:
    """The history as the host has it."""
    text = "".join(f"{record.line(one)}\n" for one in releases)
    Path(record.history_file(str(home))).write_text(text, encoding="utf-8")


def define(home: Path, app: Application, *releases: str) -> None:
    """Definitions of these releases; each has its own domain, to be told apart."""
    for one in releases:
        text = definition.dump(replace(app, domain=f"{one}.test"))
        Path(definition.file(str(home), one)).write_text(text, encoding="utf-8")


def test_load_gives_back_what_was_dumped(home: Path) -> None:
    (home / "watchdog/settings.json").write_text(keeping.dump(SETTINGS), encoding="utf-8")

    assert keeping.load(home) == SETTINGS


def test_load_passes_over_what_a_later_version_added(home: Path) -> None:
    later = json.loads(keeping.dump(SETTINGS)) | {"colour": "blue"}
    (home / "watchdog/settings.json").write_text(json.dumps(later), encoding="utf-8")

    assert keeping.load(home) == SETTINGS


@pytest.mark.parametrize("content", [None, *DAMAGED, b'{"app": "shop"}', b'{"app": 1, "host": "w"}'])
def test_load_without_sensible_settings_names_the_file_and_what_to_do(content: bytes | None, home: Path) -> None:
    if content is not None:
        (home / "watchdog/settings.json").write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        keeping.load(home)

    assert str(home / "watchdog/settings.json") in str(caught.value)
    assert caught.value.next_step == "inv monitor.install"


def test_recall_gives_back_what_was_remembered_last(home: Path) -> None:
    keeping.remember(home, Memory())
    keeping.remember(home, MEMORY)

    assert keeping.recall(home) == MEMORY
    assert [path.name for path in (home / "watchdog").iterdir()] == ["memory.json"]


@pytest.mark.parametrize("content", [None, *DAMAGED])
def test_recall_without_a_sensible_memory_begins_anew(content: bytes | None, home: Path) -> None:
    if content is not None:
        (home / "watchdog/memory.json").write_bytes(content)

    assert keeping.recall(home) == Memory()


def test_recall_of_another_boot_is_nothing(home: Path) -> None:
    """Its times are on a clock that began again."""
    keeping.remember(home, MEMORY)
    path = home / "watchdog/memory.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "another"}), encoding="utf-8")

    assert keeping.recall(home) == Memory()


def test_remember_that_cannot_be_written_leaves_the_memory_as_it_was(home: Path) -> None:
    keeping.remember(home, MEMORY)
    (home / "watchdog/memory.new").mkdir()

    keeping.remember(home, Memory())

    assert keeping.recall(home) == MEMORY


def test_history_before_the_first_deploy_is_empty(home: Path) -> None:
    assert keeping.history(home) == ()
    assert keeping.running(home, ()) is None


def test_history_leaves_out_what_is_no_line_of_it(home: Path) -> None:
    write(home, RELEASE)
    with Path(record.history_file(str(home))).open("ab") as file:
        file.write(b'\xff\xfe\n{}\n[]\nnull\n{"id": "half')

    assert keeping.history(home) == (RELEASE,)


def test_history_that_grew_for_years_is_read_from_its_end(home: Path) -> None:
    write(home, *(replace(RELEASE, id=f"r{number}", reason="x" * 500) for number in range(2000)))

    found = keeping.history(home)

    assert 100 < len(found) < 1000
    assert found[-1].id == "r1999"
    assert [one.id for one in found] == [f"r{number}" for number in range(2000 - len(found), 2000)]


def line(action: str, id: str, outcome: Outcome = Outcome.GOOD, target: str = "") -> Release:
    return replace(RELEASE, action=action, id=id, outcome=outcome, target=target)


DEPLOYS = (line("deploy", "r1"), line("deploy", "r2"))


@pytest.mark.parametrize(
    ("more", "release", "made_of"),
    [
        ((), "r2", "r2"),
        ((line("deploy", "r3", Outcome.UNDONE),), "r2", "r2"),
        ((line("deploy", "r3", Outcome.UNDO_FAILED),), "r2", "r2"),
        ((line("rollback", "b1", target="r1"),), "b1", "r1"),
        ((line("rollback", "b1", Outcome.UNDONE, "r1"),), "r2", "r2"),
        ((line("rollback", "b1", target="r1"), line("rollback", "b2", target="r2")), "b2", "r2"),
        ((line("rollback", "b1", target="r1"), line("deploy", "r3")), "r3", "r3"),
        ((line("recovery", "x1"), line("recovery", "x2", Outcome.UNDONE)), "r2", "r2"),
        ((line("rollback", "b1", target="r1"), line("recovery", "x1")), "b1", "r1"),
        ((line("restore", "x1", target="backup"),), "r2", "r2"),
        ((line("something new", "x1"),), "r2", "r2"),
    ],
)
def test_running_is_what_the_last_good_deploy_or_rollback_brought(
    more: tuple[Release, ...], release: str, made_of: str, home: Path, app: Application
) -> None:
    define(home, app, "r1", "r2", "r3")
    write(home, *DEPLOYS, *more)

    found = keeping.running(home, keeping.history(home))

    assert found is not None
    assert (found[0].id, found[1].domain) == (release, f"{made_of}.test")


@pytest.mark.parametrize("content", [None, *DAMAGED])
def test_running_release_whose_definition_is_gone_is_unknown_and_no_other_is_taken_for_it(
    content: bytes | None, home: Path, app: Application
) -> None:
    define(home, app, "r1")
    write(home, *DEPLOYS)
    if content is not None:
        Path(definition.file(str(home), "r2")).write_bytes(content)

    assert keeping.running(home, keeping.history(home)) is None


def test_defined_of_another_application_is_none(home: Path, app: Application) -> None:
    define(home, application(), "r1")

    assert keeping.defined(home, "r1") is None


def test_say_gives_each_line_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    keeping.say("one\ntwo")

    rows = capsys.readouterr().out.splitlines()
    assert [row[19:] for row in rows] == [" one", " two"]
