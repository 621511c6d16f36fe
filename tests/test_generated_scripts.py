"""Every shell text that the project sends to a host passes shellcheck, from the shipped configuration."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fabfile import config, render
from fabfile.commands import journal, podman
from fabfile.commands import setup as preparing
from fabfile.commands.shell import Script
from fabfile.commands.state import observe
from fabfile.model import Application, Color, Container, HostState, Image, Lock, Outcome, Rollout, Target
from fabfile.plans import closing, opening
from fabfile.plans.deploy import Wanted, plan_deploy
from fabfile.plans.setup import plan_setup
from fabfile.plans.step import Plan, Step

ROOT = Path(__file__).parent.parent
SHELLCHECK = Path(sys.executable).parent / "shellcheck"
LOCK = Lock("token", "ann", "laptop", 7, "deploy v2", 1_700_000_000, 1_700_000_120)

#: What is no fault in these texts, each with its reason.
EXCLUDED = {
    "SC1091": "os-release is on the host, not here",
    "SC2016": "texts for another shell, awk or Nginx stand in single quotes on purpose",
    "SC2024": "what sudo reads by redirection belongs to the deploy user",
    "SC2234": "an item's check is a text of its own: the subshell keeps it apart",
    "SC2235": "the same",
}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "deploy", root / "deploy", ignore=shutil.ignore_patterns("*.env"))
    shutil.copy(ROOT / "hosts.yaml", root / "hosts.yaml")
    shutil.copy(root / "deploy" / "production.env.example", root / "deploy" / "production.env")
    found = config.load("production", root=root).targets[0]
    return replace(found, application=_pinned(found.application, "cd34"))


def _pinned(app: Application, digits: str) -> Application:
    services = [replace(service, image=service.image.with_digest("sha256:" + digits * 16)) for service in app.services]
    return replace(app, services=tuple(services))


def _wanted(app: Application) -> Wanted:
    return Wanted("production", app, "server {}\n", "f" * 16, "r2", "2026-11-23T03:12:45Z", "ann")


def _running(app: Application) -> HostState:
    """A host that runs an older release, with a green container beside the live blue one."""
    older = _pinned(app, "ab12")
    containers = [
        Container(
            podman.container_name(app.name, service.name, color),
            service.name,
            color,
            True,
            "running",
            image=service.image,
            release="r1",
        )
        for service in older.services
        for color in Color
    ]
    return HostState("web1", 1_700_000_000, containers=tuple(containers))


def _deploys(app: Application) -> list[Plan]:
    states = (HostState("web1", 1_700_000_000), _running(app))
    return [plan_deploy(state, _wanted(app), Rollout()) for state in states]


def _steps(target: Target) -> Iterator[Step]:
    app = target.application
    for plan in _deploys(app):
        yield from (*plan.prepare, *plan.steps, *plan.finish)
        yield closing.abandon(plan, Outcome.UNDONE, "green failed: it's 'bad'", 3.5)
    yield opening.lock_step(app, LOCK, lease_seconds=120)
    files = preparing.Files(
        render.nginx_site(app), render.host_program("site"), render.host_program("boot"), render.boot_unit(app)
    )
    for user in ("root", "admin"):
        items = preparing.items(app, target.user, files)
        yield from plan_setup("web1", items, [item.id for item in items], setup_user=user).steps
        yield Step("check", "look", preparing.as_root(preparing.check(items), user=user), 60)


def _scripts(target: Target) -> Iterator[tuple[str, str]]:
    app = target.application
    for number, step in enumerate(_steps(target)):
        yield f"{number}-{step.id}", step.script.text
        if step.undo is not None:
            yield f"{number}-{step.id}-undo", step.undo.text
    yield "observe", observe(app).text
    body = Script("true\n", ("secret",))
    yield "stage", journal.stage(app.home, "r2", "start", "token", body, seconds=60, lease_seconds=120).text
    yield "attach", journal.attach(app.home, "r2", "start", seconds=60).text
    for program in sorted((ROOT / "templates" / "host").glob("*.sh")):
        yield program.stem, program.read_text("utf-8")


def _complaints(folder: Path, scripts: dict[str, str]) -> str:
    """What shellcheck has to say about the scripts, as texts for a POSIX shell."""
    for name, text in scripts.items():
        (folder / f"{name.replace('/', '.')}.sh").write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}")
    command = [str(SHELLCHECK), "--shell=sh", "--format=gcc", f"--exclude={','.join(EXCLUDED)}"]
    files = [str(path) for path in sorted(folder.glob("*.sh"))]
    done = subprocess.run([*command, *files], capture_output=True, text=True, timeout=120, check=False)
    return done.stdout.replace(f"{folder}/", "")


def test_generated_scripts_pass_shellcheck(tmp_path: Path, target: Target) -> None:
    scripts = dict(_scripts(target))

    assert {"observe", "stage", "site", "boot"} < scripts.keys()
    assert any(name.endswith("-undo") for name in scripts)
    assert _complaints(tmp_path, scripts) == ""


def test_generated_scripts_unquoted_variable_would_be_found(tmp_path: Path) -> None:
    assert "SC2086" in _complaints(tmp_path, {"bad": "rm -rf $HOME/x $1\n"})


def test_generated_scripts_image_is_named_by_digest_alone(target: Target) -> None:
    image = target.application.services[0].image

    assert Image.parse(image.pinned).digest == image.digest
    assert any(image.pinned in text for _, text in _scripts(target))
