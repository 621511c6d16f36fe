"""Hosts that answer the scripts of a run from a given state, and fail the steps that a test names. No script runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.engine import request
from rolling_upgrade.engine.history import dump_definition
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.model import Application, Color, Container, HostState, Image, Lock
from rolling_upgrade.features.backup.manifest import Backup, BackupFile, BackupKind, Verdict
from rolling_upgrade.features.deploy import digests
from tests.support.history_line import history_line
from tests.support.local_fleet import answer_with
from tests.support.project import Project
from tests.support.scripted_host import kind_of
from tests.support.states import as_wanted, fit_facts

#: What the registry knows about each image, by the last part of its repository.
DIGESTS = {"backend": "sha256:" + "a" * 64, "frontend": "sha256:" + "b" * 64}
#: The digests of the release before.
EARLIER = {"backend": "sha256:" + "1" * 64, "frontend": "sha256:" + "2" * 64}
#: The ids of the earlier release and of the desired one, on hosts that have both.
FIRST, SECOND = "20261122T080000Z-aaaaaa", "20261123T080000Z-bbbbbb"
#: The scripts that only read.
READ_ONLY = {"observe", "health", "resolve", "layers", "backups", "definition", "available"}


def resolved(app: Application) -> Application:
    """Return the application with the digests of the registry."""
    services = tuple(
        replace(service, image=replace(service.image, digest=DIGESTS[service.name])) for service in app.services
    )
    return replace(app, services=services)


def earlier(app: Application) -> Application:
    """Return the application with the images of its earlier release."""
    services = tuple(
        replace(service, image=Image(service.image.repository, "v1", EARLIER[service.name])) for service in app.services
    )
    return replace(app, services=services)


class SimulatedFleet:
    """The hosts of a project. Each one is fit for a deploy and runs an earlier image of every service.

    Attributes:
        app: the desired application, with digests.
        states: the state of each host; a test may replace one.
        http_codes: the status of every answer to a health check by host, instead of 200.
        answers: answers or errors by host and kind of script, instead of success.
        definitions: the stored definition of each release, by id, on every host.
        backups: the backups of each host.
    """

    def __init__(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        targets = project.load().targets
        self.app = resolved(targets[0].application)
        outdated = as_wanted(earlier(self.app))
        self.states = {target.name: replace(self.fit(outdated), host=target.name) for target in targets}
        self.http_codes: dict[str, int] = {}
        self.answers: dict[tuple[str, str], Answer | Exception] = {}
        self.definitions: dict[str, str] = {}
        self.backups: dict[str, list[Backup]] = {name: [] for name in self.states}
        self._log: list[tuple[str, str, str]] = []
        monkeypatch.setattr(digests, "can_ask_here", lambda: False)
        answer_with(monkeypatch, self._respond)

    def fit(self, state: HostState, **facts: str) -> HostState:
        """Return the state with the facts of a fit host and the live site of the application."""
        site = rendering.nginx_site(self.app)
        found = fit_facts(self.app) | {"request_log": "yes", "has_rsync": "yes"} | facts
        return replace(state, facts=tuple(found.items()), site=site, live_site_hash=rendering.site_hash(site))

    def upgrade(self, host: str) -> None:
        """Let the host run the desired release, and keep the stopped containers of the earlier one."""
        before, after = as_wanted(earlier(self.app)), as_wanted(self.app, Color.GREEN)
        state = replace(
            before,
            host=host,
            active=tuple((service.name, Color.GREEN) for service in self.app.services),
            containers=(
                *(replace(kept, running=False, status="exited", release=FIRST) for kept in before.containers),
                *(replace(serving, release=SECOND) for serving in after.containers),
            ),
            releases=(replace(before.releases[0], id=FIRST), replace(after.releases[0], id=SECOND)),
        )
        self.states[host] = self.fit(state)
        self.definitions = {FIRST: dump_definition(earlier(self.app)), SECOND: dump_definition(self.app)}

    def backup(self, id: str = SECOND, **changes: object) -> Backup:
        """Return a backup of the earlier release's data, with the database and three uploaded files."""
        images = tuple((service.name, service.image.pinned) for service in earlier(self.app).services)
        files = tuple(BackupFile(name, 10, "a" * 64) for name in ("database.db", "rows", "uploads.sums"))
        values: dict[str, object] = {
            "kind": BackupKind.MANUAL,
            "app": self.app.name,
            "time": "2026-11-23T08:00:00+00:00",
            "release": FIRST,
            "services": images,
            "database": "sqlite",
            "uploads": 3,
            "files": files,
        }
        return Backup(id, **(values | changes))  # type: ignore[arg-type]

    def fail(self, host: str, kind: str, output: str = "") -> None:
        """Let every script of that kind fail on the host."""
        self.answers[host, kind] = Answer(1, output, "")

    def ran(self, host: str = "") -> list[str]:
        """Return the kinds of the scripts that ran on the host, in order; on all hosts without a name."""
        return [kind for name, kind in self.log if host in {"", name}]

    def changed(self, host: str = "") -> list[str]:
        """Like `ran`, without the scripts that only read."""
        return [kind for kind in self.ran(host) if kind not in READ_ONLY]

    @property
    def log(self) -> list[tuple[str, str]]:
        """The host and the kind of every script, in order."""
        return [(host, kind) for host, kind, _ in self._log]

    def text(self, host: str, kind: str) -> str:
        """Return the last script of that kind on the host."""
        return [text for name, found, text in self._log if (name, found) == (host, kind)][-1]

    def _respond(self, host: str, text: str) -> Answer:
        kind = self._kind(text)
        self._log.append((host, kind, text))
        given = self.answers.get((host, kind))
        if isinstance(given, Exception):
            raise given
        return given or Answer(0, self._output(host, kind, text))

    def _kind(self, text: str) -> str:
        marks = {
            "resolve": "skopeo inspect --no-tags",
            "layers": "-layers/layers.json",
            "login": "podman login",
            "backups": "@@verdict",
            "available": "env yes",
            "watchdog": "watchdog.pyz.new",
            "definition": f"cat {self.app.home}/config/",
        }
        kind = kind_of(text)
        return next((name for name, mark in marks.items() if mark in text), kind) if kind == "query" else kind

    def _output(self, host: str, kind: str, text: str) -> str:
        services = self.app.services
        if kind in {"observe", "lock"}:
            return observation(self.app, self.states[host])
        if kind == "health":
            return health(self.app, self.states[host], self.http_codes.get(host, 200))
        if kind == "watchdog":
            return "installed\n"
        if kind == "resolve":
            images = re.findall(r"docker://(\S+/(\w+)[:@]\S+)", text)
            return "".join(f"{exact} {DIGESTS[name]}\n" for exact, name in images)
        if kind == "layers":
            return "x86_64\n"
        if kind == "backups":
            return _listed(self.backups[host])
        if kind == "available":
            return "".join(f"{service.name} env yes\n{service.name} image yes\n" for service in services)
        if kind == "definition":
            return next((found for id, found in self.definitions.items() if f"/{id}.json" in text), "")
        return ""


def observation(app: Application, state: HostState) -> str:
    """Return the output of an observation that finds this state."""
    facts = {"now": str(state.now), **dict(state.facts), "site": state.live_site_hash}
    sections = {
        "facts": [f"{name}={value}" for name, value in facts.items()],
        "site": state.site.splitlines(),
        "active": [f"{name}.{color.value}" for name, color in state.active],
        "containers": [_row(app, container) for container in state.containers],
        "listening": [f"127.0.0.1:{port}" for port in state.listening],
        "releases": [history_line(release) for release in state.releases],
        "lock": _lock_lines(state.lock) if state.lock else [],
        "environments": [_marks(name, marks) for name, marks in state.environments],
        "probes": [],
        "end": [],
    }
    return "".join(f"@@{name}\n" + "".join(f"{row}\n" for row in rows) for name, rows in sections.items())


def health(app: Application, state: HostState, code: int) -> str:
    """Return the output of a health check whose requests are all answered with this status."""
    urls = [request.to_site(app).url]
    for service in app.services:
        ports = (service.service_port, service.port(state.active_color(service.name)))
        urls += [request.to_service(app, service, port).url for port in ports]
    if app.full_chain:
        urls.append(request.of_chain(app, app.full_chain).url)
    rows = [f"http\t{url}\t{code}\t0.01\n" for url in urls]
    checks = "".join(["@@checks\n", *rows, "disk\t/\t900\t100\n", f"clock\t{int(time.time())}\n"])
    return observation(app, state).replace("@@end\n", f"{checks}@@end\n")


def _row(app: Application, container: Container) -> str:
    fields = (
        container.name,
        container.status,
        "true" if container.running else "false",
        container.started_at,
        container.restarts,
        container.exit_code,
        container.image_id,
        app.name,
        container.service,
        container.color.value,
        container.release,
        container.image.reference,
        container.image.digest,
        container.spec,
        container.service_port,
    )
    return "\t".join(str(field) for field in fields)


def _lock_lines(lock: Lock) -> list[str]:
    names = ("token", "owner", "workstation", "pid", "reason", "target", "acquired_at", "expires_at")
    return [f"{name}={getattr(lock, name)}" for name in names]


def _marks(name: str, marks: tuple[tuple[str, str], ...]) -> str:
    return " ".join([name, *(f"{key}:{mark}" for key, mark in marks)])


def _listed(backups: Sequence[Backup]) -> str:
    """Return the output of the list of backups."""
    rows = ["@@now", "1795420800"]
    for backup in backups:
        manifest = {"format": 1, **asdict(backup), "kind": backup.kind.value, "services": dict(backup.services)}
        verdict = {Verdict.GOOD: "good 1795420000", Verdict.DAMAGED: "damaged 1795420000"}.get(backup.verdict, "")
        rows += [f"@@backup {backup.app}-{backup.id}", json.dumps(manifest), "@@verdict", verdict]
    return "\n".join([*rows, "@@end", ""])
