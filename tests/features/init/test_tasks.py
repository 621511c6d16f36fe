"""`inv init` at a real terminal: the questions, invalid answers, and every way to interrupt it."""

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
FILES = {
    *("hosts.yaml", "deploy/services.yaml", "deploy/production.env", "tasks.py", "deploy/.gitignore"),
    *("deploy/schema/hosts.json", "deploy/schema/services.json"),
}


class Session:
    """`inv init` at its own terminal, with its output so far."""

    def __init__(self, directory: Path, *words: str) -> None:
        self.directory, self.output, self._position = directory, "", 0
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            command = [sys.executable, "-m", "invoke", "init", "--directory", str(directory), *words]
            os.execv(sys.executable, command)  # noqa: S606 - the test's own Python

    def until(self, words: str) -> str:
        """Wait for these words, and return the output since the last call."""
        deadline, start = time.monotonic() + SECONDS, self._position
        while (at := self.output.find(words, start)) < 0:
            assert time.monotonic() < deadline, self.output
            assert self._read(), f"it exited: {self.output}"
        self._position = at + len(words)
        return self.output[start : self._position]

    def _read(self) -> bool:
        """Read the next output; return whether there was any before the end."""
        assert select.select([self._terminal], [], [], SECONDS)[0], self.output
        try:
            piece = os.read(self._terminal, 65536)
        except OSError:
            return False
        self.output += piece.decode(errors="replace")
        return bool(piece)

    def type(self, text: str | bytes) -> None:
        os.write(self._terminal, text.encode() if isinstance(text, str) else text)

    def answer(self, question: str, text: str = "") -> None:
        """Wait for a question and answer it."""
        self.until(question)
        self.type(f"{text}\n")

    def end(self) -> int:
        """Wait for the end and return the exit code."""
        while self._read():
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(status)

    @property
    def written(self) -> set[str]:
        return {str(path.relative_to(self.directory)) for path in self.directory.rglob("*") if path.is_file()}


def answer_up_to_the_hosts(session: Session) -> None:
    session.answer("Name of the application:", "shop")
    session.answer("Domain of the site:", "shop.example.org")
    session.answer("Name of the environment [production]:")
    session.answer("Name of the first service [web]:", "api")
    session.answer("Image of api", "reg.example.org/shop/api:v1")
    session.answer("Port on which the process in api listens [8080]:", "8000")
    session.answer("Name of the next service", "web")
    session.answer("Image of web", "reg.example.org/shop/web")
    session.answer("Port on which the process in web listens [8080]:")
    session.answer("Name of the next service")
    session.answer("Path of api that answers 2xx when it is healthy [/health]:", "/api/health")
    session.answer("Paths of the site routed to api, separated by commas, or none [/api/]:")
    session.answer("Path of web that answers 2xx when it is healthy [/health]:")
    session.answer("Paths of the site routed to web, separated by commas, or none [/]:", "/, /ws")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    started = Session(tmp_path)
    yield started
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(started.pid, signal.SIGKILL)
        os.waitpid(started.pid, 0)


def test_init_answered_questions_are_shown_and_written(session: Session) -> None:
    answer_up_to_the_hosts(session)
    session.answer("First host", "web1=192.0.2.11")
    session.answer("Next host", "web2=192.0.2.12")
    session.answer("Next host")
    session.answer("Login name on the hosts, owner of the containers [deploy]:", "ann")
    session.answer("Certificate:", "acme")
    session.answer("Contact address", "ann@example.org")
    shown = session.until("Write these files? [y/N]")
    assert all(f"--- {session.directory}/{name} (" in shown for name in FILES)
    assert session.written == set()
    session.type("y\n")

    assert (session.end(), session.written) == (0, FILES)
    assert "inv deploy --env production --dry-run" in session.output
    found = config.load("production", root=session.directory, strict=True)
    app = found.targets[0].application
    assert (app.name, app.domain, [target.user for target in found.targets]) == (
        "shop",
        "shop.example.org",
        ["ann", "ann"],
    )
    assert [(service.name, service.container_port, service.gate.path) for service in app.services] == [
        ("api", 8000, "/api/health"),
        ("web", 8080, "/health"),
    ]
    assert [[route.prefix for route in service.routes] for service in app.services] == [["/api/"], ["/", "/ws"]]
    assert (found.preparation.certificate.value, found.preparation.acme_email) == ("acme", "ann@example.org")


def test_init_invalid_answer_repeats_the_question(session: Session) -> None:
    for bad in ("My Shop", "", "資料", "$(reboot)", "a'b"):
        session.answer("Name of the application:", bad)
        session.until("expected a lower-case letter")
    session.until("Name of the application:")
    session.type(b"\xff\xfe\n")
    session.until("expected a lower-case letter")
    session.answer("Name of the application:", "  shop  ")
    session.answer("Domain of the site:", "http://shop")
    session.until("expected a domain name")
    session.answer("Domain of the site:", "shop.test")
    session.answer("Name of the environment [production]:")
    session.answer("Name of the first service [web]:")
    session.answer("Image of web", "No Image")
    session.until("expected an image reference")
    session.answer("Image of web", "r.test/web")
    session.answer("listens [8080]:", "0")
    session.until("expected a port")
    session.answer("listens [8080]:")
    session.answer("Name of the next service", "web")
    session.until("web is a service already")
    session.answer("Name of the next service")
    session.answer("when it is healthy [/health]:", "health")
    session.until("expected a path")
    session.answer("when it is healthy [/health]:")
    session.answer("or none [/]:", "none")
    session.answer("First host", "web1")
    session.answer("Next host", "web1")
    session.until("web1=web1 is a host already")
    session.answer("Next host")
    session.answer("owner of the containers [deploy]:")
    session.answer("Certificate:")
    session.answer("Write these files? [y/N]", "yes")

    assert (session.end(), session.written) == (0, FILES)
    assert config.load("production", root=session.directory, strict=True).targets[0].address == "web1"


def test_init_asks_only_for_missing_options(tmp_path: Path) -> None:
    words = ["--app", "shop", "--service", "web=r.test/web:80", "--host", "web1", "--health", "web=/", "--user", "ann"]
    session = Session(tmp_path, *words, "--env", "yes")
    session.answer("Domain of the site:", "shop.test")
    session.answer("routed to web, separated by commas, or none [/]:")
    session.answer("Certificate:", "self-signed")
    session.answer("[y/N]", "y")

    assert (session.end(), session.written) == (0, FILES - {"deploy/production.env"} | {"deploy/yes.env"})
    assert session.output.count("]:") == 2


@pytest.mark.parametrize("how", ["^C", "^D", "SIGTERM", "hang up"])
@pytest.mark.parametrize("late", [False, True])
def test_init_interrupted_writes_nothing(tmp_path: Path, how: str, late: bool) -> None:
    words = ["--domain", "a.test", "--service", "web=r.test/web:80", "--host", "web1"] if late else []
    session = Session(tmp_path, *words, *(["--app", "shop", "--env", "x", "--user", "ann"] if late else []))
    if late:
        session.answer("healthy [/health]:")
        session.answer("or none [/]:")
        session.answer("Certificate:")
        session.until("Write these files? [y/N]")
    else:
        session.answer("Name of the application:", "shop")
        session.until("Domain of the site:")
    if how == "SIGTERM":
        os.kill(session.pid, signal.SIGTERM)
    elif how == "hang up":
        os.kill(session.pid, signal.SIGHUP)
    else:
        session.type({"^C": b"\x03", "^D": b"\x04"}[how])

    assert (session.end(), session.written) == (130, set()), session.output
    assert "nothing was" in session.output


def test_init_declined_confirmation_writes_nothing(tmp_path: Path) -> None:
    words = ["--app", "shop", "--domain", "a.test", "--service", "web=r.test/web:80", "--host", "web1", "--env", "x"]
    session = Session(
        tmp_path, *words, "--user", "ann", "--health", "web=/", "--route", "web=/", "--certificate", "none"
    )
    session.answer("Write these files? [y/N]", "no")

    assert (session.end(), session.written) == (130, set())


def test_init_yes_at_a_terminal_asks_nothing(tmp_path: Path) -> None:
    words = ["--app", "shop", "--domain", "a.test", "--service", "web=r.test/web:80", "--host", "web1", "--yes"]
    session = Session(tmp_path, *words)

    assert (session.end(), session.written) == (0, FILES)
    assert "[y/N]" not in session.output


def test_init_existing_files_are_refused_before_the_first_question(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text("mine")
    session = Session(tmp_path)

    assert (session.end(), session.written) == (2, {"hosts.yaml"})
    assert "has hosts.yaml already" in session.output
    assert "Name of the application" not in session.output


def test_init_existing_env_file_is_refused_once_the_environment_has_a_name(session: Session) -> None:
    (session.directory / "deploy").mkdir()
    (session.directory / "deploy/staging.env").write_text("mine")
    session.answer("Name of the application:", "shop")
    session.answer("Domain of the site:", "shop.test")
    session.answer("Name of the environment [production]:", "staging")

    assert (session.end(), session.written) == (2, {"deploy/staging.env"})
    assert "has deploy/staging.env already" in session.output


def test_init_without_a_terminal_lists_the_missing_options(tmp_path: Path) -> None:
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
