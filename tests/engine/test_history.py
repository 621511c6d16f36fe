"""The history of a host: each line is appended once, malformed ones are skipped, and definitions hold no secret."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from rolling_upgrade.engine import history
from rolling_upgrade.engine.model import Application, Color, Outcome, Release, ServiceRelease, Start, Tls
from rolling_upgrade.engine.podman import spec_hash
from rolling_upgrade.engine.shell import script
from tests.support.history_line import history_line
from tests.support.sample import application, backend, frontend
from tests.support.shell import HOSTILE, Programs, sh

RELEASE = Release(
    "20261123T000000Z-abcdef",
    "2026-11-23T00:00:00+00:00",
    "deploy",
    Outcome.GOOD,
    (("backend", ServiceRelease("registry.test/shop/backend:v2", "sha256:aa", Color.GREEN, "spec")),),
    "ann",
    "because",
    12.3,
)


def stored(home: Path) -> tuple[Release, ...]:
    return history.parse(Path(history.history_file(str(home))).read_text("utf-8"))


def test_append_release_reads_back_equal(tmp_path: Path) -> None:
    done = sh(script(history.append(str(tmp_path), RELEASE)))

    assert (done.returncode, stored(tmp_path)) == (0, (RELEASE,))


def test_append_repeated_writes_it_once(tmp_path: Path) -> None:
    for seconds in (1.0, 2.0):
        sh(script(history.append(str(tmp_path), replace(RELEASE, seconds=seconds))))

    assert len(stored(tmp_path)) == 1


def test_append_bad_outcome_after_a_good_one_of_the_same_run_is_kept(tmp_path: Path) -> None:
    sh(script(history.append(str(tmp_path), RELEASE)))
    sh(script(history.append(str(tmp_path), replace(RELEASE, outcome=Outcome.UNDONE))))

    assert [release.outcome for release in stored(tmp_path)] == [Outcome.GOOD, Outcome.UNDONE]


@pytest.mark.parametrize("value", HOSTILE)
def test_append_hostile_reason_and_owner_arrive_and_run_nothing(value: str, tmp_path: Path) -> None:
    wanted = replace(RELEASE, reason=value, owner=value)

    sh(script(history.append(str(tmp_path), wanted)), cwd=tmp_path)

    assert stored(tmp_path) == (wanted,)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("reason", ["it broke", *HOSTILE])
def test_append_after_an_ending_records_its_outcome_reason_and_seconds(reason: str, tmp_path: Path) -> None:
    ending = history.ending(Outcome.UNDO_FAILED, reason, 61.25)

    sh(script(ending, history.append(str(tmp_path), RELEASE)), cwd=tmp_path)

    assert stored(tmp_path) == (replace(RELEASE, outcome=Outcome.UNDO_FAILED, reason=reason, seconds=61.2),)
    assert not (tmp_path / "pwned").exists()


def test_append_writes_the_line_before_the_fields_of_the_host(tmp_path: Path) -> None:
    sh(script(history.append(str(tmp_path), RELEASE)))

    written = Path(history.history_file(str(tmp_path))).read_text("utf-8")
    assert written.startswith(history_line(RELEASE)[:-1] + ", ")


def test_append_fails_if_the_history_is_not_writable(tmp_path: Path) -> None:
    assert sh(script(history.append(f"{tmp_path}/none", RELEASE))).returncode != 0


def test_line_reason_of_many_lines_stays_one_line() -> None:
    assert "\n" not in history_line(replace(RELEASE, reason="a\nb\u2028c"))


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "not json",
        '{"id": "half',
        "[]",
        "null",
        "3",
        '{"id": "x"}',
        history_line(RELEASE).replace('"good"', '"splendid"'),
        history_line(RELEASE).replace('"green"', '"red"'),
        history_line(RELEASE).replace('"seconds": 12.3', '"seconds": null'),
        history_line(RELEASE).replace('"services": {', '"services": [], "x": {'),
        history_line(RELEASE).replace('"image": "', '"image": "; reboot '),
    ],
)
def test_parse_skips_malformed_lines(garbage: str) -> None:
    assert history.parse(f"{history_line(RELEASE)}\n{garbage}\n{history_line(RELEASE)}") == (RELEASE, RELEASE)


def written(home: Path, *releases: Release) -> tuple[list[str], str]:
    """Append the releases and return the lines and the head of the history."""
    for release in releases:
        assert sh(script(history.append(str(home), release))).returncode == 0
    text, head = history.split(sh(script(history.read(str(home)))).stdout)
    return text.splitlines(), head


def faults(lines: list[str], head: str) -> list[int]:
    return [fault.line for fault in history.verify("".join(f"{line}\n" for line in lines), head)]


FOUR = tuple(replace(RELEASE, id=f"r{number}", reason='it\'s "so" \\ %s $HOME') for number in range(1, 5))


def test_verify_unchanged_history_is_intact(tmp_path: Path) -> None:
    assert faults(*written(tmp_path, *FOUR)) == []


def test_verify_empty_history_is_intact(tmp_path: Path) -> None:
    assert faults(*written(tmp_path)) == []


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_verify_changed_line_is_found(tmp_path: Path, number: int) -> None:
    lines, head = written(tmp_path, *FOUR)
    lines[number] = lines[number].replace('"owner": "ann"', '"owner": "bob"')

    assert faults(lines, head) == [min(number + 2, 4)]


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_verify_removed_line_is_found(tmp_path: Path, number: int) -> None:
    lines, head = written(tmp_path, *FOUR)
    del lines[number]

    assert faults(lines, head) == [min(number + 1, 3)]


def test_verify_lines_in_another_order_are_found(tmp_path: Path) -> None:
    lines, head = written(tmp_path, *FOUR)

    assert faults([lines[0], lines[2], lines[1], lines[3]], head) != []


def test_verify_finds_an_emptied_history(tmp_path: Path) -> None:
    _, head = written(tmp_path, *FOUR)

    assert faults([], head) == [0]


def test_verify_finds_a_malformed_line(tmp_path: Path) -> None:
    lines, head = written(tmp_path, *FOUR)

    assert faults([*lines[:2], "half a li", *lines[2:]], head) == [3, 4]


def test_verify_tolerates_a_head_one_line_behind(tmp_path: Path) -> None:
    lines, _ = written(tmp_path, *FOUR[:3])
    before = hashlib.sha256(lines[1].encode()).hexdigest()

    assert faults(lines, before) == []


def test_append_after_a_truncated_line_starts_a_new_line(tmp_path: Path) -> None:
    written(tmp_path, FOUR[0])
    with Path(history.history_file(str(tmp_path))).open("a") as file:
        file.write('{"id": "r2", "outc')

    lines, head = written(tmp_path, FOUR[2])

    assert [release.id for release in history.parse("\n".join(lines))] == ["r1", "r3"]
    assert faults(lines, head) == [2]


@pytest.mark.parametrize("name", ["id", "target", "left"])
@pytest.mark.parametrize(
    "value",
    [*(value for value in HOSTILE if value), "x; touch pwned", "$(id)", "a b", "-x", "--force", "a\n", "x" * 129],
)
def test_id_with_shell_syntax_is_ignored(name: str, value: str) -> None:
    changed = {
        "id": replace(RELEASE, id=value),
        "target": replace(RELEASE, target=value),
        "left": replace(RELEASE, left=value),
    }
    lines = [history_line(changed[name]), history_line(replace(RELEASE, id="an-earlier.form_1"))]

    assert [release.id for release in history.parse("\n".join(lines))] == ["an-earlier.form_1"]


def test_append_names_the_key_and_the_address_of_the_locks_holder(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "held").write_text('token=t\nkey=SHA256:ab+/c="; rm\nclient=192.0.2.7\n')

    lines, _ = written(tmp_path, RELEASE)

    found = history.parse(lines[0])[0]
    assert (found.key, found.client) == ("SHA256:ab+/c=rm", "192.0.2.7")


def test_split_answer_without_its_end_is_refused() -> None:
    with pytest.raises(ValueError, match="truncated"):
        history.split('{"id": "r1"')


FULL = replace(
    application(),
    tls=Tls("/etc/c", "/etc/k", "/etc/chain"),
    uploads="/srv/up",
    log_files=("/a/log", "/b/log"),
    backup_retention_days=7,
    maintenance=True,
)


@pytest.mark.parametrize("app", [application(), FULL, application(frontend(), full_chain=None, database="")])
def test_parse_restores_a_dump_except_the_environments(app: Application) -> None:
    found = history.parse_definition(history.dump_definition(app), app.home)

    for field in fields(Application):
        if field.name != "services" and field.repr:
            assert getattr(found, field.name) == getattr(app, field.name)
    for was, now in zip(app.services, found.services, strict=True):
        assert replace(now, recorded=None) == replace(was, env=())


def test_parse_service_keeps_its_identity_without_its_environment() -> None:
    found = history.parse_definition(history.dump_definition(application()), "/var/lib/shop").service("backend")

    assert found.env == ()
    assert spec_hash("shop", found) == spec_hash("shop", backend())


def test_dump_contains_no_value_of_the_environment() -> None:
    text = history.dump_definition(application(backend(env=(("KEY", "hunter2"),))))

    assert "hunter2" not in text
    assert "recorded" in text


def test_dump_of_a_parsed_definition_is_unchanged() -> None:
    text = history.dump_definition(history.parse_definition(history.dump_definition(FULL), FULL.home))

    assert history.dump_definition(history.parse_definition(text, FULL.home)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        "{}",
        '{"name": "shop"}',
        history.dump_definition(application())[:-20],
        history.dump_definition(application()).replace('"container_port": 8080', '"container_port": "8080"'),
        history.dump_definition(application()).replace('"recorded": {', '"recorded": null, "was": {'),
        history.dump_definition(replace(application(), name="other")),
    ],
)
def test_parse_definition_of_another_application_or_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a release definition"):
        history.parse_definition(text, "/var/lib/shop")


def test_parse_ignores_unknown_fields_and_fills_in_missing_ones() -> None:
    content = json.loads(history.dump_definition(application()))
    content["news"] = 1
    del content["backup_retention_days"]

    assert history.parse_definition(json.dumps(content), "/var/lib/shop").backup_retention_days == 30


def test_read_definition_prints_the_definition_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    app = application()

    nothing = sh(history.read_definition(str(tmp_path), "r1"))
    sh(script(history.write_definition(str(tmp_path), "r1", app)))

    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert sh(history.read_definition(str(tmp_path), "r1")).stdout == history.dump_definition(app)
    assert oct((tmp_path / "config" / "r1.json").stat().st_mode & 0o777) == "0o600"


def test_available_prints_the_location_of_each_image_and_environment(programs: Programs) -> None:
    programs.add("podman", 'case "$*" in *backend*) exit 0 ;; *) exit 1 ;; esac')
    programs.add("skopeo", "exit 0")

    done = sh(history.available(application()), path=programs.path)

    assert done.stdout.splitlines() == [
        "backend env no",
        "backend image yes",
        "frontend env no",
        "frontend image registry",
    ]


def test_available_missing_image_is_reported(programs: Programs) -> None:
    programs.add("podman", "exit 1")
    programs.add("skopeo", "exit 1")

    assert "backend image no" in sh(history.available(application()), path=programs.path).stdout


def test_parse_definition_without_confinement_has_none() -> None:
    content = json.loads(history.dump_definition(application()))
    for service in content["services"]:
        del service["confinement"]
    found = history.parse_definition(json.dumps(content), "/var/lib/shop")

    assert [service.confinement for service in found.services] == [None, None]
    assert spec_hash("shop", found.service("backend")) == spec_hash("shop", backend())


def test_dump_service_port_has_the_key_of_definitions_that_hosts_already_store() -> None:
    content = json.loads(history.dump_definition(application()))

    assert content["services"][0]["stable_port"] == 8080
    assert "service_port" not in content["services"][0]


def test_parse_definition_without_start_starts_together() -> None:
    content = json.loads(history.dump_definition(application(backend(start=Start.AFTER_PREVIOUS))))
    assert content["services"][0].pop("start") == "after_previous"

    app = history.parse_definition(json.dumps(content), "/var/lib/shop")

    assert app.service("backend").start is Start.TOGETHER
