"""Reading `deploy/authorized_keys/ENV/`: NAME.pub grants, `revoked/NAME.pub` remembers. It writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fabfile import model
from fabfile.config import forms
from fabfile.errors import ConfigError, Mistake
from fabfile.model.public_key import PublicKey, read_public_key

#: A public key is at most a few KB: a longer file is something else.
_LONGEST = 20_000
Row = tuple[str, PublicKey]


def read_access(folder: str) -> model.Access:
    """The keys of an environment. Raises ConfigError with every file that is not one public key.

    A key that is granted and revoked under one name is revoked: its revocation was cut off half way.
    """
    mistakes: list[Mistake] = []
    granted = list(_granted(Path(folder), mistakes))
    revoked = list(_revoked(Path(folder) / "revoked", mistakes))
    former = {(name, key.blob) for name, key in revoked}
    granted = [(name, key) for name, key in granted if (name, key.blob) not in former]
    mistakes += _doubles(folder, granted, revoked)
    if mistakes:
        raise ConfigError(
            "The folder of who may deploy has a mistake; nothing was contacted.",
            mistakes,
            next_step="correct the files above and run the same command again",
        )
    return model.Access(tuple(sorted(granted, key=lambda row: row[0])), tuple(revoked))


def key_names(folder: str) -> Mapping[str, str]:
    """Whose each fingerprint is, as far as the folder can be read."""
    ignored: list[Mistake] = []
    path = Path(folder)
    return model.Access(tuple(_granted(path, ignored)), tuple(_revoked(path / "revoked", ignored))).names


def _granted(folder: Path, mistakes: list[Mistake]) -> Iterator[Row]:
    for file in _files(folder, mistakes):
        yield from _rows(file, [_text(file)], mistakes)


def _revoked(folder: Path, mistakes: list[Mistake]) -> Iterator[Row]:
    """One name may have been revoked more than once: a line for each key."""
    for file in _files(folder, mistakes):
        yield from _rows(file, [line for line in _text(file).splitlines() if line.strip()], mistakes)


def _rows(file: Path, lines: list[str], mistakes: list[Mistake]) -> Iterator[Row]:
    for line in lines:
        try:
            yield file.stem, read_public_key(line)
        except ValueError as error:
            mistakes.append(Mistake(str(file), "", str(error), "one public key of OpenSSH"))


def _files(folder: Path, mistakes: list[Mistake]) -> Iterator[Path]:
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.name.startswith(".") or file.name == "README.md" or file.is_dir():
            continue
        if file.suffix == ".pub" and is_name(file.stem):
            yield file
        else:
            mistakes.append(Mistake(str(file), "", "a file of another name", f"NAME.pub, NAME {forms.WORD.expected}"))


def is_name(name: str) -> bool:
    """Whether a key may have the name: it becomes the name of a file and a word in authorized_keys."""
    try:
        return forms.WORD(name) == name
    except ValueError:
        return False


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_LONGEST).decode()
    except (OSError, UnicodeDecodeError):
        return ""


def _doubles(folder: str, granted: list[Row], revoked: list[Row]) -> Iterator[Mistake]:
    """A key under two names would outlive its revocation under one; a revoked one must be granted on purpose."""
    holders: dict[str, str] = {}
    former = {key.blob: name for name, key in revoked}
    for name, key in granted:
        file = f"{folder}/{name}.pub"
        if key.blob in holders:
            yield Mistake(file, "", f"the key of {holders[key.blob]}.pub", "a key of its own for each name")
        if key.blob in former:
            yield Mistake(file, "", f"a key that was revoked (revoked/{former[key.blob]}.pub)", "a new key")
        holders[key.blob] = name
