"""The questions of `inv init` with their defaults, the answers so far, and the values that the templates show.

The validators of the configuration itself check each answer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from rolling_upgrade.config import validators
from rolling_upgrade.config.issues import shown
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.errors import ConfigIssue, Interrupted

T = TypeVar("T")

HEALTH = "/health"

SERVICE = "NAME=IMAGE:PORT, such as web=registry.example.org/shop/web:8080"
HOST = "NAME=ADDRESS, such as web1=192.0.2.11"


@dataclass(frozen=True)
class Question:
    """A question with one answer, which is required unless there is a default."""

    name: str
    text: str
    validator: validators.Validator[str]
    default: str = ""

    @property
    def option(self) -> str:
        """The command-line option that answers the question."""
        return f"--{self.name}"


EMAIL = Question("email", "Contact address for the certificate authority", validators.EMAIL)
QUESTIONS = (
    Question("app", "Name of the application", validators.APP_NAME),
    Question("domain", "Domain of the site", validators.DOMAIN),
    Question("env", "Name of the environment", validators.ENVIRONMENT_NAME, "production"),
    Question("user", "Login name on the hosts, owner of the containers", validators.USER, "deploy"),
    Question(
        "certificate",
        "Certificate: none (http), self-signed, acme (Let's Encrypt) or files (your own)",
        validators.one_of("none", "self-signed", "acme", "files"),
        "none",
    ),
    EMAIL,
)


def _paths(text: str) -> tuple[str, ...] | None:
    words = [word.strip() for word in text.split(",")]
    if words == ["none"]:
        return ()
    try:
        paths = tuple(validators.URL_PATH(word) for word in words)
    except ValueError:
        return None
    return paths if len(set(paths)) == len(paths) else None


#: The paths of one service.
PATHS = validators.Validator("paths such as / or /api/, separated by commas, each once; or none", _paths)


@dataclass
class Service:
    """A service of the new configuration; no health path and no routes mean their defaults."""

    name: str
    image: str
    container_port: int
    health: str = ""
    routes: tuple[str, ...] | None = None

    def declaration(self) -> dict[str, Any]:
        """Return the entry in services.yaml. Keys with their default values are left out."""
        entry: dict[str, Any] = {"name": self.name, "image": self.image, "container_port": self.container_port}
        entry |= {"health": self.health} if self.health != HEALTH else {}
        return entry | ({"routes": list(self.routes)} if self.routes else {})


@dataclass
class Answers:
    """The answers so far, `values` by the name of the question. A host is `(name, address)`."""

    values: dict[str, str] = field(default_factory=dict)
    services: list[Service] = field(default_factory=list)
    hosts: list[tuple[str, str]] = field(default_factory=list)
    has_compose_file: bool = False

    def add_service(self, text: str) -> None:
        """Add the service NAME=IMAGE:PORT. Raises ValueError with the expected form."""
        name, equals, rest = text.partition("=")
        image, colon, port = rest.rpartition(":")
        if not (equals and colon):
            raise ValueError(SERVICE)
        self.append_service(self.service_name(name), read_image(image), validators.PORT(port))

    def append_service(self, name: str, image: str, container_port: int) -> None:
        """Add a service."""
        self.services.append(Service(name, image, container_port))

    def service_name(self, text: str) -> str:
        """Check that no other service has the name. Raises ValueError."""
        name = validators.SERVICE_NAME(text)
        if any(name == service.name for service in self.services):
            raise ValueError(f"another name: {name} is a service already")
        return name

    def set_health(self, text: str) -> None:
        """Set the health path of a service: NAME=PATH. Raises ValueError with the expected form."""
        service, path = self._service_and_value(text, HEALTH)
        service.health = validators.URL_PATH(path)

    def set_routes(self, text: str) -> None:
        """Set the paths of a service: NAME=PATH[,PATH…]. Raises ValueError with the expected form."""
        service, paths = self._service_and_value(text, "/api/")
        service.routes = self.read_routes(service, paths)

    def _service_and_value(self, text: str, example: str) -> tuple[Service, str]:
        name, equals, value = text.partition("=")
        services = {service.name: service for service in self.services}
        if not equals or name not in services:
            raise ValueError(f"NAME={example}, where NAME is one of: {', '.join(services) or 'the services'}")
        return services[name], value

    def add_host(self, text: str) -> None:
        """Add the host NAME=ADDRESS; without `=`, the word is both. Raises ValueError with the expected form."""
        name, equals, address = text.partition("=")
        if not name or (equals and not address):
            raise ValueError(HOST)
        if "@" in address:
            raise ValueError("an address without a login name; --user sets it for all hosts")
        name, address = validators.WORD(name), validators.ADDRESS(address or name)
        for other, used in self.hosts:
            if name == other or address.casefold() == used.casefold():
                raise ValueError(f"another name and address: {other}={used} is a host already")
        self.hosts.append((name, address))

    def read_routes(self, service: Service, text: str) -> tuple[str, ...]:
        """Parse the paths of a service. Raises ValueError for a path of another service."""
        paths = PATHS(text)
        for other in self.services:
            for path in paths:
                if other is not service and path in (other.routes or ()):
                    raise ValueError(f"other paths: {path} belongs to {other.name} already")
        return paths

    def default_routes(self, service: Service) -> str:
        """Return `/` for the last public service if it is free, otherwise /NAME/."""
        taken = any("/" in (other.routes or ()) for other in self.services)
        public = [other for other in self.services if other.routes != ()]
        return "/" if service is public[-1] and not taken else f"/{service.name}/"

    def missing(self) -> list[tuple[str, str]]:
        """Return the option and the expected value of every required answer that is missing."""
        rows = [
            (question.option, question.validator.expected)
            for question in QUESTIONS
            if not question.default and question is not EMAIL and question.name not in self.values
        ]
        if self.values.get("certificate") == "acme" and "email" not in self.values:
            rows.append((EMAIL.option, f"{EMAIL.validator.expected} (required by acme)"))
        rows += [] if self.services or self.has_compose_file else [("--service", SERVICE)]
        return rows + ([] if self.hosts else [("--host", HOST)])

    def template_values(self) -> dict[str, Any]:
        """Apply the defaults and return what the templates show. Raises ValueError for a path of two services."""
        for service in self.services:
            service.health = service.health or HEALTH
            if service.routes is None:
                service.routes = self.read_routes(service, self.default_routes(service))
        values = {question.name: question.default for question in QUESTIONS} | self.values
        images = [service.image for service in self.services]
        return {
            **values,
            "services": {"services": [service.declaration() for service in self.services]},
            "hosts": self._inventory(values),
            # Whether an image has neither tag nor digest.
            "needs_version": any("@" not in image and ":" not in image.rpartition("/")[2] for image in images),
            "values": [],
        }

    def _inventory(self, values: Mapping[str, str]) -> dict[str, Any]:
        """Return the content of hosts.yaml. Keys with their default values are left out."""
        entry: dict[str, Any] = {"user": values["user"]} if values["user"] != "deploy" else {}
        if values["certificate"] != "none":
            mail = {"acme_email": values["email"]} if values.get("email") else {}
            entry["setup"] = {"certificate": values["certificate"], **mail}
        entry["hosts"] = {name: {"address": address} for name, address in self.hosts}
        return {"environments": {values["env"]: entry}}


def read_image(text: str) -> str:
    """Check an image reference. Raises ValueError."""
    validators.IMAGE(text)
    return text


def read_options(
    values: Mapping[str, str | None],
    *,
    services: Sequence[str],
    hosts: Sequence[str],
    health: Sequence[str],
    routes: Sequence[str],
) -> tuple[Answers, tuple[ConfigIssue, ...]]:
    """Return the answers of the command-line options, and every error in them. `values` is keyed by question."""
    answers = Answers()
    issues: list[ConfigIssue] = []

    def parse(option: str, text: str, parser: Callable[[str], Any]) -> Any:
        try:
            return parser(text)
        except ValueError as error:
            issues.append(ConfigIssue("command line", option, shown(text), str(error)))
            return None

    for question in QUESTIONS:
        if (text := values.get(question.name)) is not None:
            answers.values[question.name] = parse(question.option, text, question.validator) or question.default or "x"
    for text in services:
        parse("--service", text, answers.add_service)
    for text in hosts:
        parse("--host", text, answers.add_host)
    for text in health:
        parse("--health", text, answers.set_health)
    for text in routes:
        parse("--route", text, answers.set_routes)
    if answers.values.get("certificate") != "acme" and values.get("email") is not None:
        issues.append(ConfigIssue("command line", "--email", "a mail address", "--certificate acme with it"))
    return answers, tuple(issues)


def ask_missing(answers: Answers, check_files: Callable[[], object]) -> None:
    """Ask on the terminal for every answer that no option gave; an invalid answer repeats its question.

    Raises Interrupted when the input ends. Calls `check_files` first, and again once the environment has a name.
    """
    check_files()
    print_lines(["Enter accepts the default in brackets. Ctrl-C quits; nothing is written."], stream=sys.stderr)
    *first, user, certificate, email = QUESTIONS
    for question in first:
        _ask_for(question, answers)
    check_files()
    if not answers.has_compose_file:
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
        print_lines(
            ["", "The services, in upgrade order: a service comes before those that call it."], stream=sys.stderr
        )
        name = _ask("Name of the first service", "web", answers.service_name)
        while name:
            image = _ask(f"Image of {name}, such as registry.example.org/shop/{name}:v1", "", read_image)
            port = _ask(f"Port on which the process in {name} listens", "8080", validators.PORT)
            answers.append_service(name, image, port)
            name = _ask("Name of the next service (Enter: no more)", "", _optional(answers.service_name))
    for service in answers.services:
        if not service.health:
            text = f"Path of {service.name} that answers 2xx when it is healthy"
            service.health = _ask(text, HEALTH, validators.URL_PATH)
        if service.routes is None:
            text = f"Paths of the site routed to {service.name}, separated by commas, or none"
            parser = partial(answers.read_routes, service)
            service.routes = _ask(text, answers.default_routes(service), parser)


def _ask_for_hosts(answers: Answers) -> None:
    if answers.hosts:
        return
    print_lines(["", "The hosts."], stream=sys.stderr)
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
            print_lines([f"  {found} {error}"], stream=sys.stderr)


def _read_line(prompt: str) -> str:
    """Read a line without surrounding spaces. Invalid UTF-8 becomes surrogates, which every validator refuses."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    typed = sys.stdin.buffer.readline()
    if not typed.endswith(b"\n"):
        raise Interrupted("the input ended; nothing was written.", next_step="run the same command again")
    return typed.decode(errors="surrogateescape").strip()
