"""Where a password comes from: the terminal, or the file or program that ansible-vault would use too. It keeps none."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from fabfile.sealing.forms import NoTerminal, SealError

PASSWORD_FILE = "ANSIBLE_VAULT_PASSWORD_FILE"  # noqa: S105  (the name of a variable)
_PROGRAM_SECONDS = 60.0

#: Asks for one secret line. Raises SealError where nobody can be asked.
Ask = Callable[[str], str]


def ask(question: str) -> str:
    """What a person types at the terminal, unseen. Raises NoTerminal without one."""
    if not sys.stdin.isatty():
        return never(question)
    try:
        return getpass.getpass(f"{question}: ")
    except EOFError:
        return ""


def never(question: str) -> str:
    """The answer where nobody may be asked. Raises NoTerminal."""
    raise NoTerminal(f"no answer to {question!r}, because there is no terminal to ask on", "a terminal")


def twice(question: str, asking: Ask) -> str:
    """A new secret, typed two times. Raises SealError where they differ or are empty."""
    first = asking(question)
    if not first or asking(f"{question}, again") != first:
        raise SealError("two entries that differ, or an empty one", "the same password two times")
    return first


def vault_password(environ: Mapping[str, str], asking: Ask, *, new: bool = False) -> bytes:
    """The password of an ansible-vault file. Raises SealError.

    An executable file is run and what it prints is the password, as ansible-vault does; else what the file holds.
    Source: Ansible's documentation, "Storing passwords in third-party tools with vault password client scripts".
    """
    named = environ.get(PASSWORD_FILE, "")
    if named:
        return of_file(Path(os.path.expanduser(named)), PASSWORD_FILE)  # noqa: PTH111 (a ~ of nobody stays, no error)
    question = "New password of the ansible-vault file" if new else "Password of the ansible-vault file"
    try:
        return (twice(question, asking) if new else asking(question)).encode()
    except NoTerminal:
        needed = f"{PASSWORD_FILE}=FILE, or a terminal to ask on"
        raise NoTerminal("an ansible-vault file and no password for it", needed) from None


def of_file(path: Path, why: str) -> bytes:
    """The password that a file holds or that a program prints. Raises SealError."""
    try:
        password = _printed(path, why) if os.access(path, os.X_OK) and path.is_file() else path.read_bytes().strip()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SealError(f"{path} of {why}: {reason}", "a file with the password, or a program that prints it") from None
    if not password:
        raise SealError(f"{path} of {why} without a password in it", "a file with the password")
    return password


def _printed(path: Path, why: str) -> bytes:
    try:
        done = subprocess.run([str(path.absolute())], stdout=subprocess.PIPE, timeout=_PROGRAM_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise SealError(f"{path} of {why} ran for a minute and said nothing", "a program that prints it") from None
    if done.returncode:
        found = f"{path} of {why}, which ended with exit code {done.returncode}"
        raise SealError(found, "a program that prints the password")
    return done.stdout.strip(b"\r\n")
