"""For whom an environment's secrets are encrypted: list, add, remove. It edits one file and encrypts nothing."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from fabfile.config.at_rest import AtRest, at_rest
from fabfile.config.locating import expanded
from fabfile.errors import ConfigError, ExitCode
from fabfile.report import tell
from fabfile.report.at_rest import recipient_lines
from fabfile.sealing import age
from fabfile.sealing.forms import Form, SealError, recognise
from fabfile.sealing.recipients import EXPECTED, Recipient, added, read, removed
from fabfile.workflows.at_rest import differences, refusing, say
from fabfile.workflows.replacing import PUBLIC, replace

_HEAD = "# Public keys that {file} is encrypted for, one a line: {expected}.\n"


@dataclass(frozen=True)
class Request:
    """What the operator asked for."""

    environment: str | None
    root: Path
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    comment: str = ""


def recipients(request: Request) -> ExitCode:
    """List who may open the env file, after adding and removing. Raises ConfigError, and then nothing is changed."""
    place = at_rest(request.environment, root=request.root)
    # As bytes: the lines of others keep their ends.
    text = place.recipients_file.read_bytes().decode() if place.recipients_file.exists() else ""
    changed = _removed(_added(text, request, place), request, place)
    if changed != text:
        replace(place.recipients_file, changed.encode(), PUBLIC)
        place = at_rest(request.environment, root=request.root)
    _show(place, changed=changed != text)
    return ExitCode.DONE


def _added(text: str, request: Request, place: AtRest) -> str:
    if request.comment and len(request.add) != 1:
        raise ConfigError("--comment says whose key it is, and needs one --add.")
    if not request.comment.isprintable():
        raise ConfigError("--comment is one line of text.")
    known = {one.key for one in place.listed}
    for word in request.add:
        for one in _keys(word, request.comment):
            if one.key not in known:
                text = added(text or _HEAD.format(file=place.shown, expected=EXPECTED), one)
                known.add(one.key)
    return text


def _keys(word: str, comment: str) -> list[Recipient]:
    """The keys that a word is, or that the file of that name holds. Raises ConfigError."""
    path = expanded(word)
    try:
        text = path.read_text(encoding="utf-8") if len(word) < 4096 and path.is_file() else word
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"--add {word}: a file that cannot be read as text.", next_step=EXPECTED) from None
    listed, faults = read(text)
    if faults or not listed:
        what = faults[0][1] if faults else "no key"
        shown = f"{word}: " if text != word else ""
        raise ConfigError(
            f"--add {shown}found {what}; nothing was changed.", next_step=f"add {EXPECTED}; or its .pub file"
        )
    for one in listed:
        _check(one)
    return [Recipient(one.key, " ".join(comment.split()) or one.comment) for one in listed]


def _check(one: Recipient) -> None:
    if one.form is Form.AGE:
        try:
            age.public(one)
        except SealError as error:
            raise ConfigError(f"--add: found {error.found}; nothing was changed.", next_step=error.needed) from None


def _removed(text: str, request: Request, place: AtRest) -> str:
    for word in request.remove:
        listed, _ = read(text)
        picked = [one for one in listed if word in (one.comment, one.fingerprint, one.key, one.key.split()[-1])]
        if len(picked) != 1:
            titles = ", ".join(one.title for one in listed) or "nobody"
            what = "more than one key" if picked else "no key"
            raise ConfigError(
                f"--remove {word!r} names {what} of {place.recipients_shown}; nothing was changed.",
                next_step=f"name it by its comment, or its fingerprint, of: {titles}",
            )
        if len(listed) == 1:
            raise ConfigError(
                f"{picked[0].title} is the last one in {place.recipients_shown}, and stays: who else could open it?",
                next_step="add somebody else first",
            )
        text = removed(text, picked[0])
    return text


def _show(place: AtRest, *, changed: bool) -> None:
    data = place.file.read_bytes() if place.file.exists() else b""
    with refusing(place):
        found = differences(data, place) if data else ()
    form = recognise(data)
    rows = [(one.title, one.key.split()[0] if " " in one.key else "age", one.fingerprint) for one in place.listed]
    tell(recipient_lines(place.recipients_shown, rows), sys.stdout)
    state = f"encrypted by {form.value}" if form else "not encrypted" if data else "not there"
    tell([f"{place.shown} is {state}.", *(f"  {difference}" for difference in found)], sys.stdout)
    if found or (changed and form in (Form.AGE, Form.GPG)):
        say([f"Next: inv secrets.rotate --env {place.environment}. Until then nothing has changed for anybody."])
    elif changed and form is None:
        say([f"Next: inv secrets.encrypt --env {place.environment}"])
