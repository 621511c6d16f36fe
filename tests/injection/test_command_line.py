"""Hostile values of every command line option: each is refused, or passed on byte for byte without being executed.

Batches of values go through the real checks, the real builders and a real `sh`. The last test fails for a new option
until OPTIONS lists it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolling_upgrade import rendering
from rolling_upgrade.config import validators
from rolling_upgrade.engine import history, lock_file, maintenance, remote_run
from rolling_upgrade.engine.host import LocalHost
from rolling_upgrade.engine.model import Environment, Lock, Login, Outcome, Release, Target
from rolling_upgrade.engine.rollout import batch_size
from rolling_upgrade.engine.shell import Script, quote, shell_join, write_file
from rolling_upgrade.errors import ConfigError
from rolling_upgrade.features.backup import manifest
from rolling_upgrade.features.build import plan as build_plan
from rolling_upgrade.features.exec import shell as inside
from rolling_upgrade.features.lock import workflow as locks
from rolling_upgrade.features.logs import shell as logs
from rolling_upgrade.features.logs import workflow as reading
from rolling_upgrade.features.maintenance import workflow as page
from rolling_upgrade.features.notify import workflow as messages
from rolling_upgrade.features.registry import workflow as logins
from rolling_upgrade.features.restore import workflow as restore
from rolling_upgrade.features.suites import workflow as suites
from rolling_upgrade.features.watchdog.loop import recovery_script
from rolling_upgrade.features.watchdog.policy import RecoveryAction
from rolling_upgrade.tasks import namespace
from tests.injection.hostile import anything, argument, cases
from tests.injection.shell import shell
from tests.support.history_line import history_line
from tests.support.sample import application

APP = application()
BATCH, EXAMPLES = 20, 12
HOLDER = Lock("20261123T020000Z-abcdef", "ann", "laptop", 41, "", 0, 0)

#: The proof for each option: a test in this file or another one, or the reason why no host receives the value.
OPTIONS = {
    "env": "names an environment of a file here",
    "host": "names hosts of a file here; of a new one: tests/features/init/test_workflow.py",
    "hosts": "names hosts of a file here",
    "service": "names a service of a file here; of a new one: tests/features/init/test_workflow.py",
    "app": "has the form of APP_NAME; tests/features/init/test_workflow.py",
    "domain": "has the form of DOMAIN_NAME; tests/features/init/test_workflow.py",
    "user": "has the form of user in hosts.yaml; tests/features/init/test_workflow.py",
    "certificate": "one of a list",
    "email": "has the form of acme_email in hosts.yaml; tests/features/init/test_workflow.py",
    "health": "has the form of health in services.yaml; tests/features/init/test_workflow.py",
    "route": "has the form of prefix in services.yaml; tests/features/init/test_workflow.py",
    "directory": "is a path here",
    "name": "names a lab, an accessory or a job of a file here",
    "job": "names a job of a file here",
    "release": "names a release of Debian here, or a run in the hosts' histories",
    "tag": "test_formatted_values_are_refused_or_match_their_format",
    "batch": "test_formatted_values_are_refused_or_match_their_format",
    "transfer": "one of a list",
    "color": "one of a list",
    "severity": "one of a list",
    "switch": "one of a list",
    "only": "one of a list",
    "image": "is a path here",
    "shell": "one of a list",
    "names": "one of a list",
    "max_failures": "is a number here; tests/console/test_names.py",
    "html": "is a path here",
    "output": "is a path here",
    "load": "is a path here",
    "fetch": "is a path here",
    "from_": "names an environment of a file here",
    "build_type": "one of a list",
    "platform": "test_formatted_values_are_refused_or_match_their_format",
    "suite": "one of a list",
    "to": "names an environment of a file here, a release that the host has, or is a path here",
    "backup": "names a backup that the host has",
    "confirm": "is compared here",
    "fingerprint": "is compared here",
    "replace": "names hosts of a file here",
    "add": "is a path here, or a public key; tests/config/encryption/test_recipients.py",
    "remove": "names a line of a file here",
    "comment": "is text of a file here",
    "key": "is a path here, or a public key; tests/engine/test_openssh.py",
    "new_password_file": "is a path here",
    "resume": "is a path here",
    "form": "one of a list",
    "lines": "test_formatted_values_are_refused_or_match_their_format",
    "since": "test_formatted_values_are_refused_or_match_their_format",
    "interval": "test_formatted_values_are_refused_or_match_their_format",
    "for_": "test_formatted_values_are_refused_or_match_their_format",
    "registry": "test_login_names_are_refused_or_passed_as_arguments",
    "username": "test_login_names_are_refused_or_passed_as_arguments",
    "grep": "test_grep_is_refused_or_stays_a_local_pattern",
    "entrypoint": "test_run_arguments_and_entrypoint_arrive_unchanged",
    "reason": "test_reason_is_stored_and_sets_no_other_field_of_the_lock",
    "message": "test_message_of_the_page_is_escaped_and_arrives_complete",
}

_many = st.lists(argument, min_size=BATCH, max_size=BATCH)


@given(values=_many)
@cases(EXAMPLES)
def test_exec_arguments_arrive_unchanged(values: list[str]) -> None:
    runs = 'podman() { note podman "$@"; echo true; }\n'
    with shell() as place:
        ran = place.run([runs + inside.execute(APP, "backend", values).text])

    assert ran.injections == []
    (call,) = [call for call in ran.calls if call[:2] == [b"podman", b"exec"]]
    assert call[5:] == [value.encode(errors="surrogateescape") for value in values]


@given(values=_many, entrypoint=_many)
@cases(EXAMPLES)
def test_run_arguments_and_entrypoint_arrive_unchanged(values: list[str], entrypoint: list[str]) -> None:
    service = APP.services[0]
    texts = [
        inside.run_once(APP, service, values, release="r1", entrypoint=entrypoint).text,
        inside.run_on_terminal(APP, service, values, release="r1", entrypoint=entrypoint),
    ]
    with shell() as place:
        ran = place.run(texts)

    assert ran.injections == []
    calls = [call for call in ran.calls if call[:2] == [b"podman", b"run"]]
    for call in calls:
        assert call[-len(values) :] == [value.encode(errors="surrogateescape") for value in values]
        assert json.loads(call[call.index(b"--entrypoint") + 1]) == entrypoint
    assert len(calls) == len(texts)


@given(values=_many)
@cases(EXAMPLES)
def test_arguments_that_are_not_utf8_arrive_unchanged(values: list[str]) -> None:
    answer = LocalHost().run(Script(f"printf '%s\\0' {shell_join(*values)} | od -An -v -tx1"), timeout_seconds=30)

    assert bytes.fromhex(answer.output) == b"".join(f"{value}\0".encode(errors="surrogateescape") for value in values)


@given(values=_many)
@cases(EXAMPLES)
def test_reason_is_stored_and_sets_no_other_field_of_the_lock(values: list[str]) -> None:
    locks = [replace(HOLDER, reason=reason, owner=reason[:8] or "ann") for reason in values]
    with shell() as place:
        texts = [
            lock_file.acquire(f"/var/lib/shop/{number}", held, lease_seconds=60) for number, held in enumerate(locks)
        ]
        assert place.run(texts).injections == []
        for number, reason in enumerate(values):
            parsed = lock_file.parse((place.root / f"var/lib/shop/{number}/lock/held").read_text("utf-8"))
            assert parsed is not None
            assert (parsed.token, parsed.pid, parsed.expires_at) == (HOLDER.token, 41, 1060)
            assert parsed.reason == lock_file._UNPRINTABLE.sub("?", reason)


@given(values=_many)
@cases(EXAMPLES)
def test_reason_is_recorded_unchanged_in_the_history(values: list[str]) -> None:
    for reason in values:
        release = Release("r1", "2026-11-23T00:00:00+00:00", "deploy", Outcome.GOOD, (), reason=reason, owner=reason)
        row = history_line(release)
        assert row.isascii()
        assert "\n" not in row
        assert history.parse(row) == (release,)
    with shell() as place:
        ran = place.run([history.append(APP.home, replace(release, reason=value)) for value in values])
    assert ran.injections == []


@given(values=_many)
@cases(EXAMPLES)
def test_message_of_the_page_is_escaped_and_arrives_complete(values: list[str]) -> None:
    pages = [rendering.maintenance_page(APP, value) for value in values]
    with shell() as place:
        ran = place.run([write_file(f"{APP.home}/{n}.html", html).text for n, html in enumerate(pages)])
        enabled = place.run([maintenance.enable_verified(APP, html).text for html in pages])

    assert (ran.injections, enabled.injections) == ([], [])
    expected = _tags(rendering.maintenance_page(APP, "x"))
    assert all(_tags(html) == expected for html in pages)


def _tags(text: str) -> list[str]:
    return re.findall(r"<[^>]*", text)


@given(registry_name=anything, username=anything, password=anything)
@cases(150)
def test_login_names_are_refused_or_passed_as_arguments(registry_name: str, username: str, password: str) -> None:
    known = Environment("demo", (Target("web1", "192.0.2.1", "deploy", APP),))
    try:
        wanted = logins._named(known, registry_name, username)
    except ConfigError:
        return
    with shell() as place:
        ran = place.run(
            [logins.login_script(replace(wanted, password=password.replace("\0", "")), always_ask=True).text]
        )

    assert ran.injections == []
    asked = next(call for call in ran.calls if call[0] == b"timeout")
    assert asked[asked.index(b"--password-stdin") + 1] == wanted.registry.encode()
    assert asked[asked.index(b"--username") + 1] == wanted.username.encode()
    assert not wanted.registry.startswith("-")
    assert ran.files["password"] == password.replace("\0", "").encode()


@given(text=anything.filter(bool))
@cases(300)
def test_formatted_values_are_refused_or_match_their_format(text: str) -> None:
    """A tag, a batch, a time or a number of lines that the checks accept contains nothing to quote."""
    for check, form in _FORMS:
        try:
            value = check(text)
        except (ConfigError, ValueError, OverflowError):
            continue
        assert re.fullmatch(form, str(value)), (text, value)


def _since(text: str) -> str:
    return str(reading._query(since=text).since) if text else "0"


def _lines(text: str) -> int:
    return reading._query(lines=text).lines


def _batch(text: str) -> str:
    batch_size(text, 3)
    return text


def _platforms(text: str) -> str:
    return ",".join(build_plan._options("", text)[1])


_FORMS: tuple[tuple[Callable[[str], object], str], ...] = (
    (validators.TAG, r"[A-Za-z0-9_][A-Za-z0-9_.-]*"),
    (validators.INTERVAL, r"[0-9.]+"),
    (_platforms, r"[a-z0-9_/,]+"),
    (_batch, r"[0-9]+%?"),
    (_since, r"0|Since\(ago_seconds=([0-9]+|None), moment='[0-9TZ:-]*'\)"),
    (_lines, r"[0-9]+"),
    (lambda text: locks._lease("x", text), r"[0-9]+"),
)


@given(text=anything.filter(bool))
@cases(150)
def test_grep_is_refused_or_stays_a_local_pattern(text: str) -> None:
    with contextlib.suppress(ConfigError):
        pattern = reading._pattern(text)
        assert pattern is not None
        assert pattern.pattern == text
    assert "grep" not in {field.name for field in dataclasses.fields(logs.LogQuery)}


@given(text=anything.filter(lambda text: bool(text) and not text.isalpha()))
@cases(150)
def test_choices_are_refused_with_their_option(text: str) -> None:
    """None of the hostile values is a valid choice."""
    requests: tuple[tuple[str, Callable[[], object]], ...] = (
        ("--severity", lambda: messages._check("x", text)),
        ("on or off", lambda: page._check_options(text, "")),
        ("--color", lambda: reading._query(color=text)),
        ("--build-type", lambda: build_plan._options(text, "")),
        ("--suite", lambda: suites.check_kind(text)),
        ("--only", lambda: restore._check_options("b", text, "demo")),
    )
    for option, check in requests:
        with pytest.raises(ConfigError, match=option):
            check()


@given(values=_many)
@cases(EXAMPLES)
def test_release_ids_of_a_host_are_quoted_in_every_script(values: list[str]) -> None:
    """A release id comes from the host's history, where its format is not checked, so each use has to quote it."""
    parts = [history.read_definition(APP.home, value.replace("/", "")) for value in values]
    parts += [recovery_script(APP.home, APP.name, RecoveryAction.RESTART, "backend", 1, value).text for value in values]
    parts += [remote_run.follow(APP.home, value.replace("/", ""), 0).text for value in values]
    with shell() as place:
        assert place.run(parts).injections == []


@given(text=anything.filter(bool))
@cases(150)
def test_backup_ids_of_a_host_match_their_format_or_are_skipped(text: str) -> None:
    answer = f"@@now\n1000\n@@backup {APP.name}-{text}\n{{}}\n@@verdict\n\n@@end\n"
    try:
        backups = manifest.parse(APP, answer).backups
    except ValueError:
        return
    assert all(re.fullmatch(r"[0-9]{8}T[0-9]{6}Z-[0-9a-z]{6}", backup.id) for backup in backups)


def test_quote_of_a_null_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        quote("a\0b")


def test_login_repr_has_no_password() -> None:
    assert "pass" not in repr(Login("r", "u", "pass"))


def test_every_option_of_every_task_is_covered() -> None:
    tasks = [namespace[name] for name in namespace.task_names]
    names = {argument.name for task in tasks for argument in task.get_arguments() if argument.kind in (str, list)}

    assert names == set(OPTIONS)
