"""The answers of `inv init`: each is checked by the form that the configuration itself has for it.

It owns which questions there are, their defaults, and what follows from the answers. It asks nobody, writes nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rolling_upgrade.config import validators
from rolling_upgrade.config.files import read_yaml
from rolling_upgrade.config.inventory import Inventory
from rolling_upgrade.config.issues import Issues, shown, validate
from rolling_upgrade.config.settings import KEYS
from rolling_upgrade.engine.git import is_tracked, staged
from rolling_upgrade.errors import ConfigIssue

#: The first service port; each further service has the next one.
FIRST_PORT = 8080
HEALTH = "/health"
_EXAMPLE_NETWORKS = tuple(map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))

SERVICE = "NAME=IMAGE:PORT, such as web=registry.example.org/shop/web:8080"
HOST = "NAME=ADDRESS, such as web1=192.0.2.11"
CERTIFICATE = validators.one_of("none", "self-signed", "acme", "files")


@dataclass(frozen=True)
class Question:
    """Something that has one answer; without a default it must be answered."""

    name: str
    text: str
    form: validators.Validator[str]
    default: str = ""

    @property
    def option(self) -> str:
        """The option that answers it."""
        return f"--{self.name}"


APP = Question("app", "Name of the application", validators.APP_NAME)
DOMAIN = Question("domain", "Domain of the site", validators.DOMAIN)
ENV = Question("env", "Name of the environment", validators.ENVIRONMENT_NAME, "production")
USER = Question("user", "Login name on the hosts, owns the containers", validators.USER, "deploy")
CERT = Question(
    "certificate", "Certificate: none (http), self-signed, acme (Let's Encrypt), files (yours)", CERTIFICATE, "none"
)
EMAIL = Question("email", "Mail address for the certificate authority", validators.EMAIL)
QUESTIONS = (APP, DOMAIN, ENV, USER, CERT, EMAIL)


def _paths(text: str) -> tuple[str, ...] | None:
    words = [word.strip() for word in text.split(",")]
    if words == ["none"]:
        return ()
    try:
        found = tuple(validators.URL_PATH(word) for word in words)
    except ValueError:
        return None
    return found if len(set(found)) == len(found) else None


#: The paths of one service.
PATHS = validators.Validator("paths such as / or /api/, separated by commas, each once; or none", _paths)


@dataclass
class Answers:
    """What is known so far. Services are `(name, image, port)`, hosts are `(name, address)`, in their order."""

    values: dict[str, str] = field(default_factory=dict)
    services: list[tuple[str, str, int]] = field(default_factory=list)
    hosts: list[tuple[str, str]] = field(default_factory=list)
    health: dict[str, str] = field(default_factory=dict)
    routes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add_service(self, text: str) -> None:
        """Take NAME=IMAGE:PORT. Raises ValueError, which says what is expected."""
        name, equals, rest = text.partition("=")
        image, colon, port = rest.rpartition(":")
        if not (equals and colon):
            raise ValueError(SERVICE)
        self.services.append((self.service_name(name), read_image(image), validators.PORT(port)))

    def service_name(self, text: str) -> str:
        """A name that no other service has. Raises ValueError."""
        name = validators.SERVICE_NAME(text)
        if name in (other for other, _, _ in self.services):
            raise ValueError(f"a name of its own; {name} is a service already")
        return name

    def add_host(self, text: str) -> None:
        """Take NAME=ADDRESS, or one word that is both. Raises ValueError, which says what is expected."""
        name, equals, address = text.partition("=")
        if not name or (equals and not address):
            raise ValueError(HOST)
        found = validators.WORD(name), validators.ADDRESS(address or name)
        for other, used in self.hosts:
            if found[0] == other or found[1].casefold() == used.casefold():
                raise ValueError(f"a name and an address of its own; {other}={used} is a host already")
        self.hosts.append(found)

    def read_routes(self, name: str, text: str) -> tuple[str, ...]:
        """The paths of a service, which no other has. Raises ValueError."""
        found = PATHS(text)
        for other, paths in self.routes.items():
            for path in found:
                if other != name and path in paths:
                    raise ValueError(f"paths of its own; {path} is of {other} already")
        return found

    def usual_routes(self, name: str) -> str:
        """The paths that a service gets unless it is told others: the last service has `/`, others /NAME/."""
        taken = any("/" in paths for paths in self.routes.values())
        return "/" if name == self.services[-1][0] and not taken else f"/{name}/"

    def missing(self) -> list[tuple[str, str]]:
        """What nothing answers: option and what it expects."""
        found = [
            (one.option, one.form.expected)
            for one in QUESTIONS
            if not one.default and one is not EMAIL and one.name not in self.values
        ]
        if self.values.get("certificate") == "acme" and "email" not in self.values:
            found.append((EMAIL.option, f"{EMAIL.form.expected} (required by acme)"))
        found += [] if self.services else [("--service", SERVICE)]
        return found + ([] if self.hosts else [("--host", HOST)])

    def finished(self) -> Starting:
        """The whole of it; what is not answered has its default. Raises ValueError for paths of two services."""
        for name, _, _ in self.services:
            if name not in self.routes:
                self.routes[name] = self.read_routes(name, self.usual_routes(name))
        values = {one.name: one.default for one in QUESTIONS} | self.values
        keys = env_keys([name for name, _, _ in self.services])
        return Starting(
            app=values["app"],
            domain=values["domain"],
            environment=values["env"],
            user=values["user"],
            certificate=values["certificate"],
            email=values["email"],
            services=tuple(
                StartingService(
                    name, image, port, self.health.get(name, HEALTH), self.routes[name], keys[name], FIRST_PORT + place
                )
                for place, (name, image, port) in enumerate(self.services)
            ),
            hosts=tuple(self.hosts),
        )


def read_image(text: str) -> str:
    """The text of an image reference. Raises ValueError."""
    validators.IMAGE(text)
    return text


def env_keys(names: Sequence[str]) -> Mapping[str, str]:
    """For each service the beginning of its env keys: its name in capitals, unless the suite's own keys begin so."""
    found: dict[str, str] = {}
    for name in names:
        key = re.sub(r"[^A-Z0-9]", "_", name.upper())
        while key in found.values() or any(known.startswith(f"{key}_") for known in KEYS):
            key = f"SERVICE_{key}"
        found[name] = key
    return found


def read_options(
    values: Mapping[str, str],
    *,
    services: Sequence[str],
    hosts: Sequence[str],
    health: Sequence[str],
    routes: Sequence[str],
) -> tuple[Answers, tuple[ConfigIssue, ...]]:
    """What the options answer, and every mistake in them; `values` holds what stands behind each question's option."""
    answers = Answers()
    issues: list[ConfigIssue] = []

    def take(option: str, text: str, read: Callable[[str], Any]) -> Any:
        try:
            return read(text)
        except ValueError as error:
            issues.append(ConfigIssue("command line", option, shown(text), str(error)))
            return None

    for question in QUESTIONS:
        if question.name in values:
            text = values[question.name]
            answers.values[question.name] = take(question.option, text, question.form) or question.default or "x"
    for text in services:
        take("--service", text, answers.add_service)
    for text in hosts:
        take("--host", text, answers.add_host)
    named = [name for name, _, _ in answers.services]
    for text in health:
        take("--health", text, lambda text: answers.health.update([_pair(text, named, HEALTH, validators.URL_PATH)]))
    for text in routes:
        take("--route", text, lambda text: answers.routes.update([_route(text, named, answers)]))
    if answers.values.get("certificate") != "acme" and "email" in values:
        issues.append(ConfigIssue("command line", "--email", "a mail address", "it only with --certificate acme"))
    return answers, tuple(issues)


def _pair(text: str, named: Sequence[str], example: str, read: Callable[[str], str]) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or name not in named:
        raise ValueError(f"NAME={example}, where NAME is one of: {', '.join(named) or 'the services'}")
    return name, read(value)


def _route(text: str, named: Sequence[str], answers: Answers) -> tuple[str, tuple[str, ...]]:
    name, value = _pair(text, named, "/api/", str)
    return name, answers.read_routes(name, value)


def is_example(root: Path) -> bool:
    """Whether hosts.yaml is an example: it has hosts, and the addresses of all are for documentation alone."""
    quiet = Issues(root)
    content = read_yaml(root / "hosts.yaml", quiet, remedy="") or {}
    inventory = validate(Inventory, content, "hosts.yaml", quiet)
    if inventory is None or quiet.errors:
        return False
    addresses = [host.address or name for one in inventory.environments.values() for name, host in one.hosts.items()]
    return bool(addresses) and all(map(_for_documentation, addresses))


def _for_documentation(address: str) -> bool:
    try:
        return any(ipaddress.ip_address(address) in network for network in _EXAMPLE_NETWORKS)
    except ValueError:
        return False


def is_as_git_has_it(path: Path) -> bool:
    """Whether Git holds the file just as it lies there, so that nothing is lost when it is replaced."""
    try:
        return bool(is_tracked(path)) and staged(path) == path.read_bytes()
    except OSError:
        return False


@dataclass(frozen=True)
class StartingService:
    """One service; `key` begins the names of its env keys: SHOP makes SHOP_IMAGE and SHOP_PORT."""

    name: str
    image: str
    container_port: int
    health: str
    routes: tuple[str, ...]
    key: str
    service_port: int


@dataclass(frozen=True)
class Starting:
    """An application, its one environment, and the hosts of that by name and address.

    `certificate` is that of `setup` in hosts.yaml, or `none` for a site without one; `email` is for `acme` alone.
    """

    app: str
    domain: str
    environment: str
    user: str
    certificate: str
    email: str
    services: tuple[StartingService, ...]
    hosts: tuple[tuple[str, str], ...]

    @property
    def needs_version(self) -> bool:
        """Whether an image names neither tag nor digest."""
        return any("@" not in one.image and ":" not in one.image.rpartition("/")[2] for one in self.services)

    @property
    def entrance(self) -> StartingService:
        """The service that answers visitors at `/`; the last one where none does."""
        return next((one for one in self.services if "/" in one.routes), self.services[-1])

    @property
    def home(self) -> str:
        """The home directory of the user on the hosts."""
        return "/root" if self.user == "root" else f"/home/{self.user}"
