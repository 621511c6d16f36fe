"""The plan of a build: tag from a real Git repository, refusals before a build starts, choice of the environment."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from rolling_upgrade.engine.model import BuildType, Environment, Source
from rolling_upgrade.errors import ConfigError, PreflightError
from rolling_upgrade.features.build import workflow as building
from rolling_upgrade.features.build.builder import Engine
from rolling_upgrade.features.build.plan import BuildPlan, plan_build, read_source, tag_from_git
from tests.support.project import ENV, HOSTS, Project

NOW = datetime(2026, 11, 24, 8, 30, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose backend is built from a clean repository beside it, by an engine outside PATH."""
    monkeypatch.delenv("DEPLOY_ENV", raising=False)
    (tmp_path / "suite").mkdir()
    project = Project(tmp_path / "suite")
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "Containerfile").write_text("FROM scratch\n")
    git(folder, "init", "--quiet", "--initial-branch", "trunk")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "one")
    (tmp_path / "podman").write_text("#!/bin/sh\n")
    (tmp_path / "podman").chmod(0o755)
    declare(project, build={"context": "../app"}, building={"engine": str(tmp_path / "podman")})
    return project


def declare(project: Project, *, build: object = None, **top: object) -> None:
    path = project.root / "deploy/services.yaml"
    content = yaml.safe_load(path.read_text()) | top
    if build:
        content["services"][0]["build"] = build
    path.write_text(yaml.safe_dump(content))


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=ann", "-c", "user.email=ann@lab.test"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def plan(project: Project, **options: Any) -> BuildPlan:
    return plan_build(building.load_environment("demo", project.root, options.get("tag", "")), **options)


def test_plan_has_reference_labels_and_build_type(project: Project) -> None:
    folder = project.root.parent / "app"
    git(folder, "remote", "add", "origin", "https://ann:s3cret@git.test/ark.git")

    build_plan = plan(project, tag="v2.0.1", build_type="debug", platform="linux/arm64")

    assert build_plan.references == {"backend": "registry.example.org/memoryark/backend:v2.0.1"}
    argv = build_plan.command(build_plan.builds[0])
    assert f"org.opencontainers.image.revision={git(folder, 'rev-parse', 'HEAD')}" in argv
    assert "org.opencontainers.image.source=https://git.test/ark.git" in argv
    assert "org.opencontainers.image.version=v2.0.1" in argv
    assert {"BUILD_TYPE=debug", "linux/arm64"} < set(argv)
    assert build_plan.build_type is BuildType.DEBUG
    assert argv[-1] == str(folder)


def test_plan_with_dirty_tree_is_refused_unless_forced(project: Project) -> None:
    (project.root.parent / "app/new.txt").write_text("x")

    with pytest.raises(PreflightError, match=r"backend: .*new\.txt"):
        plan(project)

    build_plan = plan(project, force=True)
    assert build_plan.tag.endswith("-dirty")
    assert any(word.endswith("+changes") for word in build_plan.command(build_plan.builds[0]))


def test_build_of_dirty_tree_prints_a_warning(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root.parent / "app/new.txt").write_text("x")

    building.build("demo", root=project.root, tag="v2", force=True, dry_run=True)

    assert re.search(
        r"^warning: backend: .* differs .*new\.txt; built with these changes$", capsys.readouterr().out, re.MULTILINE
    )


def test_plan_with_invalid_options_names_each(project: Project) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(project, build_type="fast", platform="linux/amd64,--rm")

    assert [issue.path for issue in caught.value.issues] == ["--build-type", "--platform"]


def test_plan_with_service_without_build_section_is_refused(project: Project) -> None:
    with pytest.raises(ConfigError, match=r"--service: found 'frontend'; expected .*backend"):
        plan(project, services=("frontend",))


def test_plan_without_any_build_section_shows_an_example(project: Project) -> None:
    content = yaml.safe_load((project.root / "deploy/services.yaml").read_text())
    del content["services"][0]["build"]
    (project.root / "deploy/services.yaml").write_text(yaml.safe_dump(content))

    with pytest.raises(ConfigError, match="`build:` section"):
        plan(project)


@pytest.mark.parametrize(
    ("build", "place"), [({"context": "../nowhere"}, "context"), ({"context": "../app", "file": "Other"}, "file")]
)
def test_plan_with_missing_context_or_file_is_refused(project: Project, build: dict[str, str], place: str) -> None:
    declare(project, build=build)

    with pytest.raises(ConfigError) as caught:
        plan(project)

    assert [issue.path for issue in caught.value.issues] == [f"services.backend.build.{place}"]


def test_plan_without_an_engine_is_refused(project: Project) -> None:
    declare(project, building={"engine": "/nowhere/podman"})

    with pytest.raises(PreflightError, match="/nowhere/podman is not on this workstation"):
        plan(project)


def docker(project: Project, text: str) -> Path:
    path = project.root.parent / "docker"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    declare(project, building={"engine": str(path)})
    return path


def test_plan_with_engine_that_does_not_answer_is_refused(project: Project) -> None:
    docker(project, "echo Cannot connect to the Docker daemon >&2; exit 1")

    with pytest.raises(PreflightError, match=r"docker does not answer \(status 1\): nothing was built\.\nCannot"):
        plan(project)

    assert plan(project, dry_run=True).engine.is_docker


def test_docker_build_names_a_containerfile(project: Project) -> None:
    docker(project, "exit 0")
    build_plan = plan(project)
    argv = build_plan.command(build_plan.builds[0])

    assert argv[argv.index("--file") + 1] == str(project.root.parent / "app/Containerfile")


def test_docker_build_with_squash_or_several_platforms_is_refused(project: Project) -> None:
    path = docker(project, "exit 0")
    declare(project, building={"engine": str(path), "squash": True})

    with pytest.raises(ConfigError) as caught:
        plan(project, platform="linux/amd64,linux/arm64")

    assert [issue.path for issue in caught.value.issues] == ["services.backend.build.squash", "--platform"]


def test_load_environment_without_name_uses_the_local_env_file(project: Project) -> None:
    assert building.load_environment(None, project.root, "").name == "demo"


def test_load_environment_without_name_uses_deploy_env(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_ENV", "nowhere")

    with pytest.raises(ConfigError, match="'nowhere'"):
        building.load_environment(None, project.root, "")


def add_production(project: Project, **values: str) -> None:
    project.write("hosts.yaml", HOSTS + "  production:\n    hosts:\n      web9: {address: 192.0.2.19}\n")
    lines = {**ENV, "ENVIRONMENT": "production", **values}
    project.write("deploy/production.env", "\n".join(f"{key}={value}" for key, value in lines.items()))


def test_load_environment_with_equal_settings_prefers_non_production(project: Project) -> None:
    add_production(project)

    assert building.load_environment(None, project.root, "").name == "demo"


def test_load_environment_with_different_settings_is_refused(project: Project) -> None:
    add_production(project, BACKEND_IMAGE="other.example.org/backend")

    with pytest.raises(ConfigError, match=r"demo, production differ.*\n?.*--env"):
        building.load_environment(None, project.root, "")


def test_tag_from_git_has_version_hash_and_outside_production_the_time(project: Project) -> None:
    folder = project.root.parent / "app"
    untagged = {"backend": read_source(str(folder))}
    git(folder, "tag", "v1.4.0")
    tagged = {"backend": read_source(str(folder))}
    short = git(folder, "rev-parse", "HEAD")[:8]

    assert tag_from_git(untagged, production=True, now=NOW) == f"0.0.0-{short}"
    assert tag_from_git(tagged, production=True, now=NOW) == f"v1.4.0-{short}"
    assert tag_from_git(tagged, production=False, now=NOW) == f"v1.4.0-20261124T083000Z-{short}"
    assert tagged["backend"].branch == "trunk"


def test_tag_from_git_with_two_commits_or_none_is_refused(tmp_path: Path) -> None:
    for revisions in (("a" * 40, "b" * 40), ("",)):
        sources = {f"s{number}": Source(revision=revision) for number, revision in enumerate(revisions)}
        with pytest.raises(ConfigError, match="--tag"):
            tag_from_git(sources, production=True, now=NOW)


def test_read_outside_a_repository_returns_empty_source(tmp_path: Path) -> None:
    assert read_source(str(tmp_path)) == Source()


def test_labels_omit_empty_values() -> None:
    build_plan = BuildPlan(
        environment=Environment("demo", ()),
        engine=Engine(("podman",)),
        builds=(),
        references={},
        sources={"backend": Source(revision="abc")},
        tag="v2",
        build_type=BuildType.RELEASE,
        platforms=(),
        created="",
    )

    assert build_plan.labels("backend") == {
        "org.opencontainers.image.revision": "abc",
        "org.opencontainers.image.version": "v2",
        "org.opencontainers.image.ref.name": "v2",
        "rolling.build-type": "release",
    }
