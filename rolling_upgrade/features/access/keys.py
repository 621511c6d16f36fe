"""The directory `deploy/authorized_keys/ENV/`: NAME.pub grants access, `revoked/NAME.pub` records a revoked key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from rolling_upgrade.config import validators
from rolling_upgrade.engine.local_file import read_small, replace_text
from rolling_upgrade.engine.model import Environment
from rolling_upgrade.engine.openssh import PublicKey, read_public_key
from rolling_upgrade.errors import PROGRAM, ConfigError, ConfigIssue, PreflightError, usage_error

#: The limit for a file with a public key, which has at most a few KB.
_MAX_BYTES = 20_000
#: A name and its key.
NamedKey = tuple[str, PublicKey]


@dataclass(frozen=True)
class Access:
    """The granted keys, sorted by name, and the revoked ones."""

    granted: tuple[NamedKey, ...] = ()
    revoked: tuple[NamedKey, ...] = ()

    @property
    def names(self) -> Mapping[str, str]:
        """The name of each key by its fingerprint."""
        former = {key.fingerprint: f"{name} (revoked)" for name, key in self.revoked}
        return former | {key.fingerprint: name for name, key in self.granted}

    @property
    def revoked_blobs(self) -> frozenset[str]:
        """The revoked keys, as base64."""
        return frozenset(key.blob for _, key in self.revoked)


@dataclass(frozen=True)
class KeyChange:
    """The access after a change to the directory, and the function that writes it. An empty title means no change."""

    access: Access
    title: str = ""
    write: Callable[[], None] = lambda: None


def read_access(directory: str) -> Access:
    """Read the keys of an environment. Raises ConfigError that lists every file that is not one public key.

    A key that is both granted and revoked under one name counts as revoked: its revocation was interrupted.
    """
    issues: list[ConfigIssue] = []
    granted = list(_keys(Path(directory), issues))
    revoked = list(_keys(Path(directory) / "revoked", issues, many=True))
    former = {(name, key.blob) for name, key in revoked}
    granted = [(name, key) for name, key in granted if (name, key.blob) not in former]
    issues += _duplicates(directory, granted, revoked)
    if issues:
        raise ConfigError(
            "The directory of authorized keys is invalid. No host was contacted.",
            issues,
            next_step="correct the files above and run the same command again",
        )
    return Access(tuple(sorted(granted, key=itemgetter(0))), tuple(revoked))


def key_names(directory: str) -> Mapping[str, str]:
    """Return the name of each key by its fingerprint; invalid files are skipped."""
    ignored: list[ConfigIssue] = []
    path = Path(directory)
    return Access(tuple(_keys(path, ignored)), tuple(_keys(path / "revoked", ignored, many=True))).names


def is_name(name: str) -> bool:
    """Whether the name is safe as a file name and as a word in authorized_keys."""
    try:
        return validators.WORD(name) == name
    except ValueError:
        return False


def _keys(directory: Path, issues: list[ConfigIssue], *, many: bool = False) -> Iterator[NamedKey]:
    """Read one key per file, or with `many` one per line: a name may have been revoked more than once."""
    for file in _files(directory, issues):
        try:
            text = read_small(file, _MAX_BYTES).decode()
        except (OSError, UnicodeDecodeError):
            text = ""
        for key in filter(str.strip, text.splitlines()) if many else (text,):
            try:
                yield file.stem, read_public_key(key)
            except ValueError as error:
                issues.append(ConfigIssue(str(file), "", str(error), "one OpenSSH public key"))


def _files(directory: Path, issues: list[ConfigIssue]) -> Iterator[Path]:
    for file in sorted(directory.iterdir()) if directory.is_dir() else ():
        if file.name.startswith(".") or file.name == "README.md" or file.is_dir():
            continue
        if file.suffix == ".pub" and is_name(file.stem):
            yield file
        else:
            expected = f"NAME.pub, NAME {validators.WORD.expected}"
            issues.append(ConfigIssue(str(file), "", "a file with another name", expected))


def _duplicates(directory: str, granted: list[NamedKey], revoked: list[NamedKey]) -> Iterator[ConfigIssue]:
    """Report keys with two names, which survive a revocation of one name, and revoked keys that are granted again."""
    holders: dict[str, str] = {}
    former = {key.blob: name for name, key in revoked}
    for name, key in granted:
        file = f"{directory}/{name}.pub"
        if key.blob in holders:
            yield ConfigIssue(file, "", f"the key of {holders[key.blob]}.pub", "a different key for each name")
        if key.blob in former:
            yield ConfigIssue(file, "", f"a revoked key (revoked/{former[key.blob]}.pub)", "a new key")
        holders[key.blob] = name


def no_change(environment: Environment) -> KeyChange:
    """Return the directory without a change. Raises PreflightError when it grants no key."""
    access = read_access(environment.access_directory)
    if not access.granted:
        raise PreflightError(
            f"{environment.access_directory} has no key: every host would refuse every login. Nothing was touched.",
            next_step=f"{PROGRAM} access.grant --env {environment.name} --name NAME --key FILE",
        )
    return KeyChange(access)


def grant(environment: Environment, name: str, key: str) -> KeyChange:
    """Grant a key. `key` is a file or the key itself. Raises ConfigError for an invalid name or key."""
    if not is_name(name):
        raise usage_error(("--name", "an invalid name", "letters, digits and . _ -, such as alice or ci-runner"))
    public = _read(key)
    access = read_access(environment.access_directory)
    current = dict(access.granted).get(name)
    if current is not None and current.blob == public.blob:
        return KeyChange(access)
    if current is not None:
        raise usage_error(
            ("--name", f"{name}, which has another key", f"another name, or {PROGRAM} access.revoke --name {name}")
        )
    holder = access.names.get(public.fingerprint)
    if holder:
        expected = "a new key; to grant a revoked key again, first delete its line in revoked/"
        raise usage_error(("--key", f"the key of {holder}", expected))
    path = Path(environment.access_directory) / f"{name}.pub"
    return KeyChange(
        Access(tuple(sorted([*access.granted, (name, public)], key=itemgetter(0))), access.revoked),
        f"Let {name} ({public.fingerprint}) deploy to {environment.name}",
        lambda: replace_text(path, public.line(public.comment or name) + "\n"),
    )


def revoke(environment: Environment, name: str) -> KeyChange:
    """Revoke a key; nothing changes if it is already revoked.

    Raises PreflightError for the last key, ConfigError for an unknown name.
    """
    directory = Path(environment.access_directory)
    access = read_access(environment.access_directory)
    key = dict(access.granted).get(name)
    if key is None:
        if not any(name == former for former, _ in access.revoked):
            known = ", ".join(holder for holder, _ in access.granted)
            expected = f"one of: {known}" if known else "a name with a key; no key is granted"
            raise usage_error(("--name", "a name without a key", expected))
        leftover = directory / f"{name}.pub"
        if not leftover.exists():
            return no_change(environment)
        return KeyChange(access, f"Finish the revocation of {name}'s access", leftover.unlink)
    if len(access.granted) == 1:
        raise PreflightError(
            f"{name}'s is the last key of {environment.name}: no operator could deploy any more. Nothing was touched.",
            next_step=f"grant another key first: {PROGRAM} access.grant --env {environment.name} --name NAME --key FILE",
        )
    title = f"Revoke {name}'s access ({key.fingerprint}) to {environment.name}"
    granted = tuple(row for row in access.granted if row[0] != name)
    return KeyChange(Access(granted, (*access.revoked, (name, key))), title, lambda: _move(directory, name, key))


def _move(directory: Path, name: str, key: PublicKey) -> None:
    """Record the key as revoked before its grant is deleted: an interruption never leaves access granted."""
    path = directory / "revoked" / f"{name}.pub"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    replace_text(path, f"{before}{key.line(key.comment)}\n")
    (directory / f"{name}.pub").unlink()


def _read(given: str) -> PublicKey:
    """Read the key from a file or from the text itself. Raises ConfigError, which never repeats the text."""
    try:
        return read_public_key(_key_text(given))
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise usage_error(("--key", reason or "an unreadable file", "a .pub file, or its one line in quotes")) from None


def _key_text(given: str) -> str:
    try:
        is_file = "\n" not in given and Path(given).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        is_file = False
    if not is_file:
        if given.strip() and len(given.split()) == 1:
            raise ValueError("neither an existing file nor a public key")
        return given
    with Path(given).expanduser().open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError("a file that is too long for a public key")
    return data.decode(errors="replace")
