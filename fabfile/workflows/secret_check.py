"""Looking for secrets that lie open: modes, plaintext in Git, copies, placeholders, wrong recipients."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fabfile import config
from fabfile.config import checks
from fabfile.config.at_rest import AtRest, at_rest
from fabfile.config.envfile import EnvFile
from fabfile.config.locating import expanded
from fabfile.config.modes import OWNER_ALONE, WIDEST, too_open
from fabfile.config.tracking import is_tracked, staged
from fabfile.errors import ConfigError, ExitCode
from fabfile.model import Diagnosis, Level
from fabfile.report import tell
from fabfile.report.at_rest import finding_lines
from fabfile.sealing.forms import Form, SealError, recognise
from fabfile.sealing.passwords import PASSWORD_FILE
from fabfile.workflows.at_rest import bytes_of, differences, shown_path, values_in
from fabfile.workflows.replacing import PRIVATE
from fabfile.workflows.secret_edit import kept_texts


def check(environment: str | None, *, root: Path, repair: bool = False) -> ExitCode:
    """Check one environment, or all of them; FAILED when something lies open. `repair` takes rights from files."""
    rows: list[Diagnosis] = []
    names = (environment,) if environment else config.environments(root)
    places = [at_rest(name, root=root) for name in names or (None,)]
    # Not everybody has the values of every environment.
    looked = [place for place in places if environment or place.file.exists()]
    for place in looked:
        rows += _environment(place, repair)
    rows = list(dict.fromkeys(rows))
    tell(finding_lines(rows, ", ".join(place.environment for place in looked) or "no env file here"), sys.stdout)
    return ExitCode.FAILED if any(row.level is not Level.OK for row in rows) else ExitCode.DONE


def _environment(place: AtRest, repair: bool) -> Iterator[Diagnosis]:
    data = bytes_of(place)
    form = recognise(data)
    tracked = is_tracked(place.file)
    if form is None:
        yield from _plain(place, tracked, repair)
    elif tracked and (held := staged(place.file)) and recognise(held) is None:
        remedy = f"git add --force {place.shown}, before anything is committed"
        yield Diagnosis(place.shown, Level.REFUSED, "Git's index still holds it in plain text", remedy)
    yield from _copies(place)
    yield from _keys(place, form, repair)
    yield from _content(place, data, form)
    for overridden in place.overridden:
        remedy = f"Move it into {place.shown}: the inventory is no secret"
        yield Diagnosis(place.shown, Level.WARNING, f"{overridden} is a secret", remedy)


def _plain(place: AtRest, tracked: bool | None, repair: bool) -> Iterator[Diagnosis]:
    if tracked is None:
        what = "plain text, and git cannot tell here whether it would be committed"
        yield Diagnosis(place.shown, Level.WARNING, what, "Look from where git status works")
    if tracked:
        remedy = (
            f"inv secrets.encrypt --env {place.environment}, or git rm --cached {place.shown}; "
            "what was committed stays in the history: give its secrets new values"
        )
        yield Diagnosis(place.shown, Level.REFUSED, "plain text that Git tracks: every task refuses it", remedy)
    yield from _mode(place.file, place.shown, WIDEST, repair)


def _mode(path: Path, shown: str, widest: int, repair: bool) -> Iterator[Diagnosis]:
    mode = too_open(path, widest)
    if not mode:
        return
    what, remedy = f"its mode is {mode}, so others on this machine can read it", f"chmod 600 {shown}, or --repair"
    if repair:
        try:
            path.chmod(PRIVATE)
        except OSError as error:
            yield Diagnosis(shown, Level.WARNING, f"{what}; it cannot be repaired: {error.strerror}", remedy)
        else:
            yield Diagnosis(shown, Level.OK, f"its mode was {mode} and is 0600 now", "")
    else:
        yield Diagnosis(shown, Level.WARNING, what, remedy)


def _copies(place: AtRest) -> Iterator[Diagnosis]:
    """What editors and people leave beside an env file; the example is no copy."""
    name, folder = place.file.name, place.file.parent
    patterns = (f"{name}?*", f".{name}.sw?", f"#{name}#", ".half-*", f"{place.file.stem}.*{place.file.suffix}")
    beside = {path for pattern in patterns for path in folder.glob(pattern)} | set(kept_texts(place.file))
    for path in sorted(path for path in beside if path.is_file() and path.suffix != ".example" and path != place.file):
        try:
            plain = recognise(path.read_bytes()) is None
        except OSError:
            continue
        if plain:
            shown = str(Path(place.shown).with_name(path.name)) if path.parent == folder else str(path)
            yield Diagnosis(shown, Level.WARNING, f"a copy of {place.shown} in plain text", f"rm {shown}")


def _keys(place: AtRest, form: Form | None, repair: bool) -> Iterator[Diagnosis]:
    """The files that open what is encrypted: nobody else may read them."""
    if form is Form.AGE:
        for path in dict.fromkeys(source.path for source in place.sources if source.path):
            yield from _mode(path, shown_path(path), OWNER_ALONE, repair)
    named = os.environ.get(PASSWORD_FILE, "")
    if form is Form.VAULT and named:
        path = expanded(named)
        if not os.access(path, os.X_OK):
            yield from _mode(path, shown_path(path), WIDEST, repair)


def _content(place: AtRest, data: bytes, form: Form | None) -> Iterator[Diagnosis]:
    try:
        env = values_in(place.keyring.open(data), place)
    except SealError as error:
        yield Diagnosis(place.shown, Level.WARNING, f"it cannot be read here: {error.found}", f"Needed: {error.needed}")
    except ConfigError as error:
        for mistake in error.mistakes:
            remedy = f"Expected {mistake.expected}"
            yield Diagnosis(place.shown, Level.WARNING, f"{mistake.path}: {mistake.found}", remedy)
    else:
        yield from _placeholders(place, env)
    if form is not None:
        yield from _recipients(place, data)


def _placeholders(place: AtRest, env: EnvFile) -> Iterator[Diagnosis]:
    for key, value in env.values.items():
        if checks.is_placeholder(key, value):
            what = f"line {env.lines[key]}: {key} holds a placeholder"
            yield Diagnosis(place.shown, Level.WARNING, what, f"Give it {checks.OWN_VALUE}")


def _recipients(place: AtRest, data: bytes) -> Iterator[Diagnosis]:
    try:
        found = differences(data, place)
    except SealError:
        return  # the content said so already
    for difference in found:
        remedy = f"Correct {place.recipients_shown}, then inv secrets.rotate --env {place.environment}"
        yield Diagnosis(place.recipients_shown, Level.WARNING, difference, remedy)
