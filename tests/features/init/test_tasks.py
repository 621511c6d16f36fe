"""`inv init` at a real terminal: the questions, bad answers asked again, and every way to stop in the middle."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rolling_upgrade import config

ROOT = Path(__file__).parents[3]
SECONDS = 60
FILES = {"hosts.yaml", "deploy/services.yaml", "deploy/production.env", "tasks.py", "deploy/.gitignore"}


class Person:
    """`inv init` at a terminal of its own, and what it said so far."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder, self.said, self._heard = folder, "", 0
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            command = [sys.executable, "-m", "invoke", "init", "--directory", str(folder), *words]
            os.execv(sys.executable, command)  # noqa: S606 - the test's own Python

    def until(self, words: str) -> str:
        """What is said up to these words, from where the last call found its own."""
        deadline, start = time.monotonic() + SECONDS, self._heard
        while (at := self.said.find(words, start)) < 0:
            assert time.monotonic() < deadline, self.said
            assert self._read(), f"it ended: {self.said}"
        self._heard = at + len(words)
        return self.said[start : self._heard]

    def _read(self) -> bool:
        """Hear what comes next; whether anything came before the end."""
        assert select.select([self._terminal], [], [], SECONDS)[0], self.said
        try:
            piece = os.read(self._terminal, 65536)
        except OSError:
            return False
        self.said += piece.decode(errors="replace")
        return bool(piece)

    def type(self, text: str | bytes) -> None:
        os.write(self._terminal, text.encode() if isinstance(text, str) else text)

    def answer(self, question: str, text: str = "") -> None:
        """Wait for a question and answer it."""
        self.until(question)
        self.type(f"{text}\n")

    def end(self) -> int:
        """Wait for the end; the exit code."""
        while self._read():
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(status)

    @property
    def written(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}


def up_to_the_hosts(person: Person) -> None:
    person.answer("Name of the application:", "shop")
    person.answer("Domain of the site:", "shop.example.org")
    person.answer("Name of the environment [production]:")
    person.answer("Name of the first service [web]:", "api")
    person.answer("Image of api", "reg.example.org/shop/api:v1")
    person.answer("Port on which the process in api listens [8080]:", "8000")
    person.answer("Name of the next service", "web")
    person.answer("Image of web", "reg.example.org/shop/web")
    person.answer("Port on which the process in web listens [8080]:")
    person.answer("Name of the next service")
    person.answer("Path of api that answers 2xx when it is well [/health]:", "/api/health")
    person.answer("Paths of the site that go to api, separated by commas, or none [/api/]:")
    person.answer("Path of web that answers 2xx when it is well [/health]:")
    person.answer("Paths of the site that go to web, separated by commas, or none [/]:", "/, /ws")


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    started = Person(tmp_path)
    yield started
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(started.pid, signal.SIGKILL)
        os.waitpid(started.pid, 0)


def test_init_asks_everything_shows_it_and_writes_it(person: Person) -> None:
    up_to_the_hosts(person)
    person.answer("First host", "web1=192.0.2.11")
    person.answer("Next host", "web2=192.0.2.12")
    person.answer("Next host")
    person.answer("Login name on the hosts, owns the containers [deploy]:", "ann")
    person.answer("Certificate:", "acme")
    person.answer("Mail address", "ann@example.org")
    shown = person.until("Write these files? [y/N]")
    assert all(f"--- {person.folder}/{name} (new)" in shown for name in FILES)
    assert person.written == set()
    person.type("y\n")

    assert (person.end(), person.written) == (0, FILES)
    assert "inv deploy --env production --dry-run" in person.said
    found = config.load("production", root=person.folder, strict=True)
    app = found.targets[0].application
    assert (app.name, app.domain, [one.user for one in found.targets]) == ("shop", "shop.example.org", ["ann", "ann"])
    assert [(one.name, one.container_port, one.gate.path) for one in app.services] == [
        ("api", 8000, "/api/health"),
        ("web", 8080, "/health"),
    ]
    assert [[route.prefix for route in one.routes] for one in app.services] == [["/api/"], ["/", "/ws"]]
    assert (found.preparation.certificate.value, found.preparation.acme_email) == ("acme", "ann@example.org")


def test_init_bad_answer_is_told_and_the_question_asked_again(person: Person) -> None:
    for bad in ("My Shop", "", "資料", "$(reboot)", "a'b"):
        person.answer("Name of the application:", bad)
        person.until("expected a lower-case letter")
    person.until("Name of the application:")
    person.type(b"\xff\xfe\n")
    person.until("expected a lower-case letter")
    person.answer("Name of the application:", "  shop  ")
    person.answer("Domain of the site:", "http://shop")
    person.until("expected a domain name")
    person.answer("Domain of the site:", "shop.test")
    person.answer("Name of the environment [production]:")
    person.answer("Name of the first service [web]:")
    person.answer("Image of web", "No Image")
    person.until("expected an image reference")
    person.answer("Image of web", "r.test/web")
    person.answer("listens [8080]:", "0")
    person.until("expected a port")
    person.answer("listens [8080]:")
    person.answer("Name of the next service", "web")
    person.until("web is a service already")
    person.answer("Name of the next service")
    person.answer("when it is well [/health]:", "health")
    person.until("expected a path")
    person.answer("when it is well [/health]:")
    person.answer("or none [/]:", "none")
    person.answer("First host", "web1")
    person.answer("Next host", "web1")
    person.until("web1=web1 is a host already")
    person.answer("Next host")
    person.answer("owns the containers [deploy]:")
    person.answer("Certificate:")
    person.answer("Write these files? [y/N]", "yes")

    assert (person.end(), person.written) == (0, FILES)
    assert config.load("production", root=person.folder, strict=True).targets[0].address == "web1"


def test_init_asks_only_what_no_option_says(tmp_path: Path) -> None:
    words = ["--app", "shop", "--service", "web=r.test/web:80", "--host", "web1", "--health", "web=/", "--user", "ann"]
    person = Person(tmp_path, *words, "--env", "yes")
    person.answer("Domain of the site:", "shop.test")
    person.answer("go to web, separated by commas, or none [/]:")
    person.answer("Certificate:", "self-signed")
    person.answer("[y/N]", "y")

    assert (person.end(), person.written) == (0, FILES - {"deploy/production.env"} | {"deploy/yes.env"})
    assert person.said.count("]:") == 2


@pytest.mark.parametrize("how", ["^C", "^D", "SIGTERM", "hang up"])
@pytest.mark.parametrize("late", [False, True])
def test_init_stopped_in_the_middle_writes_nothing(tmp_path: Path, how: str, late: bool) -> None:
    words = ["--domain", "a.test", "--service", "web=r.test/web:80", "--host", "web1"] if late else []
    person = Person(tmp_path, *words, *(["--app", "shop", "--env", "x", "--user", "ann"] if late else []))
    if late:
        person.answer("well [/health]:")
        person.answer("or none [/]:")
        person.answer("Certificate:")
        person.until("Write these files? [y/N]")
    else:
        person.answer("Name of the application:", "shop")
        person.until("Domain of the site:")
    if how == "SIGTERM":
        os.kill(person.pid, signal.SIGTERM)
    elif how == "hang up":
        os.kill(person.pid, signal.SIGHUP)
    else:
        person.type({"^C": b"\x03", "^D": b"\x04"}[how])

    assert (person.end(), person.written) == (130, set()), person.said
    assert "nothing was" in person.said


def test_init_no_at_the_end_writes_nothing(tmp_path: Path) -> None:
    words = ["--app", "shop", "--domain", "a.test", "--service", "web=r.test/web:80", "--host", "web1", "--env", "x"]
    person = Person(tmp_path, *words, "--user", "ann", "--health", "web=/", "--route", "web=/", "--certificate", "none")
    person.answer("Write these files? [y/N]", "no")

    assert (person.end(), person.written) == (130, set())


def test_init_yes_asks_nothing_at_a_terminal(tmp_path: Path) -> None:
    words = ["--app", "shop", "--domain", "a.test", "--service", "web=r.test/web:80", "--host", "web1", "--yes"]
    person = Person(tmp_path, *words)

    assert (person.end(), person.written) == (0, FILES)
    assert "[y/N]" not in person.said


def test_init_files_that_are_there_are_told_before_the_first_question(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text("mine")
    person = Person(tmp_path)

    assert (person.end(), person.written) == (2, {"hosts.yaml"})
    assert "has hosts.yaml already" in person.said
    assert "Name of the application" not in person.said


def test_init_env_file_that_is_there_is_told_once_the_environment_has_a_name(person: Person) -> None:
    (person.folder / "deploy").mkdir()
    (person.folder / "deploy/staging.env").write_text("mine")
    person.answer("Name of the application:", "shop")
    person.answer("Domain of the site:", "shop.test")
    person.answer("Name of the environment [production]:", "staging")

    assert (person.end(), person.written) == (2, {"deploy/staging.env"})
    assert "has deploy/staging.env already" in person.said


def test_init_without_a_terminal_lists_the_options_and_ends_with_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "init", "--directory", tmp_path, "--app", "shop"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert [
        option for option in ("--app", "--domain", "--service", "--host") if f"{option} is required" in done.stderr
    ] == [
        "--domain",
        "--service",
        "--host",
    ]
