"""`env_command`: a command whose output is the env file. The commands here are real scripts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rolling_upgrade import config
from rolling_upgrade.config import env_command
from rolling_upgrade.config.locate import list_environments_with_values
from rolling_upgrade.errors import ConfigError, ConfigIssue
from rolling_upgrade.features.configuration.workflow import check, explain_environment
from rolling_upgrade.features.secrets.check import check as check_secrets
from tests.conftest import team
from tests.support.project import ENV, Project
from tests.support.team import SECRET, Team

__all__ = ["team"]

VALUES = "".join(f"{key}={value}\n" for key, value in ENV.items())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(env_command, "_outputs", {})
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project")
    (project.root / "deploy/demo.env").unlink()
    return project


def values_by(project: Project, command: str, *, more: str = "") -> None:
    """Let the environment take its values from a command, written as YAML."""
    project.edit("hosts.yaml", "    hosts:", f"    env_command: {command}\n{more}    hosts:")


def script(project: Project, text: str, *, more: str = "") -> Path:
    """Let the environment take its values from a shell script."""
    path = project.write("values.sh", f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    values_by(project, "[./values.sh, a b]", more=more)
    return path


def is_running(pid: int) -> bool:
    """Return whether the process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def only_issue(project: Project) -> ConfigIssue:
    (issue,) = project.issues()
    assert (issue.file, issue.path) == ("env_command of demo", "")
    return issue


def test_list_runs_beside_hosts_yaml_with_its_arguments(project: Project) -> None:
    project.write("values.env", VALUES)
    script(project, 'cat values.env; echo "OWN_WORDS=$# $1"')

    environment = project.load()

    assert environment.targets[0].application.name == "memoryark"
    assert SECRET in environment.secrets
    assert explain_environment("demo", root=project.root).hosts["web1"].keys["OWN_WORDS"].value == "1 a b"


def test_text_is_run_by_sh(project: Project) -> None:
    project.write("values.env", VALUES)
    values_by(project, "sed 's/^APP_NAME=.*/APP_NAME=shop/' values.env | cat")

    assert project.application().name == "shop"


def test_each_value_names_the_command_as_its_source(project: Project) -> None:
    project.write("values.env", VALUES)
    values_by(project, "cat values.env")

    keys = explain_environment("demo", root=project.root).hosts["web1"].keys

    assert keys["APP_NAME"].source == "env_command of demo line 1"
    assert SECRET not in keys["JWT_SECRET_KEY"].value


def test_errors_in_the_values_name_the_command(project: Project) -> None:
    project.write("values.env", VALUES + "SMTP_PORT=no\nDOMAIN_NAME=again\n")
    values_by(project, "cat values.env")

    assert {(issue.file, issue.place) for issue in project.issues()} == {
        ("env_command of demo", f"line {len(ENV) + 1}: SMTP_PORT"),
        ("env_command of demo", f"line {len(ENV) + 2}"),
    }


def test_command_runs_once_per_task(project: Project) -> None:
    project.write("values.env", VALUES)
    script(project, "echo run >>runs; cat values.env")

    assert check(None, root=project.root) == 0
    project.load()

    assert (project.root / "runs").read_text() == "run\n"


def test_checking_an_environment_runs_no_command_of_another_one(project: Project) -> None:
    project.write("deploy/own.env", VALUES)
    script(project, "touch ran; exit 1")
    hosts = (project.root / "hosts.yaml").read_text()
    project.write("hosts.yaml", f"{hosts}  own:\n    hosts: {{box: {{address: 192.0.2.30}}}}\n")

    assert check("own", root=project.root) == 0
    assert not (project.root / "ran").exists()


def test_command_and_env_file_together_are_refused(project: Project) -> None:
    values_by(project, "[echo, APP_NAME=shop]", more="    env_file: deploy/demo.env\n")

    text = str(project.refused())
    assert re.search(
        r"hosts\.yaml:\d+: environment demo: env_command: found both a command and env_file; expected", text
    )


@pytest.mark.parametrize("command", ["[]", "''", "{a: b}", "[a, [b]]"])
def test_values_that_are_no_command_are_refused(project: Project, command: str) -> None:
    values_by(project, command)

    issues = project.issues()

    assert issues[0].path.startswith("environments.demo.env_command")
    assert issues[0].expected == "a command: a list of arguments, or a string for sh"


def test_environment_with_a_command_has_values(project: Project) -> None:
    assert list_environments_with_values(project.root) == ()
    values_by(project, "[op]")
    assert list_environments_with_values(project.root) == ("demo",)


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("[no-such-program]", "'no-such-program', which is not installed"),
        ("[./deploy/services.yaml]", "'./deploy/services.yaml', which is not executable"),
        ("no-such-program --x", "`no-such-program --x`, which failed with exit code 127: "),
        ("'echo one >&2; echo two >&2; exit 7'", "which failed with exit code 7: one; two"),
        ("'kill -9 $$'", "which was killed by signal 9"),
        ("'true'", "no output"),
        ('[echo, \'{"APP_NAME": "shop"}\']', "output without a KEY=value line"),
        ("[head, -c, '2000000', /dev/zero]", "which prints more than 1 MiB"),
    ],
)
def test_failures_are_one_error(project: Project, command: str, found: str) -> None:
    values_by(project, command)

    assert found in only_issue(project).found


def test_binary_output_is_an_error(project: Project) -> None:
    values_by(project, r"printf '\377\376'")

    (issue,) = project.issues()

    assert (issue.file, issue.found) == ("env_command of demo", "bytes that are not UTF-8")


def test_deadline_ends_the_command_and_its_children(project: Project) -> None:
    script(project, "echo asking >&2; sleep 60 & echo $! >child; wait", more="    env_command_timeout_seconds: 1\n")

    issue = only_issue(project)

    assert "did not end within 1 s: asking" in issue.found
    assert "env_command_timeout_seconds" in issue.expected
    assert not is_running(int((project.root / "child").read_text()))


def test_process_left_running_is_not_waited_for(project: Project) -> None:
    """An agent that the command starts keeps the pipes open."""
    project.write("values.env", VALUES)
    script(project, "cat values.env; sleep 60 & echo $! >agent")

    started_at = time.monotonic()
    try:
        assert project.load().name == "demo"
        assert time.monotonic() - started_at < 30
    finally:
        os.kill(int((project.root / "agent").read_text()), signal.SIGKILL)


def test_secrets_in_error_messages_are_masked(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OP_SERVICE_ACCOUNT_TOKEN", "ops-eyJzaWduSW4")
    script(project, f'echo "X={SECRET}"; echo "{SECRET} and $OP_SERVICE_ACCOUNT_TOKEN are wrong" >&2; exit 1')

    found = only_issue(project).found

    assert found.endswith("•••••• and •••••• are wrong")


def test_lines_that_are_no_setting_are_not_quoted(project: Project) -> None:
    values_by(project, f"[echo, '{SECRET}=', APP_NAME=shop]")

    assert SECRET not in str(project.refused())


def test_command_gets_the_environment_without_keys_of_other_tasks(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "hvs.token")
    monkeypatch.setenv("DEPLOY_SSH_KEY", "-----BEGIN")
    project.write("values.env", VALUES)
    script(project, 'cat values.env; echo "OWN_A=$VAULT_TOKEN"; echo "OWN_B=$DEPLOY_SSH_KEY"')

    keys = explain_environment("demo", root=project.root).hosts["web1"].keys

    assert keys["OWN_A"].value == "hvs.token"
    assert keys["OWN_B"].value == ""


def test_without_a_terminal_standard_input_is_closed(project: Project) -> None:
    script(project, "read answer || { echo no input >&2; exit 1; }")

    assert only_issue(project).found.endswith(": no input")


def test_on_a_terminal_the_command_may_ask(team: Team) -> None:
    """The prompt appears although standard error is read, and the answer reaches the command."""
    team.env_file.rename(team.root / "values.env")
    script(team.project, 'printf "Master password: " >&2; read word; [ "$word" = open ] && cat values.env')

    status, out, shown = team.typed("open", "config.show", "--env", "demo", "--json")

    assert status == 0
    assert "Master password: " in shown
    assert json.loads(out)["environment"] == "demo"


def test_interrupt_ends_the_command(project: Project) -> None:
    script(project, "echo $$ >pid; exec sleep 60")
    # A task handles SIGINT even if the shell that started it ignores it, as in the background.
    code = (
        "import signal; from pathlib import Path; from rolling_upgrade import config; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); config.load('demo', root=Path.cwd())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": str(Path(config.__file__).parents[2])},
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    ) as process:
        pid = project.root / "pid"
        while process.poll() is None and not (pid.exists() and pid.read_text().strip()):
            time.sleep(0.01)

        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()

    assert b"KeyboardInterrupt" in err
    assert not is_running(int(pid.read_text()))


@pytest.mark.parametrize(
    "words",
    [
        ("secrets.edit",),
        ("secrets.encrypt",),
        ("secrets.decrypt",),
        ("secrets.rotate",),
        ("secrets.recipients",),
    ],
)
def test_tasks_for_files_answer_that_a_command_has_the_values(team: Team, words: tuple[str, ...]) -> None:
    values_by(team.project, "[op, inject, -i, deploy/demo.env.tpl]")

    status, out, err = team.inv(*words, "--env", "demo", EDITOR="true")

    assert (status, out) == (2, "")
    assert "The values of demo come from a command, env_command in hosts.yaml" in err
    assert "Next: change the values where the command reads them: op inject -i deploy/demo.env.tpl" in err


def test_secrets_check_examines_the_output_and_the_files_it_replaces(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write("values.env", VALUES + "SMTP_PASSWORD=change-me-please\n")
    project.write("deploy/demo.env", VALUES)
    project.write("deploy/demo.env.tpl", "JWT_SECRET_KEY=op://shop/jwt\n")
    values_by(project, "cat values.env")

    assert check_secrets(None, root=project.root) == 1

    out = capsys.readouterr().out
    assert "SMTP_PASSWORD is a placeholder" in out
    assert "deploy/demo.env" in out
    assert "a plaintext copy of secrets that env_command of demo prints" in out
    assert "demo.env.tpl" not in out


def test_secrets_check_reports_a_failing_command(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    values_by(project, "echo 'not signed in' >&2; exit 1")

    assert check_secrets("demo", root=project.root) == 1
    assert "failed with exit code 1: not signed in" in capsys.readouterr().out


def test_unnamed_environment_error_is_a_config_error(project: Project) -> None:
    values_by(project, "[false]")

    with pytest.raises(ConfigError, match="The configuration of demo has 1 error"):
        config.load("demo", root=project.root)
