"""Changes of the folder of keys: what a name and a key come to, and the files that are written for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fabfile.config.access import is_name, read_access
from fabfile.errors import ConfigError, Mistake, PreflightError
from fabfile.model import Access, Environment
from fabfile.model.public_key import PublicKey, read_public_key
from fabfile.workflows.replacing import replace_text

_LONGEST_KEY = 20_000


def _nothing() -> None:
    """Write nothing."""


@dataclass(frozen=True)
class Change:
    """The folder as it is to be, and what writes it; an empty title means that it is so already."""

    access: Access
    title: str = ""
    write: Callable[[], None] = _nothing


def unchanged(environment: Environment) -> Change:
    """The folder as it is. Raises PreflightError when it lets nobody in."""
    access = read_access(environment.access_folder)
    if not access.granted:
        raise PreflightError(
            f"{environment.access_folder} holds no key: every host would refuse everybody. Nothing was touched.",
            next_step=f"inv access.grant --env {environment.name} --name NAME --key FILE",
        )
    return Change(access)


def granted(environment: Environment, name: str, key: str) -> Change:
    """The folder with one more key. Raises ConfigError for a name or a key that is not fit."""
    if not is_name(name):
        raise _mistake("--name", "a name that is none", "letters, digits and . _ -, such as alice or ci-runner")
    public = _read(key)
    access = read_access(environment.access_folder)
    held = access.key_of(name)
    if held is not None and held.blob == public.blob:
        return Change(access)
    if held is not None:
        raise _mistake("--name", f"{name}, who has another key", f"another name, or inv access.revoke --name {name}")
    known = access.names.get(public.fingerprint)
    if known:
        expected = "a new key; a revoked one is granted again once its line is taken out of revoked/"
        raise _mistake("--key", f"the key of {known}", expected)
    path = Path(environment.access_folder) / f"{name}.pub"
    return Change(
        access.with_granted(name, public),
        f"Let {name} ({public.fingerprint}) deploy to {environment.name}",
        lambda: replace_text(path, public.line(public.comment or name) + "\n"),
    )


def revoked(environment: Environment, name: str) -> Change:
    """The folder without a key. Raises PreflightError for the last one; a name that was revoked changes nothing."""
    access = read_access(environment.access_folder)
    key = access.key_of(name)
    if key is None:
        if any(name == former for former, _ in access.revoked):
            left = Path(environment.access_folder) / f"{name}.pub"
            return (
                Change(access, f"Finish what took {name}'s access away", left.unlink)
                if left.exists()
                else unchanged(environment)
            )
        known = ", ".join(one for one, _ in access.granted) or "nobody"
        raise _mistake("--name", "a name without a key", f"one of: {known}")
    if len(access.granted) == 1:
        raise PreflightError(
            f"{name}'s is the last key of {environment.name}: nobody could deploy any more. Nothing was touched.",
            next_step=f"grant another one first: inv access.grant --env {environment.name} --name NAME --key FILE",
        )
    title = f"Take {name}'s access ({key.fingerprint}) to {environment.name} away"
    return Change(access.with_revoked(name), title, lambda: _move(Path(environment.access_folder), name, key))


def _move(folder: Path, name: str, key: PublicKey) -> None:
    """Remember the key as revoked before its grant goes: killed in between, nobody gets in by accident."""
    path = folder / "revoked" / f"{name}.pub"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    replace_text(path, f"{before}{key.line(key.comment)}\n")
    (folder / f"{name}.pub").unlink()


def _read(given: str) -> PublicKey:
    """The key that was given as a file or as text. Raises ConfigError, in which nothing of it is repeated."""
    try:
        return read_public_key(_text(given))
    except (ValueError, OSError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise _mistake(
            "--key", said or "a file that cannot be read", "a .pub file, or its one line in quotes"
        ) from None


def _text(given: str) -> str:
    try:
        is_file = "\n" not in given and Path(given).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        is_file = False
    if not is_file:
        if given.strip() and len(given.split()) == 1:
            raise ValueError("neither a file that is there nor a public key")
        return given
    with Path(given).expanduser().open("rb") as file:
        data = file.read(_LONGEST_KEY + 1)
    if len(data) > _LONGEST_KEY:
        raise ValueError("a file that is too long for a public key")
    return data.decode(errors="replace")


def _mistake(option: str, found: str, expected: str) -> ConfigError:
    mistake = Mistake("command line", option, found, expected)
    return ConfigError("The command line has a mistake; nothing was contacted.", [mistake])
