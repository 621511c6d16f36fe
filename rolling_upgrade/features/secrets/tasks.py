"""The tasks `secrets.encrypt`, `decrypt`, `edit`, `rotate`, `recipients` and `check`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ON_FILES, task

_FORCE = {"force": "even if no key on this machine opens the result"}


@task(
    workflow="encrypt",
    interrupted=ON_FILES,
    help=_FORCE | {"form": "age, ansible-vault or gpg; also converts an encrypted file; default: age"},
)
def encrypt(context: Any, env: str | None = None, force: bool = False, form: str = "") -> None:
    """Encrypt the env file in place, for the keys in the recipients file."""


@task(
    workflow="decrypt",
    interrupted=ON_FILES,
    help={"in-place": "replace the encrypted file", "force": "print even to a terminal"},
)
def decrypt(context: Any, env: str | None = None, in_place: bool = False, force: bool = False) -> None:
    """Print the env file in plaintext, for a pipe or a file."""


@task(workflow="edit:edit", interrupted=ON_FILES, help={"resume": "file with the text that an earlier edit kept"})
def edit(context: Any, env: str | None = None, resume: str = "") -> None:
    """Edit the encrypted env file in $VISUAL or $EDITOR; keeps its form and recipients."""


@task(
    workflow="rotate",
    interrupted=ON_FILES,
    help=_FORCE | {"new-password-file": "for ansible-vault: file with the new password, or a program that prints it"},
)
def rotate(context: Any, env: str | None = None, new_password_file: str = "", force: bool = False) -> None:
    """Encrypt the env file again for the keys in the recipients file; lists the values to change."""


@task(
    workflow="recipients",
    interrupted=ON_FILES,
    help={
        "add": "public key, or a file with one; may be repeated",
        "remove": "comment or fingerprint of a listed key; may be repeated",
        "comment": "with --add: owner of the key",
    },
)
def recipients(
    context: Any,
    env: str | None = None,
    add: list[str] | None = None,
    remove: list[str] | None = None,
    comment: str = "",
) -> None:
    """List the recipients of the env file, or add and remove some; secrets.rotate applies the change."""


@task(
    workflow="check:check",
    interrupted=ON_FILES,
    help={"env": "only this environment; default: all", "repair": "set the mode of files that others can read to 0600"},
)
def check(context: Any, env: str | None = None, repair: bool = False) -> None:
    """Find exposed secrets: modes, tracked plaintext, placeholders, wrong recipients; exits with 1 if there are any."""
