"""Builds and suites in services.yaml: values, inherited defaults, and errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rolling_upgrade.config.loader import load_suites
from rolling_upgrade.config.locate import list_environments_with_values
from rolling_upgrade.engine.model import Pipeline, SuiteKind
from tests.support.project import MEMORYARK, Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with the services of the example."""
    return Project(tmp_path)


def declare(project: Project, *, build: object = None, **top: Any) -> None:
    path = project.root / "deploy/services.yaml"
    content = yaml.safe_load(path.read_text()) | top
    if build is not None:
        content["services"][0]["build"] = build
    path.write_text(yaml.safe_dump(content))


def test_example_has_no_builds_and_no_suites(project: Project) -> None:
    assert project.load().pipeline == Pipeline(reports=str(project.root / "reports"))


def test_example_uncommented_builds_and_suites_are_valid(project: Project) -> None:
    text = (MEMORYARK / "deploy/services.yaml").read_text()
    uncommented = re.sub(r"^( *)# (?=build:|building:|suites:|  - \{kind|  - kind)", r"\1", text, flags=re.MULTILINE)
    assert uncommented != text
    project.write("deploy/services.yaml", uncommented)

    found = project.load().pipeline

    assert [build.service for build in found.builds] == ["backend", "frontend"]
    assert {suite.kind for suite in found.suites} == set(SuiteKind)


def test_build_has_local_paths_and_inherits_defaults(project: Project) -> None:
    build = {"context": "../app", "file": "Own", "args": {"A": "1"}, "cache": "true"}
    declare(project, build=build, building={"engine": "sudo podman", "cache": "false", "scan": ["trivy", "image"]})

    pipeline = project.load().pipeline
    (loaded,) = pipeline.builds

    assert (loaded.context, loaded.file) == (str(project.root.parent / "app"), str(project.root.parent / "app/Own"))
    assert (loaded.args, loaded.cache, loaded.squash, loaded.scan) == ((("A", "1"),), True, False, ("trivy", "image"))
    assert pipeline.engine == ("sudo", "podman")


def test_command_is_a_list_or_a_text_for_sh(project: Project) -> None:
    declare(project, suites=[{"kind": "unit", "command": "make test"}, {"kind": "LOAD", "command": ["make", "load"]}])

    unit, load = project.load().pipeline.suites

    assert unit.command == ("sh", "-c", "make test")
    assert (load.command, load.kind, load.folder) == (("make", "load"), SuiteKind.LOAD, str(project.root))
    assert load_suites(project.root) == (unit, load)


@pytest.mark.parametrize(
    ("top", "place"),
    [
        ({"building": {"engine": "make"}}, "building.engine"),
        ({"building": {"engine": "podman 'x"}}, "building.engine"),
        ({"building": {"scan": []}}, "building.scan"),
        ({"building": {"squash": "perhaps"}}, "building.squash"),
        ({"suites": [{"kind": "smoke", "command": "x"}]}, "suites[0].kind"),
        ({"suites": [{"kind": "unit", "command": ""}]}, "suites[0].command"),
        ({"suites": [{"kind": "unit", "command": [["x"]]}]}, "suites[0].command"),
        ({"suites": [{"kind": "unit"}]}, "suites[0].command"),
        ({"suites": [{"kind": "unit", "command": "x", "timeout_seconds": "0"}]}, "suites[0].timeout_seconds"),
        ({"suites": [{"kind": "unit", "command": "x", "env": {"A-B": "1"}}]}, "suites[0].env.A-B"),
        ({"build": {"file": "x"}}, "services[0].build.context"),
        ({"build": {"context": "x", "target": "--rm"}}, "services[0].build.target"),
        ({"build": {"context": "x", "args": {"-x": "1"}}}, "services[0].build.args.-x"),
    ],
)
def test_errors_have_their_location(project: Project, top: dict[str, Any], place: str) -> None:
    declare(project, **top)

    assert project.places() == [("deploy/services.yaml", place)]


def test_list_environments_with_values_needs_an_env_file(project: Project) -> None:
    assert list_environments_with_values(project.root) == ("demo",)

    (project.root / "deploy/demo.env").unlink()
    assert list_environments_with_values(project.root) == ()
