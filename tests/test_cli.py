"""The console script: overview, help, version and usage errors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rolling_upgrade import __version__, cli
from rolling_upgrade.tasks import GROUPS


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Ended:
    """The exit code and the output of one call of the script."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        monkeypatch.setattr("sys.argv", ["rolling-upgrade", *words])
        try:
            cli.main()
            self.code: object = 0
        except SystemExit as error:
            self.code = error.code or 0
        self.out, self.errors = capsys.readouterr()


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> Ended:
    return Ended(monkeypatch, capsys, *words)


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("--list",)])
def test_overview_groups_the_tasks_by_purpose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    ended = run(monkeypatch, capsys, *words)

    assert ended.code == 0
    assert [row[:-1] for row in ended.out.splitlines() if row.endswith(":") and row[0] != " "] == list(GROUPS)
    assert [row.split()[0] for row in ended.out.splitlines() if row.startswith("  ") and row[2] != " "] == [
        name for names in GROUPS.values() for name in names
    ]


def test_version_matches_the_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ended = run(monkeypatch, capsys, "--version")

    assert (ended.code, ended.out) == (0, f"rolling-upgrade {__version__}\n")


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (("deploy", "--help"), "deploy [options]"),
        (("deploy", "-h"), "deploy [options]"),
        (("deploy", "--env", "production", "-h"), "deploy [options]"),
        (("--help", "deploy"), "deploy [options]"),
        (("restore", "--help"), "restore BACKUP [options]"),
        (("maintenance", "-h"), "maintenance SWITCH [options]"),
        (("setup", "-h"), "setup [options]"),
        (("setup.check", "-h"), "setup.check [options]"),
        (("exec", "--help", "--", "ls"), "exec [options] -- COMMAND"),
        (("run", "--help"), "run [options] -- COMMAND"),
    ],
)
def test_help_of_a_task_shows_its_usage_and_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], usage: str
) -> None:
    ended = run(monkeypatch, capsys, *words)

    assert ended.code == 0
    assert ended.out.startswith(f"Usage: rolling-upgrade {usage}\n")
    assert "--environment" in ended.out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("depoy",), "there is no task 'depoy'; did you mean: deploy. "),
        (("help",), "there is no task 'help'; did you mean: rolling-upgrade --help. "),
        (("help", "deploy"), "did you mean: rolling-upgrade --help. "),
        (("version",), "did you mean: rolling-upgrade --version. "),
        (("lock",), "did you mean: lock.status, lock.acquire, lock.release. "),
        (("deploy", "production"), "did you mean: rolling-upgrade deploy --env production. "),
        (("deploy", "--env", "production", "staging"), "there is no task 'staging'. "),
        (("deploy", "--evn", "production"), "deploy has no option --evn; did you mean: --env. "),
        (("--verson",), "rolling-upgrade has no option --verson; did you mean: --version. "),
        (("deploy", "--env"), "--env needs a value. "),
        (("deploy", "--env", "production", "--env", "staging"), "--env was given more than once. "),
        (("deploy", "--env", "production", "-e", "staging"), "-e was given more than once. "),
        (("deploy", "--tag", "v1", "--tag", "v2"), "--tag was given more than once. "),
        (("history", "--limit", "x"), "--limit needs a whole number, not 'x'. "),
        (("monitor.logs", "--tail", "1.5"), "--lines needs a whole number, not '1.5'. "),
        (("deploy", "--tag"), "--tag needs a value. "),
        (("init", "--from"), "--from needs a value. "),
        (("maintenance", "--env", "production"), "maintenance needs SWITCH. "),
        (("restore", "--env", "production"), "restore needs BACKUP. "),
        (("status", "--env", "production", "-f"), "status has no option --config (-f). "),
        (("logs", "--env", "production", "-f"), "logs has no option --config (-f); use --follow. "),
        (("prune", "-f", "--env", "production"), "prune has no option --config (-f); use --force. "),
        (("--help", "depoy"), "did you mean: deploy. "),
        (("status",), "no directory above it has one"),
    ],
)
def test_usage_error_exits_with_2_and_suggests_the_nearest_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], error: str
) -> None:
    ended = run(monkeypatch, capsys, *words)

    assert (ended.code, ended.out) == (2, "")
    assert error in ended.errors
    assert "Nothing was contacted.\nNext: " in ended.errors
    assert "rolling-upgrade" in ended.errors


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("deploy", "-e", "production", "--dry", "--force"), "deploy has no option --dry; use --dry-run. "),
        (("deploy", "-e", "production", "-R", "--force"), "deploy has no option -R; use --dry-run. "),
        (("--dry", "deploy", "-e", "production"), "deploy has no option --dry; use --dry-run. "),
        (("status", "-e", "production", "-R"), "status has no option -R. "),
        (("status", "-e", "production", "-d"), "status has no option -d. "),
        (("logs", "-e", "production", "-f", "web"), "logs has no option -f; use --follow. "),
        (("deploy", "-e", "production", "-w"), "deploy has no option -w. "),
        (("deploy", "-e", "production", "--echo"), "deploy has no option --echo. "),
        (("deploy", "-e", "production", "-p"), "deploy has no option -p. "),
        (("deploy", "-e", "production", "-pw"), "deploy has no option --pty. "),
        (("deploy", "-e", "production", "--hide=both"), "deploy has no option --hide. "),
        (("deploy", "-e", "production", "-T", "5"), "deploy has no option -T. "),
        (("deploy", "-e", "production", "--list-format", "json"), "deploy has no option --list-format. "),
        (("deploy", "-e", "production", "--print-completion-script", "bash"), "no option --print-completion-script. "),
        (("deploy", "-e", "production", "--", "--dry-run"), "deploy takes no arguments after --. "),
    ],
)
def test_option_of_invoke_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], error: str
) -> None:
    ended = run(monkeypatch, capsys, *words)

    assert (ended.code, ended.out) == (2, "")
    assert error + "Nothing was contacted.\nNext: rolling-upgrade " in ended.errors


@pytest.mark.parametrize("words", [("exec",), ("run",), ("accessory.exec", "--name", "db")])
def test_task_with_a_command_accepts_it_after_two_dashes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    ended = run(monkeypatch, capsys, *words, "--env", "nope", "--", "ls", "-l")

    assert ended.code == 2
    assert "takes no arguments" not in ended.errors


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version_after_a_task_runs_no_task(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    ended = run(monkeypatch, capsys, "deploy", "-e", "production", option, "--force")

    assert (ended.code, ended.out) == (0, f"rolling-upgrade {__version__}\n")


@pytest.mark.parametrize("words", [("--list", "--list-format", "json"), ("-l", "-F", "json")])
def test_list_format_of_invoke_is_supported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    ended = run(monkeypatch, capsys, *words)

    assert (ended.code, ended.out[:1]) == (0, "{")


def test_unknown_message_of_invoke_is_shown_unchanged() -> None:
    assert str(cli.translated("Something else!", None)).startswith("Something else. Nothing was contacted.")


@pytest.mark.parametrize("words", [("completion",), ("completion", "--names", "environments"), ("init", "--help")])
def test_task_without_configuration_runs_without_hosts_yaml(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert run(monkeypatch, capsys, *words).code == 0


@pytest.mark.parametrize("without_cache", [False, True])
def test_bytecode_cache_is_used_as_python_was_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], without_cache: bool
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", without_cache)

    assert run(monkeypatch, capsys, "completion").code == 0
    assert sys.dont_write_bytecode is without_cache
