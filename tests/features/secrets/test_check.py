"""Find exposed secrets and repair file modes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.secrets.check import check
from rolling_upgrade.features.secrets.edit import edit
from rolling_upgrade.features.secrets.workflow import encrypt
from tests.support.team import SECRET, Team


def run_check(
    team: Team, capsys: pytest.CaptureFixture[str], environment: str | None = "demo", *, repair: bool = False
) -> tuple[ExitCode, str]:
    code = check(environment, root=team.root, repair=repair)
    shown = capsys.readouterr().out
    assert SECRET not in shown
    return code, shown


@pytest.mark.parametrize("environment", ["demo", None])
def test_check_protected_files_has_no_finding(
    team: Team, capsys: pytest.CaptureFixture[str], environment: str | None
) -> None:
    assert run_check(team, capsys, environment) == (ExitCode.DONE, "demo: no exposed secrets\n")
    team.listing(team.ann, team.ci)
    encrypt("demo", root=team.root)
    capsys.readouterr()
    assert run_check(team, capsys, environment) == (ExitCode.DONE, "demo: no exposed secrets\n")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o700])
def test_check_private_mode_has_no_finding(team: Team, capsys: pytest.CaptureFixture[str], mode: int) -> None:
    team.env_file.chmod(mode)

    assert run_check(team, capsys)[0] is ExitCode.DONE


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o666, 0o604, 0o755])
def test_check_open_mode_is_reported_and_repaired(team: Team, capsys: pytest.CaptureFixture[str], mode: int) -> None:
    team.env_file.chmod(mode)

    code, output = run_check(team, capsys)

    assert code is ExitCode.FAILED
    assert f"mode {mode:04o} lets other users" in output
    assert "chmod 600 deploy/demo.env, or --repair" in output
    assert team.mode == f"{mode:04o}"
    code, output = run_check(team, capsys, repair=True)
    assert (code, team.mode) == (ExitCode.DONE, "0600")
    assert f"mode changed from {mode:04o} to 0600" in output


def test_check_readable_key_file_is_reported_and_readable_encrypted_file_is_not(
    team: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    team.listing(team.ann)
    encrypt("demo", root=team.root)
    capsys.readouterr()
    team.env_file.chmod(0o644)
    team.own_key.chmod(0o640)

    code, output = run_check(team, capsys)

    assert code is ExitCode.FAILED
    assert output.startswith("~/.ssh/id_ed25519\n  FOUND    mode 0640")
    assert run_check(team, capsys, repair=True)[0] is ExitCode.DONE
    assert team.own_key.stat().st_mode & 0o777 == 0o600
    assert team.mode == "0644"


def test_check_readable_password_file_is_reported(
    team: Team, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    password = team.folder / "password"
    password.write_text("correct horse")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(password))
    encrypt("demo", root=team.root, form="ansible-vault")
    capsys.readouterr()
    password.chmod(0o644)

    assert f"{password}\n  FOUND    mode 0644" in run_check(team, capsys)[1]


def test_check_tracked_plaintext_is_reported(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    team.git("add", "--force", "deploy/demo.env")

    code, output = run_check(team, capsys)

    assert code is ExitCode.FAILED
    assert "plaintext tracked by Git" in output
    assert "rolling-upgrade secrets.encrypt --env demo" in output


def test_check_plaintext_in_the_git_index_is_reported(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    team.listing(team.ann)
    team.git("add", "--force", "deploy/demo.env")
    encrypt("demo", root=team.root)
    capsys.readouterr()

    code, output = run_check(team, capsys)
    assert (code, "Git's index still contains it in plaintext" in output) == (ExitCode.FAILED, True)
    team.git("add", "--force", "deploy/demo.env")
    assert "index" not in run_check(team, capsys)[1]


def test_check_unknown_tracking_is_reported(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    team.git("add", "--force", "deploy/demo.env")
    (team.root / ".git" / "index").write_bytes(b"junk")

    assert "git cannot tell" in run_check(team, capsys)[1]


def test_check_placeholder_is_reported_with_its_line_in_every_encryption(
    team: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    team.project.env({"JWT_SECRET_KEY": "changeme"})
    team.env_file.chmod(0o600)
    expected = "line 9: JWT_SECRET_KEY is a placeholder"

    assert expected in run_check(team, capsys)[1]
    team.listing(team.ann)
    encrypt("demo", root=team.root)
    capsys.readouterr()
    code, output = run_check(team, capsys)
    assert code is ExitCode.FAILED
    assert expected in output
    assert "changeme" not in output


def test_check_different_recipients_are_reported(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    team.listing(team.ann, team.bob)
    encrypt("demo", root=team.root)
    team.listing(team.ann, team.ci)
    capsys.readouterr()

    code, output = run_check(team, capsys)

    assert code is ExitCode.FAILED
    assert f"hash {team.bob.tag}, which is not listed" in output
    assert "the file is encrypted for 0 age keys, but 1 are listed" in output
    assert "rolling-upgrade secrets.rotate --env demo" in output


def test_check_file_without_a_matching_key_is_reported(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    team.listing(team.bob)
    encrypt("demo", root=team.root, force=True)
    capsys.readouterr()

    code, output = run_check(team, capsys)

    assert code is ExitCode.FAILED
    assert "cannot be decrypted: an age file encrypted for bob@desk" in output


@pytest.mark.parametrize("keep", [30, 300])
def test_check_damaged_file_is_reported(team: Team, capsys: pytest.CaptureFixture[str], keep: int) -> None:
    team.listing(team.ann)
    encrypt("demo", root=team.root)
    capsys.readouterr()
    team.env_file.write_bytes(team.env_file.read_bytes()[: 20 + keep])

    assert run_check(team, capsys)[0] is ExitCode.FAILED


def test_check_invalid_line_is_reported(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    team.project.env(extra="hello world\n")
    team.env_file.chmod(0o600)

    assert "line 10: a line that is not a setting" in run_check(team, capsys)[1]


@pytest.mark.parametrize(
    "name", ["demo.env~", "demo.env.bak", ".demo.env.swp", "#demo.env#", ".half-abc.env", "demo.old.env"]
)
def test_check_plaintext_copy_is_reported(team: Team, capsys: pytest.CaptureFixture[str], name: str) -> None:
    team.project.write(f"deploy/{name}", team.env_file.read_bytes())
    team.project.write("deploy/demo.env.example", "APP_NAME=x\n")

    code, output = run_check(team, capsys)

    assert code is ExitCode.FAILED
    assert f"rm deploy/{name}" in output
    assert "1 finding" in output


def test_check_text_kept_by_an_edit_is_reported(
    team: Team, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    team.listing(team.ann)
    encrypt("demo", root=team.root)
    editor = team.folder / "editor"
    editor.write_text('#!/bin/sh\necho nonsense >>"$1"\n')
    editor.chmod(0o700)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.delenv("VISUAL", raising=False)
    with pytest.raises(ConfigError) as caught:
        edit("demo", root=team.root)
    kept = Path(caught.value.next_step.rpartition(" ")[2])
    capsys.readouterr()

    code, output = run_check(team, capsys)
    assert (code, f"rm {kept}" in output) == (ExitCode.FAILED, True)
    kept.unlink()
    assert run_check(team, capsys)[0] is ExitCode.DONE


def test_check_secret_in_the_inventory_is_reported(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    team.project.edit("hosts.yaml", "groups: [canary]", "groups: [canary], env: {JWT_SECRET_KEY: hunter2222}")

    code, output = run_check(team, capsys)

    assert code is ExitCode.FAILED
    assert "hosts.yaml environments.demo.hosts.web1.env.JWT_SECRET_KEY is a secret" in output
    assert "hunter2222" not in output


def test_check_environment_without_a_file_is_skipped_unless_named(
    team: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    team.project.edit("hosts.yaml", "environments:\n", "environments:\n  other:\n    hosts: {box: {}}\n")

    assert run_check(team, capsys, None) == (ExitCode.DONE, "demo: no exposed secrets\n")
    with pytest.raises(ConfigError, match=r"Cannot read deploy/other\.env"):
        check("other", root=team.root)
    with pytest.raises(ConfigError, match="Unknown environment 'nowhere'"):
        check("nowhere", root=team.root)


def test_check_failed_repair_is_reported(
    team: Team, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    team.env_file.chmod(0o644)

    def denied(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", denied)

    code, output = run_check(team, capsys, repair=True)

    assert code is ExitCode.FAILED
    assert "changing it failed: Operation not permitted" in output
