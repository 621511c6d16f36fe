"""Read passwords from the terminal, or from the file or program that ansible-vault would use."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from rolling_upgrade.config.encryption import EncryptionError, NoTerminal

PASSWORD_FILE = "ANSIBLE_VAULT_PASSWORD_FILE"  # noqa: S105  (the name of a variable)
_PROGRAM_SECONDS = 60.0

#: Prompts for one secret line. Raises NoTerminal without a terminal.
Prompt = Callable[[str], str]


def prompt_hidden(question: str) -> str:
    """Prompt on the terminal without echo. Raises NoTerminal without a terminal."""
    if not sys.stdin.isatty():
        return no_prompt(question)
    try:
        return getpass.getpass(f"{question}: ")
    except EOFError:
        return ""


def no_prompt(question: str) -> str:
    """Refuse to prompt. Raises NoTerminal."""
    raise NoTerminal(f"no terminal to prompt for {question!r}", "a terminal")


def prompt_twice(question: str, prompt: Prompt) -> str:
    """Prompt twice for a new secret. Raises EncryptionError when the entries differ or are empty."""
    first = prompt(question)
    if not first or prompt(f"{question}, again") != first:
        raise EncryptionError("two different entries, or an empty one", "the same password twice")
    return first


def vault_password(environ: Mapping[str, str], prompt: Prompt, *, new: bool = False) -> bytes:
    """Return the password of an ansible-vault file. Raises EncryptionError.

    Like ansible-vault, run an executable password file and use its output; read any other file.
    Source: Ansible's documentation, "Storing passwords in third-party tools with vault password client scripts".
    """
    named = environ.get(PASSWORD_FILE, "")
    if named:
        return read_password(Path(os.path.expanduser(named)), PASSWORD_FILE)  # noqa: PTH111 (keeps an unknown ~user, raises nothing)
    question = "New password of the ansible-vault file" if new else "Password of the ansible-vault file"
    try:
        return (prompt_twice(question, prompt) if new else prompt(question)).encode()
    except NoTerminal:
        needed = f"{PASSWORD_FILE}=FILE, or a terminal to prompt on"
        raise NoTerminal("an ansible-vault file, but no password for it", needed) from None


def read_password(path: Path, why: str) -> bytes:
    """Return the password in a file, or the output of an executable file. Raises EncryptionError."""
    try:
        password = (
            _program_output(path, why) if os.access(path, os.X_OK) and path.is_file() else path.read_bytes().strip()
        )
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise EncryptionError(
            f"{path} ({why}): {reason}", "a file with the password, or a program that prints it"
        ) from None
    if not password:
        raise EncryptionError(f"{path} ({why}) without a password", "a file with the password")
    return password


def _program_output(path: Path, why: str) -> bytes:
    try:
        done = subprocess.run([str(path.absolute())], stdout=subprocess.PIPE, timeout=_PROGRAM_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EncryptionError(
            f"{path} ({why}), which printed no password within a minute", "a program that prints the password"
        ) from None
    if done.returncode:
        found = f"{path} ({why}), which failed with exit code {done.returncode}"
        raise EncryptionError(found, "a program that prints the password")
    return done.stdout.strip(b"\r\n")
