"""The tasks `secrets.encrypt`, `decrypt`, `edit`, `rotate`, `recipients` and `check`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ON_FILES, end_with, root, task

_FORCE = {"force": "even if no key on this machine opens what is written"}


@task(help=_FORCE | {"form": "age, ansible-vault or gpg; age without it; also from one form to another"})
def encrypt(context: Any, env: str | None = None, force: bool = False, form: str = "") -> None:  # noqa: ARG001
    """Encrypt the env file in place, for the keys in the recipients file."""
    from rolling_upgrade.features.secrets import workflow

    end_with(lambda: workflow.encrypt(env, root=root(), form=form, force=force), interrupted=ON_FILES)


@task(help={"in-place": "put it in the place of the encrypted file", "force": "on a terminal too"})
def decrypt(context: Any, env: str | None = None, in_place: bool = False, force: bool = False) -> None:  # noqa: ARG001
    """Print the env file in plain text, for a pipe or a file of your own."""
    from rolling_upgrade.features.secrets import workflow

    end_with(lambda: workflow.decrypt(env, root=root(), in_place=in_place, force=force), interrupted=ON_FILES)


@task(help={"resume": "go on with a text that an earlier edit kept"})
def edit(context: Any, env: str | None = None, resume: str = "") -> None:  # noqa: ARG001
    """Change the encrypted env file in $VISUAL or $EDITOR; same form, same recipients."""
    from rolling_upgrade.features.secrets import edit as workflow

    end_with(lambda: workflow.edit(env, root=root(), resume=resume), interrupted=ON_FILES)


@task(help=_FORCE | {"new-password-file": "for ansible-vault: the new password, or a program that prints it"})
def rotate(
    context: Any,  # noqa: ARG001
    env: str | None = None,
    new_password_file: str = "",
    force: bool = False,
) -> None:
    """Encrypt the env file anew for the keys in the recipients file; says which values to change."""
    from rolling_upgrade.features.secrets import workflow

    end_with(
        lambda: workflow.rotate(env, root=root(), new_password_file=new_password_file, force=force),
        interrupted=ON_FILES,
    )


@task(
    iterable=["add", "remove"],
    help={
        "add": "a public key, or a file with one; may be given more than once",
        "remove": "a listed key by its comment or fingerprint; may be given more than once",
        "comment": "with --add: whose key it is",
    },
)
def recipients(
    context: Any,  # noqa: ARG001
    env: str | None = None,
    add: list[str] | None = None,
    remove: list[str] | None = None,
    comment: str = "",
) -> None:
    """List whose keys open the env file, or add and remove some; secrets.rotate makes it so."""
    from rolling_upgrade.features.secrets import recipients as workflow

    end_with(
        lambda: workflow.recipients(
            env, root=root(), add=tuple(add or ()), remove=tuple(remove or ()), comment=comment
        ),
        interrupted=ON_FILES,
    )


@task(
    help={
        "env": "only this environment; without it all of them",
        "repair": "take the rights of others from files that they can read",
    }
)
def check(context: Any, env: str | None = None, repair: bool = False) -> None:  # noqa: ARG001
    """Find exposed secrets: modes, tracked plain text, placeholders, wrong recipients; exits with 1."""
    from rolling_upgrade.features.secrets import check as workflow

    end_with(lambda: workflow.check(env, root=root(), repair=repair), interrupted=ON_FILES)
