"""Secrets at rest: encrypt an env file, decrypt it, encrypt it anew for others. No host is contacted."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from fabfile.config.at_rest import AtRest, at_rest
from fabfile.config.findings import secret_keys
from fabfile.config.locating import expanded
from fabfile.config.tracking import is_tracked
from fabfile.errors import ConfigError, ExitCode
from fabfile.sealing import passwords
from fabfile.sealing.forms import Form, NoTerminal, SealError, recognise
from fabfile.workflows.at_rest import (
    bytes_of,
    describe,
    differences,
    encrypted_bytes,
    prove,
    put,
    refusing,
    remember,
    say,
    sealed,
    values_in,
)

_NEW_PASSWORD = f"Give the new password to everybody, and to CI ({passwords.PASSWORD_FILE})."


@dataclass(frozen=True)
class Request:
    """What the operator asked for."""

    environment: str | None
    root: Path
    form: str = ""
    in_place: bool = False
    new_password_file: str = ""
    force: bool = False


def encrypt(request: Request) -> ExitCode:
    """Put an encrypted env file in the place of the plain one, once it is proved to open. Raises ConfigError."""
    place = at_rest(request.environment, root=request.root)
    data, form = bytes_of(place), _form(request.form)
    current = recognise(data)
    if current is not None and (not request.form or current is form):
        raise ConfigError(
            f"{place.shown} is encrypted already, by {current.value}.",
            next_step=f"inv secrets.edit --env {place.environment} changes it, inv secrets.rotate its recipients",
        )
    with refusing(place):
        text = place.keyring.open(data)
        env = values_in(text, place)
        written = sealed(text, form, place, new_password=current is not Form.VAULT)
    prove(written, text, place, force=request.force)
    exposed = current is None and is_tracked(place.file) is True
    put(place, written, before=data)
    if form is Form.AGE:
        remember(place)
    with refusing(place):
        say([f"{place.shown} is encrypted by {form.value} for {describe(written, place)}.", *_left_out(form, place)])
    if exposed:
        say(["Git's history still holds it in plain text. Give these secrets new values:", *_keys(env.values)])
    say([f"Next: inv config.check --env {place.environment}, then commit it: git add --force {place.shown}"])
    return ExitCode.DONE


def _form(word: str) -> Form:
    try:
        return Form(word or Form.AGE.value)
    except ValueError:
        known = ", ".join(form.value for form in Form)
        raise ConfigError(f"--form {word!r} is no form of encryption.", next_step=f"one of {known}") from None


def _left_out(form: Form, place: AtRest) -> list[str]:
    """Who is listed and has no key of this form."""
    if form is Form.VAULT:
        return []
    others = [one.title for one in place.listed if one.form is not form]
    return [f"Not for {', '.join(others)}: no key for {form.value}."] if others else []


def _keys(values: dict[str, str]) -> list[str]:
    return [f"  {key}" for key in secret_keys(values.items())] or ["  none: no key is a secret by its name"]


def decrypt(request: Request) -> ExitCode:
    """Print the plaintext, or put it in the place of the encrypted file. Raises ConfigError."""
    place = at_rest(request.environment, root=request.root)
    data, _ = encrypted_bytes(place)
    tracked = request.in_place and is_tracked(place.file)
    if tracked is not False:
        why = "Git tracks it" if tracked else "whether Git tracks it cannot be told"
        raise ConfigError(
            f"{place.shown} was left as it is: {why}, and the next commit would hold the plain text.",
            next_step=f"inv secrets.edit --env {place.environment}, or inv secrets.decrypt without --in-place",
        )
    if not request.in_place and sys.stdout.isatty() and not request.force:
        raise ConfigError(
            "the secrets would stay in this terminal's history.",
            next_step=f"inv secrets.decrypt --env {place.environment} | less, or --force to see them here",
        )
    with refusing(place):
        text = place.keyring.open(data)
    if request.in_place:
        put(place, text, before=data)
        say([f"{place.shown} is plain text now, for this account alone (0600)."])
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
    return ExitCode.DONE


def rotate(request: Request) -> ExitCode:
    """Encrypt the file anew for those who are listed now; for ansible-vault with a new password. Raises ConfigError."""
    place = at_rest(request.environment, root=request.root)
    data, form = encrypted_bytes(place)
    with refusing(place):
        text = place.keyring.open(data)
        env = values_in(text, place)
        changed, before = differences(data, place), describe(data, place)
        if form is Form.VAULT:
            place = _with_new_password(place, request.new_password_file)
            _refuse_same(place, data)
        written = sealed(text, form, place, like=data)
    prove(written, text, place, force=request.force)
    put(place, written, before=data)
    if form is Form.AGE:
        remember(place)
    with refusing(place):
        now = describe(written, place)
    say(
        [
            f"{place.shown} is encrypted by {form.value} anew.",
            f"  before: {before}",
            f"  now:    {now}",
            *(f"  {change}" for change in changed),
            *_left_out(form, place),
            *([_NEW_PASSWORD] if form is Form.VAULT else ()),
            "Whoever could open it before still knows these values, and Git's history opens for them as ever.",
            f"Where somebody left, change each with inv secrets.edit --env {place.environment}, and deploy:",
            *_keys(env.values),
        ]
    )
    return ExitCode.DONE


def _with_new_password(place: AtRest, file: str) -> AtRest:
    """The same place, whose keyring has the new password of its ansible-vault file. Raises SealError."""
    if file:
        new = passwords.of_file(expanded(file), "--new-password-file")
    else:
        environ = {key: value for key, value in os.environ.items() if key != passwords.PASSWORD_FILE}
        new = _asked(environ)
    return replace(place, keyring=place.keyring.with_password(new))


def _refuse_same(place: AtRest, data: bytes) -> None:
    """Raises ConfigError when the new password opens what the old one closed: they are the same."""
    try:
        place.keyring.open(data)
    except SealError:
        return
    raise ConfigError(f"the new password is the old one; {place.shown} was left as it is.", next_step="choose another")


def _asked(environ: dict[str, str]) -> bytes:
    try:
        return passwords.vault_password(environ, passwords.ask, new=True)
    except NoTerminal:
        raise NoTerminal(
            "an ansible-vault file and no new password for it", "--new-password-file FILE, or a terminal to ask on"
        ) from None
