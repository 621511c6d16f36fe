"""A site on loopback for the tests of the health check: real servers and data, containers from a fake Podman."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from rolling_upgrade.engine.model import Application, Check, Gate, HealthReport, Thresholds
from rolling_upgrade.features.health import shell as health
from tests.engine.test_observation import row
from tests.support.sample import application, backend, frontend
from tests.support.servers import free_ports, serve
from tests.support.shell import Programs, moved, sh

#: Thresholds that the disks and the memory of any machine meet.
LENIENT = Thresholds(free_percent=0, memory_percent=100)
TIMEOUT = 2.0


class Site:
    """An application with real data; a fake Podman reports its containers."""

    def __init__(self, root: Path, programs: Programs) -> None:
        self.root, self.home, self.programs = root, root / "home", programs
        (root / "the data's").mkdir()
        (self.home / "lock").mkdir(parents=True)
        (self.home / "live").mkdir()
        port = free_ports(1, 2, 3, 10_000, 10_001, 20_000, 20_001)
        self.app = application(
            backend(service_port=port, gate=Gate("/api/health", timeout_seconds=TIMEOUT)),
            frontend(service_port=port + 1, gate=Gate("/health", timeout_seconds=TIMEOUT)),
            database=f"{root}/the data's/shop.db",
            http_port=port + 2,
            https_port=port + 3,
            thresholds=LENIENT,
        )
        self._fake_podman("backend", "frontend")
        with closing(sqlite3.connect(self.app.database)) as database:
            database.execute("create table item (n integer primary key, text)")
            database.executemany("insert into item values (?, ?)", ((n, "x" * 500) for n in range(2000)))
            database.commit()

    def _fake_podman(self, *services: str) -> None:
        """Make Podman report these running containers."""
        rows = [row(name=f"shop-{name}-blue", service=name, color="blue") for name in services]
        (self.root / "rows").write_text("".join(f"{line}\n" for line in rows))
        self.programs.add("podman", 'case $1 in ps) echo 1 ;; container) cat "$here/rows" ;; unshare) exit 9 ;; esac')

    def ports(self) -> dict[str, int]:
        """The port of each checked address."""
        first, second = self.app.services
        own = {f"{service.name} http": service.service_port + 10_000 for service in (first, second)}
        return {
            **own,
            "backend nginx": first.service_port,
            "frontend nginx": second.service_port,
            "site": self.app.http_port,
        }

    @contextmanager
    def serve_except(self, *without: str) -> Iterator[None]:
        """Serve a good answer at each address except `without`."""
        with ExitStack() as stack:
            for name, port in self.ports().items():
                if name not in without:
                    stack.enter_context(serve(port, served_by="127.0.0.1:1"))
            yield

    def output(self, app: Application | None = None, *, seconds: float = 5) -> str:
        """Run the health script and return its output; `seconds` is the timeout of each check except HTTP."""
        text = moved(health.check(app or self.app), self.app, self.home)
        text = text.replace("PATH=/usr/local/sbin", f"PATH={self.programs.directory}:/usr/local/sbin")
        done = sh(text.replace("timeout 5 ", f"timeout {seconds} "))
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def check(self, app: Application | None = None, *, seconds: float = 5) -> HealthReport:
        """Run the health script and parse its output."""
        return health.parse(app or self.app, "web1", self.output(app, seconds=seconds), time.time())


def failed(report: HealthReport) -> set[str]:
    return {check.name for check in report.failed}


def check(report: HealthReport, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)
