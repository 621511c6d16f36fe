"""Ask the questions of `inv init` on a terminal; an invalid answer repeats its question."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from rolling_upgrade.config import validators
from rolling_upgrade.config.issues import shown
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.errors import Interrupted
from rolling_upgrade.features.init.answers import HEALTH, QUESTIONS, Answers, Question, read_image

T = TypeVar("T")


def ask_missing(answers: Answers, check_files: Callable[[], object]) -> None:
    """Ask for every answer that no option gave. Raises Interrupted when the input ends.

    Calls `check_files` before the first question, and again once the environment has a name.
    """
    check_files()
    print_lines(["Enter accepts the default in brackets. Ctrl-C quits; nothing is written."], sys.stderr)
    *first, user, certificate, email = QUESTIONS
    for question in first:
        _ask_for(question, answers)
    check_files()
    _ask_for_services(answers)
    _ask_for_hosts(answers)
    _ask_for(user, answers)
    _ask_for(certificate, answers)
    if answers.values["certificate"] == "acme":
        _ask_for(email, answers)


def _ask_for(question: Question, answers: Answers) -> None:
    if question.name not in answers.values:
        answers.values[question.name] = _ask(question.text, question.default, question.validator)


def _ask_for_services(answers: Answers) -> None:
    if not answers.services:
        print_lines(["", "The services, in upgrade order: a service comes before those that call it."], sys.stderr)
        name = _ask("Name of the first service", "web", answers.service_name)
        while name:
            image = _ask(f"Image of {name}, such as registry.example.org/shop/{name}:v1", "", read_image)
            port = _ask(f"Port on which the process in {name} listens", "8080", validators.PORT)
            answers.services.append((name, image, port))
            name = _ask("Name of the next service (Enter: no more)", "", _optional(answers.service_name))
    for name, _, _ in answers.services:
        if name not in answers.health:
            text = f"Path of {name} that answers 2xx when it is healthy"
            answers.health[name] = _ask(text, HEALTH, validators.URL_PATH)
        if name not in answers.routes:
            text = f"Paths of the site routed to {name}, separated by commas, or none"
            answers.routes[name] = _ask(text, answers.default_routes(name), partial(answers.read_routes, name))


def _ask_for_hosts(answers: Answers) -> None:
    if answers.hosts:
        return
    print_lines(["", "The hosts."], sys.stderr)
    _ask("First host as NAME=ADDRESS, such as web1=192.0.2.11", "", answers.add_host)

    def add(text: str) -> str:
        answers.add_host(text)
        return text

    while _ask("Next host as NAME=ADDRESS (Enter: no more)", "", _optional(add)):
        pass


def _optional(parser: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: parser(text) if text else ""


def _ask(text: str, default: str, parser: Callable[[str], T]) -> T:
    while True:
        answer = _read_line(f"{text} [{default}]: " if default else f"{text}: ") or default
        try:
            return parser(answer)
        except ValueError as error:
            found = f"found {shown(answer)}, expected" if answer else "an answer is required: expected"
            print_lines([f"  {found} {error}"], sys.stderr)


def _read_line(prompt: str) -> str:
    """Read a line without surrounding spaces. Invalid UTF-8 becomes surrogates, which every validator refuses."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    typed = sys.stdin.buffer.readline()
    if not typed.endswith(b"\n"):
        raise Interrupted("the input ended; nothing was written.", next_step="run the same command again")
    return typed.decode(errors="surrogateescape").strip()
