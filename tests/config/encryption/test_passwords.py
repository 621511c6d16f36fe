"""The sources of the password of an ansible-vault file."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from rolling_upgrade.config.encryption import EncryptionError, NoTerminal, keyring
from tests.support.encryption_keys import Prompts


def password_file(path: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    path.write_text(text)
    path.chmod(mode)
    return {keyring.PASSWORD_FILE: str(path)}


def test_vault_password_is_the_content_of_a_file(tmp_path: Path) -> None:
    environ = password_file(tmp_path / "pass", " correct horse \n")

    assert keyring.vault_password(environ, keyring.no_prompt) == b"correct horse"


def test_vault_password_is_the_output_of_an_executable_file(tmp_path: Path) -> None:
    environ = password_file(tmp_path / "pass", "#!/bin/sh\nprintf 'correct horse \\n'\n", 0o700)

    assert keyring.vault_password(environ, keyring.no_prompt) == b"correct horse "


def test_vault_password_program_that_fails_is_named(tmp_path: Path) -> None:
    environ = password_file(tmp_path / "pass", "#!/bin/sh\necho no\nexit 3\n", 0o700)

    with pytest.raises(EncryptionError, match="exit code 3"):
        keyring.vault_password(environ, keyring.no_prompt)


@pytest.mark.parametrize("text", ["", "\n", "  \n"])
def test_vault_password_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(EncryptionError, match="without a password"):
        keyring.vault_password(password_file(tmp_path / "pass", text), keyring.no_prompt)


def test_vault_password_missing_file_is_named(tmp_path: Path) -> None:
    environ = {keyring.PASSWORD_FILE: str(tmp_path / "gone")}

    with pytest.raises(EncryptionError, match="No such file"):
        keyring.vault_password(environ, keyring.no_prompt)


def test_vault_password_without_a_file_is_prompted_for() -> None:
    assert keyring.vault_password({}, Prompts("correct horse")) == b"correct horse"
    assert keyring.vault_password({}, Prompts("new one", "new one"), new=True) == b"new one"


@pytest.mark.parametrize("answers", [("one", "other"), ("", "")])
def test_vault_password_new_password_is_typed_twice(answers: tuple[str, str]) -> None:
    with pytest.raises(EncryptionError, match="two different entries"):
        keyring.vault_password({}, Prompts(*answers), new=True)


def test_prompt_without_a_terminal_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("typed\n"))

    with pytest.raises(NoTerminal, match="no terminal"):
        keyring.prompt_hidden("Password")
    with pytest.raises(NoTerminal) as caught:
        keyring.vault_password({}, keyring.prompt_hidden)
    assert keyring.PASSWORD_FILE in caught.value.needed
