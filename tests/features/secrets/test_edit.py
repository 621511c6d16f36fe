"""Edit an encrypted env file with scripted editors: no input is lost, and no plaintext is left behind."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rolling_upgrade.config.encryption import Encryption, detect
from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.secrets.edit import edit
from rolling_upgrade.features.secrets.workflow import encrypt
from tests.support.pgp import Pgp
from tests.support.team import SECRET, Team

Editor = Callable[[str], Path]


@pytest.fixture
def editor(team: Team, monkeypatch: pytest.MonkeyPatch) -> Editor:
    """Make a shell script the editor; `$1` is the file. It notes the file's place and modes first."""

    def make(body: str) -> Path:
        path = team.folder / "editor"
        note = f'stat -c "%a %n" "$1" "$(dirname "$1")" >{team.folder}/seen\n'
        path.write_text(f"#!/bin/sh\n{note}{body}\n")
        path.chmod(0o700)
        monkeypatch.setenv("EDITOR", str(path))
        return path

    return make


@pytest.fixture
def sealed(team: Team) -> Team:
    """The project with an env file encrypted by age."""
    team.listing(team.ann, team.ci)
    encrypt("demo", root=team.root)
    return team


def recorded_modes(team: Team) -> list[list[str]]:
    return [line.split() for line in (team.folder / "seen").read_text().splitlines()]


def refused(team: Team, resume: str = "") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        edit("demo", root=team.root, resume=resume)
    assert SECRET not in str(caught.value)
    return caught.value


def kept(error: ConfigError) -> Path:
    found = re.search(r"--resume (\S+);", error.next_step)
    assert found
    return Path(found[1])


def test_edit_changes_the_text_and_leaves_no_plaintext(sealed: Team, editor: Editor) -> None:
    editor('cp "$1" "$1~"; sed -i "s/^APP_VERSION=.*/APP_VERSION=3.0.0/" "$1"')

    assert edit("demo", root=sealed.root) is ExitCode.DONE

    assert detect(sealed.env_file.read_bytes()) is Encryption.AGE
    assert sealed.mode == "0600"
    assert sealed.project.application().services[0].image.tag == "3.0.0"
    (file_mode, file), (folder_mode, folder) = recorded_modes(sealed)
    assert (file_mode, folder_mode) == ("600", "700")
    assert file.startswith("/dev/shm/rolling-")
    assert not Path(folder).exists()


def test_edit_without_changes_writes_nothing(sealed: Team, editor: Editor, capsys: pytest.CaptureFixture[str]) -> None:
    before = sealed.env_file.read_bytes()
    editor("true")

    assert edit("demo", root=sealed.root) is ExitCode.DONE

    assert sealed.env_file.read_bytes() == before
    assert "No changes" in capsys.readouterr().err


def test_edit_vault_keeps_its_label_and_password(team: Team, editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    from rolling_upgrade.config.encryption import vault

    (team.folder / "pass").write_text("correct horse")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(team.folder / "pass"))
    team.env_file.write_bytes(vault.encrypt(team.env_file.read_bytes(), b"correct horse", label="demo"))
    editor('sed -i "s/^APP_VERSION=.*/APP_VERSION=3.0.0/" "$1"')

    assert edit("demo", root=team.root) is ExitCode.DONE

    assert vault.label(team.env_file.read_bytes()) == "demo"
    assert team.project.application().services[0].image.tag == "3.0.0"


def test_edit_gpg_without_a_recipients_file_keeps_the_keys(team: Team, pgp: Pgp, editor: Editor) -> None:
    from rolling_upgrade.config.encryption import gpg

    stranger = pgp.stranger("Bob <bob@example.org>")
    written = gpg.encrypt(team.env_file.read_bytes(), [pgp.fingerprints()[0], stranger], armored=False)
    team.env_file.write_bytes(written)
    editor('sed -i "s/^APP_VERSION=.*/APP_VERSION=3.0.0/" "$1"')

    assert edit("demo", root=team.root) is ExitCode.DONE

    assert gpg.recipients(team.env_file.read_bytes()) == gpg.recipients(written)
    assert team.project.application().services[0].image.tag == "3.0.0"


def test_edit_invalid_text_is_kept_and_resumed(sealed: Team, editor: Editor) -> None:
    before = sealed.env_file.read_bytes()
    editor('echo "hello world" >>"$1"')

    error = refused(sealed)

    assert "demo.env:10: " in str(error)
    assert sealed.env_file.read_bytes() == before
    text = kept(error)
    assert text.stat().st_mode & 0o777 == 0o600
    assert text.read_text().endswith("hello world\n")
    assert not Path(recorded_modes(sealed)[1][1]).exists()
    editor('sed -i "s/hello world/LOG_LEVEL=debug/" "$1"')
    assert edit("demo", root=sealed.root, resume=str(text)) is ExitCode.DONE
    assert not text.exists()
    assert sealed.project.load().name == "demo"
    assert sealed.env_file.read_bytes() != before


@pytest.mark.parametrize("name", ["mine.env", "rolling-mine.env"])
def test_edit_resumed_file_of_the_operator_is_not_deleted(sealed: Team, editor: Editor, name: str) -> None:
    own = sealed.folder / name
    own.write_text("APP_NAME=mine\n")
    editor("true")

    assert edit("demo", root=sealed.root, resume=str(own)) is ExitCode.DONE
    assert own.exists()


def test_edit_configuration_that_does_not_load_is_reported(
    sealed: Team, editor: Editor, capsys: pytest.CaptureFixture[str]
) -> None:
    editor('echo "BACKEND_PORT=no" >>"$1"')

    assert edit("demo", root=sealed.root) is ExitCode.DONE
    assert re.search(r"deploy/demo\.env:\d+: BACKEND_PORT: found 'no'", capsys.readouterr().err)


@pytest.mark.parametrize("end", ["exit 3", "kill -9 $$"])
def test_edit_failed_editor_keeps_the_edited_text(sealed: Team, editor: Editor, end: str) -> None:
    before = sealed.env_file.read_bytes()
    editor(f'echo "LOG_LEVEL=debug" >>"$1"; {end}')

    error = refused(sealed)

    text = kept(error)
    assert text.read_text().endswith("LOG_LEVEL=debug\n")
    assert sealed.env_file.read_bytes() == before
    text.unlink()


def test_edit_failed_editor_without_changes_keeps_nothing(sealed: Team, editor: Editor) -> None:
    editor("exit 1")

    assert "failed with exit code 1" in str(refused(sealed))
    assert not Path(recorded_modes(sealed)[1][1]).exists()


def test_edit_file_changed_by_another_process_keeps_both_texts(sealed: Team, editor: Editor) -> None:
    editor(f'echo "LOG_LEVEL=debug" >>"$1"; echo >>{sealed.env_file}')

    error = refused(sealed)

    assert "Another process changed" in str(error)
    text, now = kept(error), sealed.env_file.read_bytes()
    editor("true")
    assert "would revert that change" in str(refused(sealed, str(text)))
    assert (sealed.env_file.read_bytes(), "LOG_LEVEL=debug" in text.read_text()) == (now, True)
    text.unlink()


def test_edit_text_of_another_environment_is_refused(sealed: Team, editor: Editor) -> None:
    editor('echo "hello world" >>"$1"')
    text = kept(refused(sealed))
    other = text.rename(text.with_name(text.name.replace("demo.env", "staging.env")))
    before = sealed.env_file.read_bytes()

    assert "was kept from staging.env" in str(refused(sealed, str(other)))
    assert (sealed.env_file.read_bytes(), other.exists()) == (before, True)
    other.unlink()


def test_edit_text_without_a_setting_is_refused(sealed: Team, editor: Editor) -> None:
    before = sealed.env_file.read_bytes()
    editor(': >"$1"')

    error = refused(sealed)

    assert "contains no setting" in str(error)
    assert sealed.env_file.read_bytes() == before
    kept(error).unlink()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_edit_terminated_process_terminates_the_editor_and_leaves_no_plaintext(
    sealed: Team, editor: Editor, number: int
) -> None:
    before = sealed.env_file.read_bytes()
    path = editor(f'echo "LOG_LEVEL=debug" >>"$1"; echo $$ >{sealed.folder}/pid; exec sleep 60')
    process = sealed.start("secrets.edit", "--env", "demo", EDITOR=str(path))
    pid = _wait_for(sealed.folder / "pid")

    process.send_signal(number)

    out, err = process.communicate(timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED
    assert SECRET not in out + err
    assert not Path(recorded_modes(sealed)[1][1]).exists()
    assert not Path(f"/proc/{pid}").exists()
    assert sealed.env_file.read_bytes() == before


def test_edit_ctrl_c_is_left_to_the_editor(sealed: Team, editor: Editor) -> None:
    path = editor(f'trap : INT; echo $$ >{sealed.folder}/pid; read line <{sealed.folder}/go; echo "#" >>"$1"')
    os.mkfifo(sealed.folder / "go")
    process = sealed.start("secrets.edit", "--env", "demo", EDITOR=str(path))
    _wait_for(sealed.folder / "pid")

    process.send_signal(signal.SIGINT)
    (sealed.folder / "go").write_text("on\n")

    process.communicate(timeout=30)
    assert process.returncode == 0


def _wait_for(file: Path) -> str:
    deadline = time.monotonic() + 30
    while not (file.exists() and file.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return file.read_text().strip()


@pytest.mark.parametrize("named", ["", "/nothing/there", "'", "true-but-unknown --wait"])
def test_edit_without_a_usable_editor_is_refused(sealed: Team, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("EDITOR", named)

    assert "EDITOR=nano" in str(refused(sealed))


def test_edit_visual_with_arguments_overrides_editor(
    sealed: Team, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = editor("exit 1")
    monkeypatch.setenv("VISUAL", "sh -c 'exit 7' editor")

    assert "exit code 7" in str(refused(sealed))
    assert path.exists()


def test_edit_changed_recipients_are_refused(sealed: Team, editor: Editor) -> None:
    editor("exit 1")
    sealed.listing(sealed.ann, sealed.bob, sealed.ci)

    error = refused(sealed)

    assert "bob@desk is listed, but the file is not encrypted for that key" in str(error)
    assert "rolling-upgrade secrets.rotate" in error.next_step
    assert not (sealed.folder / "seen").exists()


def test_edit_plaintext_file_is_refused(team: Team, editor: Editor) -> None:
    editor("exit 1")

    assert "is not encrypted" in str(refused(team))


def test_edit_missing_resume_file_is_refused(sealed: Team, editor: Editor) -> None:
    editor("exit 1")

    assert "--resume /nothing cannot be read" in str(refused(sealed, "/nothing"))


def test_edit_without_an_in_memory_file_system_warns(
    sealed: Team, editor: Editor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rolling_upgrade.features.secrets import edit as secret_edit

    monkeypatch.setattr(secret_edit, "_IN_MEMORY", ())
    editor("true")

    edit("demo", root=sealed.root)

    assert "the plaintext is on disk" in capsys.readouterr().err
    assert not Path(recorded_modes(sealed)[1][1]).exists()
