"""The tasks on secrets at rest: encrypt, decrypt, edit, rotate, recipients, check. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import COMMON, ON_FILES, ROOT, end_with
from fabfile.tasks.names import task

_ENV = {"env": COMMON["env"]}
_FORCE = {"force": "even if no key on this machine opens what is written"}


@task(help=_ENV | _FORCE | {"form": "age, ansible-vault or gpg; age without it; also from one form to another"})
def encrypt(context: Any, env: str | None = None, force: bool = False, form: str = "") -> None:  # noqa: ARG001
    """Encrypt the env file where it lies, for those whom the recipients file lists."""
    from fabfile.workflows.secrets import Request
    from fabfile.workflows.secrets import encrypt as run

    end_with(lambda: run(Request(env, ROOT, form=form, force=force)), interrupted=ON_FILES)


@task(help=_ENV | {"in-place": "put it in the place of the encrypted file", "force": "on a terminal too"})
def decrypt(context: Any, env: str | None = None, in_place: bool = False, force: bool = False) -> None:  # noqa: ARG001
    """Print the env file in plain text, for a pipe or a file of your own."""
    from fabfile.workflows.secrets import Request
    from fabfile.workflows.secrets import decrypt as run

    end_with(lambda: run(Request(env, ROOT, in_place=in_place, force=force)), interrupted=ON_FILES)


@task(help=_ENV | {"resume": "go on with a text that an earlier edit kept"})
def edit(context: Any, env: str | None = None, resume: str = "") -> None:  # noqa: ARG001
    """Change the encrypted env file in $VISUAL or $EDITOR; same form, same recipients."""
    from fabfile.workflows.secret_edit import edit as run

    end_with(lambda: run(env, root=ROOT, resume=resume), interrupted=ON_FILES)


@task(help=_ENV | _FORCE | {"new-password-file": "for ansible-vault: the new password, or a program that prints it"})
def rotate(
    context: Any,  # noqa: ARG001
    env: str | None = None,
    new_password_file: str = "",
    force: bool = False,
) -> None:
    """Encrypt the env file anew for those who are listed now; says which values to change."""
    from fabfile.workflows.secrets import Request
    from fabfile.workflows.secrets import rotate as run

    end_with(lambda: run(Request(env, ROOT, new_password_file=new_password_file, force=force)), interrupted=ON_FILES)


@task(
    iterable=["add", "remove"],
    help=_ENV
    | {
        "add": "a public key, or a file with one; may be given more than once",
        "remove": "a listed key by its comment or fingerprint; may be given more than once",
        "comment": "with --add: whose key it is",
    },
)
def recipients(
    context: Any,  # noqa: ARG001
    env: str | None = None,
    add: Any = None,
    remove: Any = None,
    comment: str = "",
) -> None:
    """List whose keys open the env file, or add and remove some; secrets.rotate makes it so."""
    from fabfile.workflows.recipients import Request
    from fabfile.workflows.recipients import recipients as run

    end_with(lambda: run(Request(env, ROOT, tuple(add or ()), tuple(remove or ()), comment)), interrupted=ON_FILES)


@task(
    help={
        "env": "only this environment; without it all of them",
        "repair": "take the rights of others from files that they can read",
    }
)
def check(context: Any, env: str | None = None, repair: bool = False) -> None:  # noqa: ARG001
    """Look for secrets that lie open: modes, tracked plain text, placeholders, wrong recipients; exits with 1."""
    from fabfile.workflows.secret_check import check as run

    end_with(lambda: run(env, root=ROOT, repair=repair), interrupted=ON_FILES)
