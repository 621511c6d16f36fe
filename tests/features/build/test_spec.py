"""What a build is of: its tag from a real Git, its refusals before anything is built, the environment that is meant."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from rolling_upgrade.engine.model import BuildType, Source
from rolling_upgrade.errors import ConfigError, PreflightError
from rolling_upgrade.features.build import source, spec
from rolling_upgrade.features.build import workflow as building
from rolling_upgrade.features.build.spec import BuildPlan, made_tag, plan_build
from tests.support.project import ENV, HOSTS, Project

NOW = datetime(2026, 11, 24, 8, 30, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose backend is built from a clean repository beside it, by an engine that is on no machine's PATH."""
    monkeypatch.delenv("DEPLOY_ENV", raising=False)
    (tmp_path / "suite").mkdir()
    made = Project(tmp_path / "suite")
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "Containerfile").write_text("FROM scratch\n")
    git(folder, "init", "--quiet", "--initial-branch", "trunk")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "one")
    (tmp_path / "podman").write_text("#!/bin/sh\n")
    (tmp_path / "podman").chmod(0o755)
    declare(made, build={"context": "../app"}, building={"engine": str(tmp_path / "podman")})
    return made


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


def ordered(project: Project, **asked: Any) -> BuildPlan:
    return plan_build("demo", root=project.root, **asked)


def test_order_has_reference_labels_and_build_type(project: Project) -> None:
    folder = project.root.parent / "app"
    git(folder, "remote", "add", "origin", "https://ann:s3cret@git.test/ark.git")

    found = ordered(project, tag="v2.0.1", build_type="debug", platform="linux/arm64")

    assert found.references == {"backend": "registry.example.org/memoryark/backend:v2.0.1"}
    argv = found.command(found.builds[0])
    assert f"org.opencontainers.image.revision={git(folder, 'rev-parse', 'HEAD')}" in argv
    assert "org.opencontainers.image.source=https://git.test/ark.git" in argv
    assert "org.opencontainers.image.version=v2.0.1" in argv
    assert {"BUILD_TYPE=debug", "linux/arm64"} < set(argv)
    assert found.build_type is BuildType.DEBUG
    assert argv[-1] == str(folder)


def test_order_of_a_tree_that_differs_is_refused_unless_forced(project: Project) -> None:
    (project.root.parent / "app/new.txt").write_text("x")

    with pytest.raises(PreflightError, match=r"backend: .*new\.txt"):
        ordered(project)

    found = ordered(project, force=True)
    assert found.tag.endswith("-dirty")
    assert any(word.endswith("+changes") for word in found.command(found.builds[0]))


def test_build_of_a_tree_that_differs_says_so(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root.parent / "app/new.txt").write_text("x")

    building.build("demo", root=project.root, tag="v2", force=True, dry_run=True)

    assert re.search(
        r"^warning: backend: .* differs .*new\.txt; built with these changes$", capsys.readouterr().out, re.MULTILINE
    )


def test_order_with_words_that_have_no_form_names_each(project: Project) -> None:
    with pytest.raises(ConfigError) as caught:
        ordered(project, build_type="fast", platform="linux/amd64,--rm")

    assert [issue.path for issue in caught.value.issues] == ["--build-type", "--platform"]


def test_order_of_a_service_that_is_not_built_is_refused(project: Project) -> None:
    with pytest.raises(ConfigError, match=r"--service: found 'frontend'; expected .*backend"):
        ordered(project, services=("frontend",))


def test_order_without_a_build_section_says_what_to_write(project: Project) -> None:
    content = yaml.safe_load((project.root / "deploy/services.yaml").read_text())
    del content["services"][0]["build"]
    (project.root / "deploy/services.yaml").write_text(yaml.safe_dump(content))

    with pytest.raises(ConfigError, match="`build:` section"):
        ordered(project)


@pytest.mark.parametrize(
    ("build", "place"), [({"context": "../nowhere"}, "context"), ({"context": "../app", "file": "Other"}, "file")]
)
def test_order_of_what_is_not_there_is_refused(project: Project, build: dict[str, str], place: str) -> None:
    declare(project, build=build)

    with pytest.raises(ConfigError) as caught:
        ordered(project)

    assert [issue.path for issue in caught.value.issues] == [f"services.backend.build.{place}"]


def test_order_without_an_engine_is_refused(project: Project) -> None:
    declare(project, building={"engine": "/nowhere/podman"})

    with pytest.raises(PreflightError, match="/nowhere/podman is not on this workstation"):
        ordered(project)


def docker(project: Project, text: str) -> Path:
    path = project.root.parent / "docker"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    declare(project, building={"engine": str(path)})
    return path


def test_order_of_an_engine_that_does_not_answer_is_refused_before_anything(project: Project) -> None:
    docker(project, "echo Cannot connect to the Docker daemon >&2; exit 1")

    with pytest.raises(PreflightError, match=r"docker gives no answer \(status 1\): nothing was built\.\nCannot"):
        ordered(project)

    assert ordered(project, dry_run=True).engine.docker


def test_order_of_docker_names_a_containerfile(project: Project) -> None:
    docker(project, "exit 0")
    found = ordered(project)
    argv = found.command(found.builds[0])

    assert argv[argv.index("--file") + 1] == str(project.root.parent / "app/Containerfile")


def test_order_of_docker_cannot_squash_nor_keep_a_list(project: Project) -> None:
    path = docker(project, "exit 0")
    declare(project, building={"engine": str(path), "squash": True})

    with pytest.raises(ConfigError) as caught:
        ordered(project, platform="linux/amd64,linux/arm64")

    assert [issue.path for issue in caught.value.issues] == ["services.backend.build.squash", "--platform"]


def test_environment_without_a_name_is_the_one_whose_env_file_is_here(project: Project) -> None:
    assert spec.chosen(None, project.root, "").name == "demo"


def test_environment_without_a_name_is_that_of_the_shell(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_ENV", "nowhere")

    with pytest.raises(ConfigError, match="'nowhere'"):
        spec.chosen(None, project.root, "")


def two(project: Project, **values: str) -> None:
    project.write("hosts.yaml", HOSTS + "  production:\n    hosts:\n      web9: {address: 192.0.2.19}\n")
    lines = {**ENV, "ENVIRONMENT": "production", **values}
    project.write("deploy/production.env", "\n".join(f"{key}={value}" for key, value in lines.items()))


def test_environments_that_agree_need_no_name_and_production_is_not_presumed(project: Project) -> None:
    two(project)

    assert spec.chosen(None, project.root, "").name == "demo"


def test_environments_that_differ_need_a_name(project: Project) -> None:
    two(project, BACKEND_IMAGE="other.example.org/backend")

    with pytest.raises(ConfigError, match=r"demo, production differ.*\n?.*--env"):
        spec.chosen(None, project.root, "")


def test_tag_is_version_and_hash_with_the_time_outside_of_production(project: Project) -> None:
    folder = project.root.parent / "app"
    before = {"backend": source.look(str(folder))}
    git(folder, "tag", "v1.4.0")
    found = {"backend": source.look(str(folder))}
    short = git(folder, "rev-parse", "HEAD")[:8]

    assert made_tag(before, production=True, now=NOW) == f"0.0.0-{short}"
    assert made_tag(found, production=True, now=NOW) == f"v1.4.0-{short}"
    assert made_tag(found, production=False, now=NOW) == f"v1.4.0-20261124T083000Z-{short}"
    assert found["backend"].branch == "trunk"


def test_tag_of_two_commits_or_of_none_has_to_be_named(tmp_path: Path) -> None:
    for revisions in (("a" * 40, "b" * 40), ("",)):
        sources = {f"s{number}": Source(revision=one) for number, one in enumerate(revisions)}
        with pytest.raises(ConfigError, match="--tag"):
            made_tag(sources, production=True, now=NOW)


def test_source_outside_of_a_repository_is_empty(tmp_path: Path) -> None:
    assert source.look(str(tmp_path)) == Source()
