"""The questions of `inv init` on a terminal: each answer is checked at once, and a bad one is asked for again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from rolling_upgrade.config import validators
from rolling_upgrade.config.issues import shown
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.errors import Interrupted
from rolling_upgrade.features.init.answers import HEALTH, QUESTIONS, Answers, Question, read_image

T = TypeVar("T")


def ask_for_the_rest(answers: Answers, look: Callable[[], object]) -> None:
    """Ask what no option said. Raises Interrupted when the input ends, and what `look` raises.

    `look` is called before the first question, and as soon as the environment has a name.
    """
    look()
    print_lines(["Enter takes what stands in brackets; Ctrl-C ends it, and nothing is written."], sys.stderr)
    *first, user, certificate, email = QUESTIONS
    for question in first:
        _ask_for(question, answers)
    look()
    _ask_for_services(answers)
    _ask_for_hosts(answers)
    _ask_for(user, answers)
    _ask_for(certificate, answers)
    if answers.values["certificate"] == "acme":
        _ask_for(email, answers)


def _ask_for(question: Question, answers: Answers) -> None:
    if question.name not in answers.values:
        answers.values[question.name] = _ask(question.text, question.default, question.form)


def _ask_for_services(answers: Answers) -> None:
    if not answers.services:
        print_lines(["", "The services, one that others call before those that call it."], sys.stderr)
        name = _ask("Name of the first service", "web", answers.service_name)
        while name:
            image = _ask(f"Image of {name}, such as registry.example.org/shop/{name}:v1", "", read_image)
            port = _ask(f"Port on which the process in {name} listens", "8080", validators.PORT)
            answers.services.append((name, image, port))
            name = _ask("Name of the next service (Enter: no more)", "", _or_nothing(answers.service_name))
    for name, _, _ in answers.services:
        if name not in answers.health:
            text = f"Path of {name} that answers 2xx when it is well"
            answers.health[name] = _ask(text, HEALTH, validators.URL_PATH)
        if name not in answers.routes:
            text = f"Paths of the site that go to {name}, separated by commas, or none"
            answers.routes[name] = _ask(text, answers.usual_routes(name), _routes_of(answers, name))


def _ask_for_hosts(answers: Answers) -> None:
    if answers.hosts:
        return
    print_lines(["", "The hosts."], sys.stderr)
    _ask("First host as NAME=ADDRESS, such as web1=192.0.2.11", "", answers.add_host)
    while _ask("Next host as NAME=ADDRESS (Enter: no more)", "", _or_nothing(_added(answers))):
        pass


def _routes_of(answers: Answers, name: str) -> Callable[[str], tuple[str, ...]]:
    return lambda text: answers.read_routes(name, text)


def _added(answers: Answers) -> Callable[[str], str]:
    def add(text: str) -> str:
        answers.add_host(text)
        return text

    return add


def _or_nothing(read: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: read(text) if text else ""


def _ask(text: str, default: str, read: Callable[[str], T]) -> T:
    while True:
        answer = _line(f"{text} [{default}]: " if default else f"{text}: ") or default
        try:
            return read(answer)
        except ValueError as error:
            found = shown(answer) if answer else "nothing"
            print_lines([f"  found {found}, expected {error}"], sys.stderr)


def _line(prompt: str) -> str:
    """What a person types, without the spaces around it; bytes that are no text come as characters that no form has."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    typed = sys.stdin.buffer.readline()
    if not typed.endswith(b"\n"):
        raise Interrupted("the input ended in the middle; nothing was written.", next_step="the same command again")
    return typed.decode(errors="surrogateescape").strip()
