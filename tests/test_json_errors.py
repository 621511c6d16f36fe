"""Every task with --json answers an error with one JSON object on standard output, the last one there."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from rolling_upgrade import errors
from rolling_upgrade.console.task import exit_with
from rolling_upgrade.engine import masking
from rolling_upgrade.errors import ConfigError, ConfigIssue, ExitCode, RollingError
from rolling_upgrade.tasks import namespace
from tests.support.project import ROOT, Project

TASKS = sorted(min([name, *aliases], key=len) for name, aliases in namespace.task_names.items())
WITH_JSON = [name for name in TASKS if "json" in inspect.signature(namespace[name].body).parameters]
#: Values of the arguments without a default, and of those that a task needs before it reads the configuration.
ARGUMENTS = {"backup": "x", "run": "x", "to": "other", "from_": "demo"}
FIELDS = ["type", "exit_code", "error", "issues", "next_step"]


@pytest.fixture(autouse=True)
def _keep_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project")
    monkeypatch.chdir(project.root)
    return project


def answer(name: str, capfd: pytest.CaptureFixture[str], **options: Any) -> tuple[int, dict[str, Any], str]:
    """Run a task; return its exit code, its only JSON object, and the text on standard error."""
    task = namespace[name]
    parameters = inspect.signature(task.body).parameters
    needed = {name: value for name, value in ARGUMENTS.items() if name in parameters}
    given = {name: value for name, value in {**needed, **options, "json": True}.items() if name in parameters}
    with pytest.raises(Exit) as caught:
        task(Context(), **given)
    out, err = capfd.readouterr()
    return int(caught.value.code), json.loads(out), err


def test_tasks_with_json_are_found() -> None:
    assert len(WITH_JSON) > 20
    assert {"deploy", "config.check", "setup.check", "status"} <= set(WITH_JSON)


@pytest.mark.parametrize("name", WITH_JSON)
def test_directory_without_a_configuration_is_an_object(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    code, found, err = answer(name, capfd, env="demo")

    assert list(found) == FIELDS
    assert (found["type"], found["exit_code"], code) == ("error", 2, 2)
    assert found["error"] in err
    assert found["next_step"] in err


@pytest.mark.parametrize("name", WITH_JSON)
def test_errors_of_the_configuration_are_objects_with_their_places(
    name: str, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.env({"BACKEND_PORT": "no"})

    code, found, _ = answer(name, capfd, env="demo")

    assert code == 2
    issues = found["errors" if name == "config.check" else "issues"]
    (issue,) = [issue for issue in issues if issue["path"] == "BACKEND_PORT"]
    assert issue["file"] == "deploy/demo.env"
    assert issue["found"] == "'no'"
    assert issue["expected"].startswith("a port")
    assert issue["text"].startswith(f"deploy/demo.env:{issue['line']}: BACKEND_PORT: found 'no'; expected a port")


def test_host_that_is_not_reached_is_an_object(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    project.edit("hosts.yaml", "address: 192.0.2.11", "address: 127.0.0.1, port: 1")

    code, found, _ = answer("deploy", capfd, env="demo", hosts=["web1"], tag="v2", force=True)
    assert (code, found["exit_code"]) == (3, 3)
    assert "web1" in found["error"]


def failed(work: object, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert callable(work)
    with pytest.raises(Exit) as caught:
        exit_with(work, as_json=True)
    out = capsys.readouterr().out
    found: dict[str, Any] = json.loads(out)
    assert out.count("\n") == 1
    assert found["exit_code"] == caught.value.code
    return found


@pytest.mark.parametrize(
    "kind",
    sorted(
        (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RollingError)), key=str
    ),
)
def test_every_error_has_its_exit_code_text_and_next_step(
    kind: type[RollingError], capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise kind("web1: it is locked.", next_step="wait")

    assert failed(work, capsys) == {
        "type": "error",
        "exit_code": int(kind.exit_code),
        "error": "web1: it is locked.",
        "issues": [],
        "next_step": "wait",
    }


def test_interrupt_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise KeyboardInterrupt

    found = failed(work, capsys)

    assert found["exit_code"] == ExitCode.INTERRUPTED
    assert found["next_step"].startswith("rolling-upgrade status")


def test_unexpected_error_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise KeyError("x")

    assert failed(work, capsys)["error"] == "unexpected error: KeyError('x')"


def test_secrets_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    masking.remember(["hunter2-secret"])

    def work() -> int:
        raise ConfigError("it is hunter2-secret", [ConfigIssue("a", "b", "hunter2-secret", "another")])

    assert "hunter2" not in json.dumps(failed(work, capsys))


def test_error_without_json_leaves_standard_output_empty(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise ConfigError("no")

    with pytest.raises(Exit):
        exit_with(work)
    assert capsys.readouterr() == ("", "no\n")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("status", "--json", "--unknown"), "status has no option --unknown"),
        (("statsu", "--json"), "there is no task 'statsu'; did you mean: status"),
        (("status", "-j", "--env"), "--env needs a value"),
        (("status", "--json", "--env", "demo", "--dry"), "status has no option --dry"),
        (("history", "--json", "--limit", "many"), "--limit needs a whole number, not 'many'"),
        (("status", "--json", "--env", "demo", "--", "x"), "status takes no arguments after --"),
    ],
)
def test_usage_error_of_the_console_script_is_an_object(words: tuple[str, ...], error: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from rolling_upgrade.cli import main; main()", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    found = json.loads(done.stdout)
    assert (done.returncode, found["exit_code"]) == (2, 2)
    assert found["error"].startswith(error)
    assert found["error"] in done.stderr


def test_option_of_invoke_is_an_object(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    context = Context()
    context.config.run.dry = True

    with pytest.raises(Exit):
        namespace["status"](context, env="demo", json=True)

    assert "--dry is an option of Invoke" in json.loads(capsys.readouterr().out)["error"]


def test_check_lists_errors_and_warnings(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root / "deploy/demo.env").chmod(0o600)
    project.write("known_hosts", "192.0.2.11,192.0.2.12 ssh-ed25519 AAAA\n")
    project.env(extra="BACKEND_PROT=1\n")

    namespace["config.check"](Context(), env="demo", json=True)

    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["errors"]) == (True, [])
    assert found["environments"] == [{"environment": "demo", "hosts": 2, "services": 2}]
    assert any("BACKEND_PROT" in warning for warning in found["warnings"])
