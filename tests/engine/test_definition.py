"""What a release was made of, as the host keeps it: nothing is lost in it and no secret is in it."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from fabfile.commands import definition
from fabfile.commands.podman import env_fingerprints, spec_hash
from fabfile.commands.shell import script
from fabfile.model import Application, Tls
from tests.commands.running import Programs, sh
from tests.commands.sample import application, backend, frontend

FULL = replace(
    application(),
    tls=Tls("/etc/c", "/etc/k", "/etc/chain"),
    uploads="/srv/up",
    log_files=("/a/log", "/b/log"),
    backup_retention_days=7,
    maintenance=True,
)


@pytest.mark.parametrize("app", [application(), FULL, application(frontend(), full_chain=None, database="")])
def test_parse_gives_back_what_was_dumped_but_for_the_environments(app: Application) -> None:
    found = definition.parse(definition.dump(app), app.home)

    for field in fields(Application):
        if field.name != "services" and field.repr:
            assert getattr(found, field.name) == getattr(app, field.name)
    for was, now in zip(app.services, found.services, strict=True):
        assert replace(now, recorded=None) == replace(was, env=())


def test_parse_service_keeps_its_identity_without_its_environment() -> None:
    found = definition.parse(definition.dump(application()), "/var/lib/shop").service("backend")

    assert found.env == ()
    assert spec_hash("shop", found) == spec_hash("shop", backend())
    assert env_fingerprints(found) == env_fingerprints(backend())


def test_dump_holds_no_value_of_the_environment() -> None:
    text = definition.dump(application(backend(env=(("KEY", "hunter2"),))))

    assert "hunter2" not in text
    assert "KEY" in text


def test_dump_of_what_was_parsed_is_the_same() -> None:
    text = definition.dump(definition.parse(definition.dump(FULL), FULL.home))

    assert definition.dump(definition.parse(text, FULL.home)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        "{}",
        '{"name": "shop"}',
        definition.dump(application())[:-20],
        definition.dump(application()).replace('"container_port": 8080', '"container_port": "8080"'),
        definition.dump(application()).replace('"recorded": {', '"recorded": null, "was": {'),
        definition.dump(replace(application(), name="other")),
    ],
)
def test_parse_what_is_no_definition_of_this_application_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no definition"):
        definition.parse(text, "/var/lib/shop")


def test_parse_ignores_what_a_newer_version_added_and_fills_in_what_an_older_one_lacked() -> None:
    content = json.loads(definition.dump(application()))
    content["news"] = 1
    del content["backup_retention_days"]

    assert definition.parse(json.dumps(content), "/var/lib/shop").backup_retention_days == 30


def test_look_prints_the_definition_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    app = application()

    nothing = sh(definition.look(str(tmp_path), "r1"))
    sh(script(definition.write(str(tmp_path), "r1", app)))

    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert sh(definition.look(str(tmp_path), "r1")).stdout == definition.dump(app)
    assert oct((tmp_path / "config" / "r1.json").stat().st_mode & 0o777) == "0o600"


def test_available_says_of_each_image_and_environment_where_it_is(programs: Programs) -> None:
    programs.add("podman", 'case "$*" in *backend*) exit 0 ;; *) exit 1 ;; esac')
    programs.add("skopeo", "exit 0")

    done = sh(definition.available(application()), path=programs.path)

    assert done.stdout.splitlines() == [
        "backend env no",
        "backend image yes",
        "frontend env no",
        "frontend image registry",
    ]


def test_available_image_that_is_nowhere_is_said(programs: Programs) -> None:
    programs.add("podman", "exit 1")
    programs.add("skopeo", "exit 1")

    assert "backend image no" in sh(definition.available(application()), path=programs.path).stdout
