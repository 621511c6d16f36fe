"""Rendered messages: every occasion in every language, masked secrets, long lists."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from string import Template

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolling_upgrade import rendering
from rolling_upgrade.config import validators
from rolling_upgrade.engine.model import HostResult, Image, Notice, Occasion, Outcome, Release, VersionChange
from rolling_upgrade.features.notify.text import LONGEST_LINE, LONGEST_TEXT, Message, compose, duration, version_changes
from tests.support.notices import notice
from tests.support.scripted_host import NEW, OLD, replacing_plan, three_steps

LANGUAGES = ("en", "zh-TW")
DIRECTORY = rendering.TEMPLATES / "notify"


def composed(notice: Notice, language: str = "en", secrets: tuple[str, ...] = ()) -> Message:
    return compose(notice, language, rendering.notice_template, secrets)


def placeholders(path: Path) -> set[str]:
    return set(re.findall(r"\$\{?([a-z_]+)", path.read_text("utf-8")))


def keys(path: Path) -> list[str]:
    return [row.partition(" = ")[0] for row in path.read_text("utf-8").splitlines()]


def test_languages_are_those_of_the_setting() -> None:
    assert {path.name for path in DIRECTORY.iterdir() if path.is_dir()} == set(LANGUAGES)
    assert [validators.LANGUAGE(language) for language in LANGUAGES] == list(LANGUAGES)


def test_languages_have_the_same_templates_with_the_same_placeholders() -> None:
    english, chinese = ({path.name: path for path in (DIRECTORY / language).iterdir()} for language in LANGUAGES)

    assert english.keys() == chinese.keys()
    assert {name: placeholders(path) for name, path in english.items()} == {
        name: placeholders(path) for name, path in chinese.items()
    }
    assert keys(english["words.txt"]) == keys(chinese["words.txt"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_have_every_result_of_a_host(language: str) -> None:
    assert {result.name.lower() for result in HostResult} <= set(keys(DIRECTORY / language / "words.txt"))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("path", sorted((DIRECTORY / "en").glob("*.txt")), ids=lambda path: path.stem)
def test_template_is_valid(language: str, path: Path) -> None:
    assert Template((DIRECTORY / language / path.name).read_text("utf-8")).is_valid()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("occasion", list(Occasion))
def test_compose_every_occasion(occasion: Occasion, language: str) -> None:
    found = composed(notice(occasion), language)

    assert found.subject.startswith("[memoryark production] ")
    assert found.lead
    assert "$" not in found.plain
    assert "inv status --env production" in found.plain


@pytest.mark.parametrize("language", LANGUAGES)
def test_compose_occasions_have_different_subjects(language: str) -> None:
    subjects = {composed(notice(occasion), language).subject for occasion in Occasion}

    assert len(subjects) == len(Occasion)


def test_compose_undone_deploy_lists_every_fact() -> None:
    assert composed(notice()).plain == (
        "[memoryark production] Deploy of v2 failed; all changes were undone\n\n"
        "It failed after 3 min 12 s. All changes on web1, web2 were undone.\n\n"
        "Hosts: web1, web2\nBy: ann\nCheck: backend\nChanges:\n  backend v1 → v2\n  frontend → v2 (web2)\n"
        "Results:\n  web1: upgraded\n  web2: undone\nRun: 20261123T044253Z-6c2844\n"
        "Duration: 3 min 12 s\n"
        "Cause:\n  web2: backend: start green: failed (status 1).\n    last: HTTP 502 <html>&\n"
        "Next: inv status --env production\n\n"
        "-- \nmemoryark · production · 2026-11-23 03:12:45 UTC\n"
    )


def test_compose_successful_deploy_has_the_command_that_undoes_it() -> None:
    found = composed(notice(Occasion.DEPLOY_DONE, cause="", next_command="inv rollback --env production"))

    assert "To undo: inv rollback --env production" in found.plain
    assert "Cause" not in found.plain


def test_compose_masks_secrets_in_every_fact() -> None:
    secret = "open-sesame"
    texts = dict.fromkeys(("who", "target", "check", "cause", "next_command", "text"), f"a {secret} b")
    hostile = notice(
        Occasion.MESSAGE, **texts, hosts=(secret,), changes=(VersionChange(secret, secret, secret, (secret,)),)
    )

    assert secret not in composed(hostile, secrets=(secret,)).plain
    assert "••••••" in composed(hostile, secrets=(secret,)).plain


def test_compose_masks_a_secret_before_it_cuts() -> None:
    secret = "s3cret-" + "x" * 40
    cause = "y" * (LONGEST_TEXT - 20) + secret

    assert "s3cret" not in composed(notice(cause=cause), secrets=(secret,)).plain


def test_compose_many_hosts_are_counted() -> None:
    found = composed(notice(hosts=tuple(f"web{number}" for number in range(1, 61))))

    assert "web10 and 50 more" in found.plain.replace(", and", " and")
    assert "web11" not in found.plain


def test_compose_subject_is_one_line_of_bounded_length() -> None:
    found = composed(notice(target="v2\r\nBcc: eve@example.org\n" + "x" * 5000, who="a\u2028b"))

    assert "\n" not in found.subject
    assert "\r" not in found.subject
    assert len(found.subject) <= LONGEST_LINE


@given(st.text(), st.text(), st.text())
def test_compose_accepts_any_text(who: str, target: str, cause: str) -> None:
    found = composed(notice(who=who, target=target, cause=cause))

    assert "\n" not in found.subject
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", found.plain)


def test_compose_leaves_placeholders_in_values() -> None:
    assert "$who ${cause} $$" in composed(notice(Occasion.MESSAGE, text="$who ${cause} $$")).plain


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (192.4, "3 min 12 s"), (18_420, "5 h 7 min"), (270_000, "3 d 3 h")],
)
def test_duration_has_two_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_version_changes_group_hosts_with_the_same_change() -> None:
    other = Image("registry.test:5000/shop/backend", "v0", "sha256:" + "0" * 64)
    found = list(version_changes([replacing_plan("web1"), replacing_plan("web2"), replacing_plan("web3", other)]))

    assert [(change.before, change.after, change.hosts) for change in found] == [
        ("v1", "v2", ("web1", "web2")),
        ("v0", "v2", ("web3",)),
    ]


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (None, NEW, ("", "registry.test:5000/shop/backend:v2")),
        (OLD, Image("elsewhere/backend", "v2"), ("registry.test:5000/shop/backend:v1", "elsewhere/backend:v2")),
        (OLD, OLD.with_digest("sha256:" + "3" * 64), (f"v1 {'1' * 12}", f"v1 {'3' * 12}")),
        (OLD, OLD, ("v1", "v1")),
        (replace(OLD, tag=""), NEW, ("1" * 12, "v2")),
    ],
)
def test_version_changes_show_the_parts_of_images_that_differ(
    before: Image | None, after: Image, shown: tuple[str, str]
) -> None:
    (found,) = version_changes([replacing_plan("web1", before, after)])

    assert (found.before, found.after) == shown


def test_version_changes_of_a_restore_name_the_backup() -> None:
    record = Release("r2", "", "restore", Outcome.GOOD, (), target="20261122T020000Z-ab12cd")
    plan = replace(three_steps(), result=HostResult.RESTORED, record=record)

    (found,) = version_changes([plan])

    assert (found.what, found.after) == ("data", "20261122T020000Z-ab12cd")
