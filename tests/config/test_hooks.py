"""Hooks: executables in deploy/hooks, commands in services.yaml and hosts.yaml, and which of them is used."""

from __future__ import annotations

import pytest

from tests.support.project import HOSTS, Project

SCRIPT = "#!/bin/sh\n"


def executable(project: Project, name: str, mode: int = 0o755) -> str:
    path = project.write(f"deploy/hooks/{name}", SCRIPT)
    path.chmod(mode)
    return str(path)


def in_services(project: Project, text: str) -> None:
    project.edit("deploy/services.yaml", "services:\n", f"hooks: {text}\nservices:\n")


def in_hosts(project: Project, text: str) -> None:
    project.write("hosts.yaml", HOSTS.replace("  demo:\n", f"  demo:\n    hooks: {text}\n"))


def hooks(project: Project) -> dict[str, tuple[str, ...]]:
    """Return the command of each hook."""
    return {hook.name: hook.command for hook in project.load().hooks}


@pytest.mark.parametrize("name", ["before_deploy", "before_deploy.sh", "before_deploy.py"])
def test_executable_with_the_name_of_a_hook_is_one(name: str, project: Project) -> None:
    path = executable(project, name)

    [hook] = project.load().hooks

    assert (hook.name, hook.command, hook.folder) == ("before_deploy", (path,), str(project.root))
    assert (hook.timeout_seconds, hook.source) == (300, f"deploy/hooks/{name}")


def test_project_without_hooks_has_none(project: Project) -> None:
    assert project.load().hooks == ()


def test_commands_of_services_yaml_replace_executables_and_those_of_hosts_yaml_replace_both(project: Project) -> None:
    for name in ("before_connect", "before_deploy", "after_deploy", "on_failure"):
        executable(project, name)
    in_services(project, "{before_deploy: make check, after_deploy: [notify, done], timeout_seconds: 1m}")
    in_hosts(project, "{after_deploy: [], on_failure: page ops, timeout_seconds: 10}")

    found = {hook.name: (hook.command, hook.timeout_seconds) for hook in project.load().hooks}

    assert found == {
        "before_connect": ((str(project.root / "deploy/hooks/before_connect"),), 10),
        "before_deploy": (("sh", "-c", "make check"), 10),
        "on_failure": (("sh", "-c", "page ops"), 10),
    }


def test_executable_without_permission_is_an_error_unless_a_command_replaces_it(project: Project) -> None:
    executable(project, "after_deploy", 0o644)

    [issue] = project.issues()
    assert issue.file == "deploy/hooks/after_deploy"
    assert issue.expected == "an executable: chmod +x deploy/hooks/after_deploy"

    in_services(project, "{after_deploy: 'true'}")
    assert hooks(project) == {"after_deploy": ("sh", "-c", "true")}


def test_two_executables_for_one_hook_are_an_error(project: Project) -> None:
    executable(project, "after_deploy")
    executable(project, "after_deploy.sh")

    [issue] = project.issues()
    assert issue.found == "deploy/hooks/after_deploy and deploy/hooks/after_deploy.sh"


def test_files_that_are_no_hooks_are_ignored(project: Project) -> None:
    for name in ("after_deploy.sample", "README.md", "lib.sh", "before_deploy~"):
        executable(project, name, 0o644)

    assert project.load().hooks == ()


@pytest.mark.parametrize(
    ("name", "meant"),
    [("post-deploy", "after_deploy"), ("before-connect.sh", "before_connect"), ("pre_deploy", "before_deploy")],
)
def test_name_of_another_tool_is_a_warning(name: str, meant: str, project: Project) -> None:
    executable(project, name)

    assert f"deploy/hooks/{name} has no effect; the hook is named {meant}" in project.load().warnings


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{before_deploy: {run: x}}", "hooks.before_deploy"),
        ("{before_deploys: 'true'}", "hooks.before_deploys"),
        ("{timeout_seconds: 0}", "hooks.timeout_seconds"),
        ("{after_deploy: ['']}", "hooks.after_deploy"),
    ],
)
def test_invalid_hook_is_an_error_at_its_place(text: str, path: str, project: Project) -> None:
    in_services(project, text)

    assert path in [issue.path for issue in project.issues()]
