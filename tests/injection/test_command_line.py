"""Every word of the command line, hostile: refused, or byte for byte where it belongs, and nothing else happens.

Batches of words go through the real checks, the real builders and one real `sh` each. A new option fails the last test
until it is among OPTIONS.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabfile import render
from fabfile.commands import definition, inside, journal, lock, logs, maintenance, manifest, record, registry, watchdog
from fabfile.commands.shell import Script, quote, words, write_file
from fabfile.config import forms
from fabfile.errors import ConfigError
from fabfile.model import Environment, Lock, Login, Outcome, Release, Target
from fabfile.model.watch import Act
from fabfile.plans.batches import size
from fabfile.remote.local_host import LocalHost
from fabfile.tasks.namespace import namespace
from fabfile.workflows import build_order, locks, messages, restore, suites
from fabfile.workflows import logs as reading
from fabfile.workflows import maintenance as page
from fabfile.workflows import registry as logins
from tests.commands.sample import application
from tests.injection.hostile import anything, argument, cases
from tests.injection.shell import shell

APP = application()
BATCH, EXAMPLES = 20, 12
HOLDER = Lock("20261123T020000Z-abcdef", "ann", "laptop", 41, "", 0, 0)

#: How each option of the tasks is proved: by the name of a test below, or because it never leaves this machine.
OPTIONS = {
    "env": "names an environment of a file here",
    "host": "names hosts of a file here; of a new one: tests/workflows/test_starting.py",
    "hosts": "names hosts of a file here",
    "service": "names a service of a file here; of a new one: tests/workflows/test_starting.py",
    "app": "has the form of APP_NAME; tests/workflows/test_starting.py",
    "domain": "has the form of DOMAIN_NAME; tests/workflows/test_starting.py",
    "user": "has the form of user in hosts.yaml; tests/workflows/test_starting.py",
    "certificate": "one of a list",
    "email": "has the form of acme_email in hosts.yaml; tests/workflows/test_starting.py",
    "health": "has the form of health in services.yaml; tests/workflows/test_starting.py",
    "route": "has the form of prefix in services.yaml; tests/workflows/test_starting.py",
    "directory": "is a path here",
    "name": "names a lab here",
    "release": "names a release of Debian here, or a run in the hosts' histories",
    "tag": "test_words_with_a_form",
    "batch": "test_words_with_a_form",
    "transfer": "one of a list",
    "color": "one of a list",
    "severity": "one of a list",
    "switch": "one of a list",
    "only": "one of a list",
    "image": "is a path here",
    "shell": "one of a list",
    "names": "one of a list",
    "max_failures": "is a number here; tests/tasks/test_names.py",
    "html": "is a path here",
    "output": "is a path here",
    "load": "is a path here",
    "fetch": "is a path here",
    "from_": "names an environment of a file here",
    "build_type": "one of a list",
    "platform": "test_words_with_a_form",
    "suite": "one of a list",
    "to": "names an environment of a file here, a release that the host has, or is a path here",
    "backup": "names a backup that the host has",
    "confirm": "is compared here",
    "fingerprint": "is compared here",
    "replace": "names hosts of a file here",
    "add": "is a path here, or a public key; tests/sealing",
    "remove": "names a line of a file here",
    "comment": "is text of a file here",
    "key": "is a path here, or a public key; tests/model/test_public_key.py",
    "new_password_file": "is a path here",
    "resume": "is a path here",
    "form": "one of a list",
    "lines": "test_words_with_a_form",
    "tail": "test_words_with_a_form",
    "since": "test_words_with_a_form",
    "interval": "test_words_with_a_form",
    "for_": "test_words_with_a_form",
    "registry": "test_login",
    "username": "test_login",
    "grep": "test_grep",
    "reason": "test_reason",
    "message": "test_message",
}

_many = st.lists(argument, min_size=BATCH, max_size=BATCH)


@given(values=_many)
@cases(EXAMPLES)
def test_exec_words_arrive_as_they_are(values: list[str]) -> None:
    runs = 'podman() { note podman "$@"; echo true; }\n'
    with shell() as place:
        ran = place.run([runs + inside.execute(APP, "backend", values).text])

    assert ran.taken_in == []
    (call,) = [call for call in ran.calls if call[:2] == [b"podman", b"exec"]]
    assert call[5:] == [value.encode(errors="surrogateescape") for value in values]


@given(values=_many)
@cases(EXAMPLES)
def test_bytes_that_are_no_text_reach_a_host_as_they_are(values: list[str]) -> None:
    answer = LocalHost().run(Script(f"printf '%s\\0' {words(*values)} | od -An -v -tx1"), timeout_seconds=30)

    assert bytes.fromhex(answer.output) == b"".join(f"{one}\0".encode(errors="surrogateescape") for one in values)


@given(values=_many)
@cases(EXAMPLES)
def test_reason_is_told_and_gives_no_other_field_of_the_lock(values: list[str]) -> None:
    with shell() as place:
        home = place.root / "var/lib/shop"
        for number, reason in enumerate(values):
            taken = replace(HOLDER, reason=reason, owner=reason[:8] or "ann")
            text = lock.acquire(f"/var/lib/shop/{number}", taken, lease_seconds=60)
            assert place.run([text]).taken_in == []
            found = lock.parse((home / str(number) / "lock/held").read_text("utf-8"))
            assert found is not None
            assert (found.token, found.pid, found.expires_at) == (HOLDER.token, 41, 1060)
            assert found.reason == lock._UNPRINTABLE.sub("?", reason)


@given(values=_many)
@cases(EXAMPLES)
def test_reason_stands_in_the_history_as_it_is(values: list[str]) -> None:
    for reason in values:
        release = Release("r1", "2026-11-23T00:00:00+00:00", "deploy", Outcome.GOOD, (), reason=reason, owner=reason)
        row = record.line(release)
        assert row.isascii()
        assert "\n" not in row
        assert record.parse(row) == (release,)
    with shell() as place:
        ran = place.run([record.append(APP.home, replace(release, reason=one)) for one in values])
    assert ran.taken_in == []


@given(values=_many)
@cases(EXAMPLES)
def test_message_of_the_page_is_text_and_arrives_whole(values: list[str]) -> None:
    pages = [render.maintenance_page(APP, value) for value in values]
    with shell() as place:
        ran = place.run([write_file(f"{APP.home}/{n}.html", one).text for n, one in enumerate(pages)])
        proved = place.run([maintenance.prove_on(APP, one).text for one in pages])

    assert (ran.taken_in, proved.taken_in) == ([], [])
    usual = _tags(render.maintenance_page(APP, "x"))
    assert all(_tags(one) == usual for one in pages)


def _tags(text: str) -> list[str]:
    return re.findall(r"<[^>]*", text)


@given(registry_name=anything, username=anything, password=anything)
@cases(150)
def test_login_names_are_refused_or_no_options(registry_name: str, username: str, password: str) -> None:
    known = Environment("demo", (Target("web1", "192.0.2.1", "deploy", APP),))
    try:
        wanted = logins._named(known, registry_name, username)
    except ConfigError:
        return
    with shell() as place:
        ran = place.run([registry.login(replace(wanted, password=password.replace("\0", "")), ask_again=True).text])

    assert ran.taken_in == []
    asked = next(call for call in ran.calls if call[0] == b"timeout")
    assert asked[asked.index(b"--password-stdin") + 1] == wanted.registry.encode()
    assert asked[asked.index(b"--username") + 1] == wanted.username.encode()
    assert not wanted.registry.startswith("-")
    assert ran.files["password"] == password.replace("\0", "").encode()


@given(text=anything.filter(bool))
@cases(300)
def test_words_with_a_form_are_refused_or_have_it(text: str) -> None:
    """A tag, a batch, a time, a number of lines: what the checks let pass has nothing to quote."""
    for check, form in _FORMS:
        try:
            found = check(text)
        except (ConfigError, ValueError, OverflowError):
            continue
        assert re.fullmatch(form, str(found)), (text, found)


def _since(text: str) -> str:
    return str(reading._wanted(reading.Request("demo", Path(), since=text)).since) if text else "0"


def _lines(text: str) -> int:
    return reading._wanted(reading.Request("demo", Path(), lines=text)).lines


def _batch(text: str) -> str:
    size(text, 3)
    return text


def _platforms(text: str) -> str:
    return ",".join(build_order._words(build_order.Request("demo", Path(), platform=text))[1])


_FORMS: tuple[tuple[Callable[[str], object], str], ...] = (
    (forms.TAG, r"[A-Za-z0-9_][A-Za-z0-9_.-]*"),
    (forms.INTERVAL, r"[0-9.]+"),
    (_platforms, r"[a-z0-9_/,]+"),
    (_batch, r"[0-9]+%?"),
    (_since, r"0|Since\(ago_seconds=([0-9]+|None), moment='[0-9TZ:-]*'\)"),
    (_lines, r"[0-9]+"),
    (lambda text: locks._lease(locks.Request("demo", Path(), reason="x", lease=text)), r"[0-9]+"),
)


@given(text=anything.filter(bool))
@cases(150)
def test_grep_is_refused_or_a_pattern_that_stays_here(text: str) -> None:
    with contextlib.suppress(ConfigError):
        found = reading._pattern(text)
        assert found is not None
        assert found.pattern == text
    assert "grep" not in {one.name for one in dataclasses.fields(logs.Wanted)}


@given(text=anything.filter(lambda text: bool(text) and not text.isalpha()))
@cases(150)
def test_words_of_a_list_are_refused_with_their_option(text: str) -> None:
    """None of the hostile words is one of a list."""
    requests: tuple[tuple[str, Callable[[], object]], ...] = (
        ("--severity", lambda: messages._check(messages.Request("demo", Path(), "x", text))),
        ("on or off", lambda: page._check(page.Request("demo", Path(), text))),
        ("--color", lambda: reading._wanted(reading.Request("demo", Path(), color=text))),
        ("--build-type", lambda: build_order._words(build_order.Request("demo", Path(), build_type=text))),
        ("--suite", lambda: suites.check_kind(text)),
        ("--only", lambda: restore._refuse_mistakes(restore.Request("demo", Path(), "b", text))),
    )
    for option, check in requests:
        with pytest.raises(ConfigError, match=option):
            check()


@given(values=_many)
@cases(EXAMPLES)
def test_ids_that_a_host_names_are_quoted_wherever_they_stand(values: list[str]) -> None:
    """A release's id comes from the host's own history: it has no form there, so each use has to quote it."""
    parts = [definition.look(APP.home, value.replace("/", "")) for value in values]
    parts += [watchdog.act(APP.home, APP.name, Act.RESTART, "backend", 1, value).text for value in values]
    parts += [journal.abort(APP.home, value.replace("/", "")) for value in values]
    with shell() as place:
        assert place.run(parts).taken_in == []


@given(text=anything.filter(bool))
@cases(150)
def test_backup_ids_of_a_host_have_their_form_or_are_left_out(text: str) -> None:
    said = f"@@now\n1000\n@@backup {APP.name}-{text}\n{{}}\n@@verdict\n\n@@end\n"
    try:
        _, found = manifest.parse(APP, said)
    except ValueError:
        return
    assert all(re.fullmatch(r"[0-9]{8}T[0-9]{6}Z-[0-9a-z]{6}", one.id) for one in found)


def test_quote_of_a_null_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        quote("a\0b")


def test_login_has_its_secret_in_no_word() -> None:
    assert "pass" not in repr(Login("r", "u", "pass"))


def test_every_option_of_every_task_is_among_the_cases() -> None:
    tasks = [namespace[name] for name in namespace.task_names]
    found = {one.name for task in tasks for one in task.get_arguments() if one.kind in (str, list)}

    assert found == set(OPTIONS)
