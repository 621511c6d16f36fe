"""Every script and text that follows from an environment, and where a value of it has to be found again."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from email import policy
from email.parser import BytesParser
from functools import cached_property

import yaml

from rolling_upgrade import rendering
from rolling_upgrade.engine.model import Application, Environment
from rolling_upgrade.engine.serialization import from_plain
from rolling_upgrade.errors import ConfigError
from rolling_upgrade.features.notify import mail, text
from rolling_upgrade.features.observe import files as prometheus
from rolling_upgrade.features.registry import workflow as registry
from rolling_upgrade.features.watchdog import shell as watchdog
from rolling_upgrade.features.watchdog import state_store
from tests import test_generated_scripts as generated
from tests.injection.shell import Ran, Shell
from tests.injection.texts import Directive, directives
from tests.support.notices import notice

_PARTS = (
    generated.of_a_stage,
    generated.of_looking,
    generated.of_logs,
    generated.of_backups,
    generated.of_upkeep,
    generated.of_retention,
    generated.of_watching,
)


def resolved(environment: Environment) -> Application:
    """The application of the first host, its images with digests."""
    app = environment.targets[0].application
    pinned = (replace(one, image=one.image.with_digest(f"sha256:{'a' * 64}")) for one in app.services)
    return replace(app, services=tuple(pinned))


def scripts(environment: Environment) -> Iterator[str]:
    """Every script for the first host, found in each of the states in its turn."""
    app = resolved(environment)
    states = list(generated.host_states().values())
    for found in (states[len(app.domain) % len(states)],):
        yield from (script.text for _, script in generated.of_a_deploy(app, found))
        yield from (script.text for _, script in generated.of_a_rollback(app, found))
    for part in _PARTS:
        yield from (script.text for _, script in part(app))
    yield from (script.text for _, script in generated.of_setup(app, (environment.preparation,)))
    files = watchdog.Files(b"PK", _settings(environment), rendering.watchdog_unit(app))
    yield watchdog.install(app, files).text
    with suppress(ConfigError):
        yield from (script.text for _, script in generated.of_monitoring(environment))
    if app.login:
        yield registry.login_script(app.login, always_ask=True).text
        yield registry.logout_script(app.login.registry).text


def _settings(environment: Environment) -> str:
    target = environment.targets[0]
    app = target.application
    return state_store.dump_settings(
        state_store.Settings(
            app.name,
            target.name,
            environment.name,
            app.watch,
            environment.rollout,
            app.thresholds,
            app.channels,
            app.metrics_dir,
            app.request_metrics,
        )
    )


@dataclass(frozen=True)
class Outcome:
    """What became of an environment under a shell: the calls and files, and the texts for other programs."""

    environment: Environment
    app: Application
    ran: Ran
    site: list[Directive]
    units: tuple[str, ...]

    @cached_property
    def _settings(self) -> tuple[object, ...]:
        """Every value of the watchdog's settings."""
        return tuple(_values(json.loads(self.file("watchdog/settings.json"))))

    def file(self, end: str) -> bytes:
        """The one file whose path ends so."""
        (found,) = {content for name, content in self.ran.files.items() if name.endswith(end)}
        return found

    def where(self, place: str, value: str) -> bool:
        """Whether a value is, byte for byte, where it has to be. See ARRIVES."""
        raw = value.encode()
        path = (value.rstrip("/") or "/").encode() if value.startswith("/") else raw
        match place:
            case "shell":
                return path in self.ran.words
            case "tag":
                return raw in self.ran.words or self.app.services[0].image.tag != value
            case "directory":
                return posixpath.dirname(value).encode() in self.ran.words
            case "site" | "site of https":
                arguments = {argument for one in self.site for argument in one.arguments}
                return value in arguments or (place != "site" and self.app.tls is None)
            case "container":
                return raw in self.ran.words
            case "login":
                return self.ran.files.get("password") == raw
            case "timer":
                wanted = [f"OnCalendar={one}" for one in self.app.backup_calendar]
                return wanted == [row for row in self.units[2].split("\n") if row.startswith("OnCalendar=")]
            case "watchdog":
                return value in self._settings and self._channels_are_whole
            case "watchdog metrics":
                directory = "" if value.casefold() == "none" else value.rstrip("/")
                return bool(json.loads(self.file("watchdog/settings.json"))["metrics_dir"] == directory)
            case "mail":
                return self._mail_is_whole
        return place in {"list", "nowhere"}

    @cached_property
    def _channels_are_whole(self) -> bool:
        """Whether the programs on the hosts read what was configured."""
        return self._watchdog_reads_them() and self._alertmanager_reads_them()

    def _alertmanager_reads_them(self) -> bool:
        """One that cannot speak to the mail server is told, and gets no files."""
        try:
            text = prometheus.complete_files(self.environment)["alertmanager.yml"]
        except ConfigError:
            return True
        receivers = [one for one in yaml.safe_load(text)["receivers"] if len(one) > 1]
        slack, mail = self.app.channels.slack, self.app.channels.mail
        mails = [row for one in receivers for row in one.get("email_configs", [])]
        return (
            [row["api_url"] for one in receivers for row in one.get("slack_configs", [])]
            == [slack.url for _ in (slack and slack.lowest,) if slack and _]
            and [plainly(row["to"]) for row in mails] == list(mail.recipients if mail and mail.lowest else ())
            and all(
                (row.get("auth_password", ""), plainly(row["from"])) == (mail.password, mail.sender)
                for row in mails
                if mail
            )
        )

    def _watchdog_reads_them(self) -> bool:
        found: state_store.Settings = from_plain(state_store.Settings, json.loads(self.file("watchdog/settings.json")))
        return found.channels == self.app.channels

    @cached_property
    def _mail_is_whole(self) -> bool:
        """Whether a mail's reader sees the configured sender and recipients, and no header more than ours."""
        wanted = self.app.channels.mail
        if wanted is None:
            return True
        message = notice(text="x")
        told = text.compose(message, "en", rendering.notice_template)
        raw = mail.build_email(message, told, wanted, rendering.notice_template).as_bytes()
        read = BytesParser(policy=policy.default).parsebytes(raw)
        known = {"From", "To", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "Auto-Submitted"}
        known |= {"List-Id", "MIME-Version", "Content-Type"}
        people = [(one.display_name, one.addr_spec) for one in read["To"].addresses]
        asked = [mail._address(one) for one in wanted.recipients]
        return (
            set(read.keys()) <= known
            and people == [(one.display_name, one.addr_spec) for one in asked]
            and [one.addr_spec for one in read["From"].addresses] == [mail._address(wanted.sender).addr_spec]
        )


def plainly(text: str) -> str:
    """What Alertmanager makes of a text that it reads as a template."""
    return text.replace('{{ "{{" }}', "{{")


def _values(found: object) -> Iterator[object]:
    if isinstance(found, dict):
        for value in found.values():
            yield from _values(value)
    elif isinstance(found, list):
        for value in found:
            yield from _values(value)
    else:
        yield found


def carried_out(environment: Environment, shell: Shell, *, status: int = 0) -> Outcome:
    """Run every script of an environment, and read every text."""
    app = resolved(environment)
    return Outcome(
        environment,
        app,
        shell.run(scripts(environment), status=status),
        directives(rendering.nginx_site(app)),
        (rendering.boot_unit(app), *rendering.backup_units(app), rendering.watchdog_unit(app)),
    )
