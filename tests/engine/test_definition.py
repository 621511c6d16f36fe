"""The stored definition of a release is complete and contains no secret."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from rolling_upgrade.engine import history
from rolling_upgrade.engine.model import Application, Tls
from rolling_upgrade.engine.podman import spec_hash
from rolling_upgrade.engine.shell import script
from tests.support.sample import application, backend, frontend
from tests.support.shell import Programs, sh

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
