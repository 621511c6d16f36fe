"""What the tasks on encrypted env files share: reading, encrypting, proving that it opens, putting it in place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fabfile.config.at_rest import AtRest
from fabfile.config.envfile import EnvFile, parse_env
from fabfile.config.findings import Findings
from fabfile.config.textfile import decoded
from fabfile.errors import ConfigError, Mistake
from fabfile.report import tell
from fabfile.sealing import age, gpg, vault
from fabfile.sealing.forms import Form, SealError, is_armored, recognise
from fabfile.sealing.recipients import Recipient, is_marked, marked
from fabfile.workflows.replacing import PRIVATE, PUBLIC, replace


@contextmanager
def refusing(place: AtRest) -> Iterator[None]:
    """Turn what cannot be opened or encrypted into the error that a task ends with."""
    try:
        yield
    except SealError as error:
        mistake = Mistake(place.shown, "", error.found, error.needed)
        raise ConfigError(f"{place.shown} was left as it is.", [mistake]) from None


def bytes_of(place: AtRest) -> bytes:
    """The env file as it lies there. Raises ConfigError."""
    try:
        return place.file.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        next_step = f"copy {place.file.name}.example to {place.shown} and fill it in"
        raise ConfigError(f"{place.shown} cannot be read: {reason}.", next_step=next_step) from None


def encrypted_bytes(place: AtRest) -> tuple[bytes, Form]:
    """The env file and its form. Raises ConfigError when it is not encrypted."""
    data = bytes_of(place)
    form = recognise(data)
    if form is None:
        raise ConfigError(
            f"{place.shown} is not encrypted: it is plain text that every editor opens.",
            next_step=f"inv secrets.encrypt --env {place.environment}",
        )
    return data, form


def values_in(text: bytes, place: AtRest) -> EnvFile:
    """The settings in a plaintext. Raises ConfigError with each line that is none."""
    findings = Findings(place.file.parent)
    content = decoded(text, place.shown, findings)
    env = parse_env(content or "", place.shown, findings)
    if findings.mistakes:
        raise ConfigError(
            f"the text for {place.shown} is no env file; {place.shown} was left as it is.", findings.mistakes
        )
    if not env.values:
        raise ConfigError(f"the text for {place.shown} has no setting; {place.shown} was left as it is.")
    return env


def usable(place: AtRest, form: Form) -> tuple[Recipient, ...]:
    """For whom a file of this form can be encrypted. Raises ConfigError when nobody is listed."""
    listed = tuple(one for one in place.listed if one.form is form)
    if not listed:
        example = "'gpg FINGERPRINT'" if form is Form.GPG else "~/.ssh/id_ed25519.pub"
        kind = "gpg FINGERPRINT" if form is Form.GPG else "ssh-ed25519, ssh-rsa or age1"
        raise ConfigError(
            f"{place.recipients_shown} lists nobody with a key for {form.value} ({kind}); "
            f"{place.shown} was left as it is.",
            next_step=f"inv secrets.recipients --env {place.environment} --add {example}, "
            "and the same for everybody who deploys, and for CI",
        )
    return listed


def sealed(text: bytes, form: Form, place: AtRest, *, like: bytes = b"", new_password: bool = False) -> bytes:
    """The text for those whom the recipients file lists, armored and labelled as `like` is. Raises SealError."""
    armored = not like or recognise(like) is not form or is_armored(like)
    if form is Form.AGE:
        return age.encrypt(text, usable(place, form), armored=armored)
    if form is Form.GPG:
        keys = [one.key.removeprefix("gpg ") for one in usable(place, form)]
        return gpg.encrypt(text, keys, armored=armored)
    label = vault.label(like) if recognise(like) is Form.VAULT else ""
    return vault.encrypt(text, place.keyring.password(new=new_password), label=label)


def prove(written: bytes, text: bytes, place: AtRest, *, force: bool) -> None:
    """Open what was encrypted with a key of this machine, before it takes the place of anything.

    Raises ConfigError when no key here opens it, unless forced; and, forced or not, when it holds another text.
    """
    try:
        same = place.keyring.open(written) == text
    except SealError as error:
        if force:
            tell([f"not proved: {error.found}"], sys.stderr)
            return
        raise ConfigError(
            f"{place.shown} was left as it is, because what would take its place cannot be opened here: {error.found}.",
            next_step="add your own key with inv secrets.recipients --add, or run it again with --force "
            "if somebody else can open it",
        ) from None
    if not same:
        raise ConfigError(f"{place.shown} was left as it is: what was encrypted opens as another text.")


def put(place: AtRest, written: bytes, *, before: bytes) -> None:
    """Replace the env file. Raises ConfigError when somebody else changed it since it was read."""
    if bytes_of(place) != before:
        raise ConfigError(
            f"{place.shown} was changed by somebody else meanwhile and was left as it is.",
            next_step="run the same command again",
        )
    replace(place.file, written, PRIVATE)


def describe(data: bytes, place: AtRest) -> str:
    """For whom a file is, in words, as far as it shows that. Raises SealError for a damaged one."""
    form = recognise(data)
    if form is Form.AGE:
        return age.described(age.stanzas(data), place.listed)
    if form is Form.GPG:
        return ", ".join(_gpg_titles(gpg.recipients(data), place.listed)) or "whoever knows its passphrase"
    return "whoever knows its password"


def differences(data: bytes, place: AtRest) -> tuple[str, ...]:
    """Where a file and the list of its recipients disagree, as far as that can be known. Raises SealError."""
    form = recognise(data)
    if form is Form.AGE:
        listed = [one for one in place.listed if one.form is form]
        found = age.differences(age.stanzas(data), listed)
        if not found and not is_marked(_list(place), listed):
            return ("the list was changed since the file was encrypted: an age key shows in the list's mark alone",)
        return found
    return tuple(_gpg_differences(data, place)) if form is Form.GPG else ()


def remember(place: AtRest) -> None:
    """Note in the list that the file is for these now, where the file does not show it. Raises ConfigError."""
    text = _list(place)
    noted = marked(text, [one for one in place.listed if one.form is Form.AGE])
    if noted != text:
        replace(place.recipients_file, noted.encode(), PUBLIC)


def _list(place: AtRest) -> str:
    return place.recipients_file.read_bytes().decode() if place.recipients_file.exists() else ""


def _gpg_titles(keys: tuple[str, ...], listed: tuple[Recipient, ...]) -> Iterator[str]:
    names = {key: one.title for one in listed if one.form is Form.GPG for key in _keys_of(one)}
    for key in keys:
        yield names.get(key, f"an unlisted gpg key {key}")


def _gpg_differences(data: bytes, place: AtRest) -> Iterator[str]:
    """Only keys that gpg's keyring has can be compared: a file names subkeys, the list whole keys."""
    keys = set(gpg.recipients(data))
    known: set[str] = set()
    unknown = False
    for one in (one for one in place.listed if one.form is Form.GPG):
        own = _keys_of(one)
        known |= set(own)
        unknown = unknown or not own
        if own and not keys & set(own):
            yield f"{one.title} is listed, and the file is not for that key"
    if not unknown:
        yield from (f"the file is for the gpg key {key}, which is not listed" for key in sorted(keys - known))


def _keys_of(one: Recipient) -> tuple[str, ...]:
    return gpg.encryption_keys(one.key.removeprefix("gpg "))


def same_recipients(data: bytes, text: bytes, form: Form, place: AtRest) -> bytes:
    """The text for those whom the file is for already, in the same form. Raises SealError."""
    if form is not Form.GPG:
        return sealed(text, form, place, like=data)
    keys = [f"{key}!" for key in gpg.recipients(data)]
    if not keys:
        raise SealError("a gpg file that names no key, because it has a passphrase or hides for whom it is", _ROTATE)
    return gpg.encrypt(text, keys, armored=is_armored(data))


_ROTATE = "a file for keys: list them with inv secrets.recipients --add, then inv secrets.rotate"


def say(lines: list[str]) -> None:
    """Tell the person what was done: on standard error, because standard output may be the secrets themselves."""
    tell(lines, sys.stderr)


def shown_path(path: Path) -> str:
    """A path of this machine as people type it."""
    home = str(Path.home())
    return f"~{str(path).removeprefix(home)}" if str(path).startswith(f"{home}/") else str(path)
