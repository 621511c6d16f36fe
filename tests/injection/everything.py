"""All scripts and texts of an environment, and the places where its values have to arrive."""

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
    generated.of_a_run,
    generated.of_looking,
    generated.of_logs,
    generated.of_backups,
    generated.of_accessories,
    generated.of_upkeep,
    generated.of_retention,
    generated.of_watching,
    generated.of_jobs,
)


def resolved(environment: Environment) -> Application:
    """Return the application of the first host with digests for its images."""
    app = environment.targets[0].application
    pinned = (replace(entry, image=entry.image.with_digest(f"sha256:{'a' * 64}")) for entry in app.services)
    accessories = (replace(entry, image=entry.image.with_digest(f"sha256:{'b' * 64}")) for entry in app.accessories)
    return replace(app, services=tuple(pinned), accessories=tuple(accessories))


def scripts(environment: Environment) -> Iterator[str]:
    """Yield every script for the first host, in one of the host states."""
    app = resolved(environment)
    states = list(generated.host_states().values())
    state = states[len(app.domain) % len(states)]
    yield from (script.text for _, script in generated.of_a_deploy(app, state))
    yield from (script.text for _, script in generated.of_a_rollback(app, state))
    for part in _PARTS:
        yield from (script.text for _, script in part(app))
    yield from (script.text for _, script in generated.of_setup(app, (environment.preparation,)))
    files = watchdog.Files(b"PK", _settings(environment), rendering.systemd_unit("watchdog.service", app))
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
    """The results of an environment's scripts: calls, files, and texts for other programs."""

    environment: Environment
    app: Application
    ran: Ran
    site: list[Directive]
    units: tuple[str, ...]

    @cached_property
    def _settings(self) -> tuple[object, ...]:
        """All values in the watchdog's settings."""
        return tuple(_values(json.loads(self.file("watchdog/settings.json"))))

    def file(self, end: str) -> bytes:
        """Return the only file whose path has this suffix."""
        (content,) = {content for name, content in self.ran.files.items() if name.endswith(end)}
        return content

    @property
    def _site_arguments(self) -> set[str]:
        return {argument for directive in self.site for argument in directive.arguments}

    def where(self, place: str, value: str) -> bool:
        """Return whether a value arrived unchanged at its place. See ARRIVES."""
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
                return value in self._site_arguments or (place != "site" and self.app.tls is None)
            case "certificate of https":
                # Nginx reads it; with intermediates it is joined with them, whenever one of the files changes.
                joined = self.app.tls is not None and self.app.tls.chain
                unit = rendering.systemd_unit("certificate.path", self.app) if joined else ""
                watched = f"PathChanged={value}" in unit.split("\n")
                return watched or value in self._site_arguments or self.app.tls is None
            case "container":
                return raw in self.ran.words
            case "login":
                return self.ran.files.get("password") == raw
            case "timer":
                expected = [f"OnCalendar={event}" for event in self.app.backup_calendar]
                return expected == [row for row in self.units[2].split("\n") if row.startswith("OnCalendar=")]
            case "watchdog":
                return value in self._settings and self._channels_are_complete
            case "watchdog metrics":
                directory = "" if value.casefold() == "none" else value.rstrip("/")
                return bool(json.loads(self.file("watchdog/settings.json"))["metrics_dir"] == directory)
            case "mail":
                return self._mail_is_complete
        return place in {"list", "nowhere"}

    @cached_property
    def _channels_are_complete(self) -> bool:
        """Whether the watchdog and Alertmanager read the configured channels."""
        return self._watchdog_reads_them() and self._alertmanager_reads_them()

    def _alertmanager_reads_them(self) -> bool:
        """A mail server that Alertmanager does not support is a configuration error."""
        try:
            text = prometheus.complete_files(self.environment)["alertmanager.yml"]
        except ConfigError:
            return True
        receivers = [receiver for receiver in yaml.safe_load(text)["receivers"] if len(receiver) > 1]
        slack, mail = self.app.channels.slack, self.app.channels.mail
        mails = [row for receiver in receivers for row in receiver.get("email_configs", [])]
        return (
            [row["api_url"] for receiver in receivers for row in receiver.get("slack_configs", [])]
            == [slack.url for _ in (slack and slack.lowest,) if slack and _]
            and [plainly(row["to"]) for row in mails] == list(mail.recipients if mail and mail.lowest else ())
            and all(
                (row.get("auth_password", ""), plainly(row["from"])) == (mail.password, mail.sender)
                for row in mails
                if mail
            )
        )

    def _watchdog_reads_them(self) -> bool:
        settings: state_store.Settings = from_plain(
            state_store.Settings, json.loads(self.file("watchdog/settings.json"))
        )
        return settings.channels == self.app.channels

    @cached_property
    def _mail_is_complete(self) -> bool:
        """Whether a mail has the configured sender and recipients, and only the known headers."""
        channel = self.app.channels.mail
        if channel is None:
            return True
        message = notice(text="x")
        composed = text.compose(message, "en", rendering.notice_template)
        raw = mail.build_email(message, composed, channel, rendering.notice_template).as_bytes()
        read = BytesParser(policy=policy.default).parsebytes(raw)
        known = {"From", "To", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "Auto-Submitted"}
        known |= {"List-Id", "MIME-Version", "Content-Type"}
        recipients = [(address.display_name, address.addr_spec) for address in read["To"].addresses]
        expected = [mail._address(recipient) for recipient in channel.recipients]
        return (
            set(read.keys()) <= known
            and recipients == [(address.display_name, address.addr_spec) for address in expected]
            and [address.addr_spec for address in read["From"].addresses] == [mail._address(channel.sender).addr_spec]
        )


def plainly(text: str) -> str:
    """Return the text that Alertmanager renders from a template."""
    return text.replace('{{ "{{" }}', "{{")


def _values(content: object) -> Iterator[object]:
    if isinstance(content, dict):
        for value in content.values():
            yield from _values(value)
    elif isinstance(content, list):
        for value in content:
            yield from _values(value)
    else:
        yield content


#: The units of the deploy user.
UNITS = ("boot.service", "backup.service", "backup.timer", "watchdog.service")


def run_everything(environment: Environment, shell: Shell, *, status: int = 0) -> Outcome:
    """Run every script of an environment and parse every text."""
    app = resolved(environment)
    return Outcome(
        environment,
        app,
        shell.run(scripts(environment), status=status),
        directives(rendering.nginx_site(app)),
        tuple(rendering.systemd_unit(name, app) for name in UNITS),
    )
