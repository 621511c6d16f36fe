"""Find exposed secrets: file modes, plaintext in Git, copies, placeholders, wrong recipients."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from rolling_upgrade import config
from rolling_upgrade.config import checks
from rolling_upgrade.config.encryption import Encryption, EncryptionError, detect
from rolling_upgrade.config.encryption.keyring import PASSWORD_FILE
from rolling_upgrade.config.issues import Issues, secret_values
from rolling_upgrade.config.loader import read_env_file as read_env_file_of
from rolling_upgrade.config.locate import expanded, locate
from rolling_upgrade.config.secrets_file import SecretsFile, locate_secrets
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.console.text import count, diagnosis_lines
from rolling_upgrade.engine.git import is_tracked, staged
from rolling_upgrade.engine.local_file import OWNER_AND_GROUP, OWNER_ONLY, PRIVATE, exposed_mode, read_small
from rolling_upgrade.engine.model import Diagnosis, Level
from rolling_upgrade.errors import PROGRAM, ConfigError, ExitCode
from rolling_upgrade.features.secrets.edit import kept_texts
from rolling_upgrade.features.secrets.env_file import parse_values, read_env_file, recipient_differences

_LABELS = {Level.OK: "repaired", Level.WARNING: "FOUND", Level.REFUSED: "FOUND"}


def check(env: str | None, *, root: Path, repair: bool = False) -> ExitCode:
    """Check one environment or all of them. Return FAILED for any finding. `repair` sets file modes to 0600."""
    rows: list[Diagnosis] = []
    names = (env,) if env else config.environments(root)
    every = [locate_secrets(name, root=root, needs_file=False) for name in names or (None,)]
    # A workstation may lack the env files of some environments.
    checked = [secrets for secrets in every if env or secrets.command or secrets.path.exists()]
    for secrets in checked:
        rows += _command(secrets, root) if secrets.command else _environment(secrets, repair)
    rows = list(dict.fromkeys(rows))
    checked_names = ", ".join(secrets.environment for secrets in checked) or "no env file on this machine"
    found = sum(row.level is not Level.OK for row in rows)
    summary = f"{checked_names}: {count(found, 'finding') if found else 'no exposed secrets'}"
    print_lines([*diagnosis_lines(rows, _LABELS), summary])
    return ExitCode.FAILED if found else ExitCode.DONE


def _environment(secrets: SecretsFile, repair: bool) -> Iterator[Diagnosis]:
    data = read_env_file(secrets)
    encryption = detect(data)
    tracked = is_tracked(secrets.path)
    if encryption is None:
        yield from _plain(secrets, tracked, repair)
    elif tracked and (held := staged(secrets.path)) and detect(held) is None:
        remedy = f"git add --force {secrets.name} before the next commit"
        yield Diagnosis(secrets.name, Level.REFUSED, "Git's index still contains it in plaintext", remedy)
    yield from _copies(secrets)
    yield from _keys(secrets, encryption, repair)
    yield from _content(secrets, data, encryption)
    yield from _overrides(secrets, secrets.name)


def _overrides(secrets: SecretsFile, place: str) -> Iterator[Diagnosis]:
    for override in secrets.overrides:
        yield Diagnosis(
            place, Level.WARNING, f"{override} is a secret", f"Move it into {place}: the inventory is not encrypted"
        )


def _command(secrets: SecretsFile, root: Path) -> Iterator[Diagnosis]:
    """Check the output of a command, and find its secrets in the files that it replaces."""
    issues = Issues(root.resolve())
    located = locate(secrets.environment, root.resolve(), issues)
    place = located.values_name(issues)
    env = read_env_file_of(located, issues, prompt=True)
    for issue in issues.errors:
        yield Diagnosis(
            place, Level.WARNING, f"{issue.place or 'the command'}: {issue.found}", f"Expected {issue.expected}"
        )
    values = env.values if env else {}
    yield from _placeholders(values, env.lines if env else {}, place)
    found = secret_values(values.items())
    for path in sorted({secrets.path, *_beside(secrets)}):
        try:
            text = read_small(path).decode(errors="replace")
        except OSError:
            continue
        if any(secret in text for secret in found):
            shown = issues.name(path)
            yield Diagnosis(shown, Level.WARNING, f"a plaintext copy of secrets that {place} prints", f"rm {shown}")
    yield from _overrides(secrets, place)


def _plain(secrets: SecretsFile, tracked: bool | None, repair: bool) -> Iterator[Diagnosis]:
    if tracked is None:
        what = "plaintext, and git cannot tell whether it would be committed"
        yield Diagnosis(secrets.name, Level.WARNING, what, "Run this check in a directory where git status works")
    if tracked:
        remedy = (
            f"{PROGRAM} secrets.encrypt --env {secrets.environment}, or git rm --cached {secrets.name}; "
            "committed values stay in the history, so replace the secrets"
        )
        yield Diagnosis(secrets.name, Level.REFUSED, "plaintext tracked by Git: every task refuses it", remedy)
    yield from _mode(secrets.path, secrets.name, OWNER_AND_GROUP, repair)


def _mode(path: Path, shown: str, widest: int, repair: bool) -> Iterator[Diagnosis]:
    mode = exposed_mode(path, widest)
    if not mode:
        return
    what, remedy = f"mode {mode} lets other users of this machine read it", f"chmod 600 {shown}, or --repair"
    if repair:
        try:
            path.chmod(PRIVATE)
        except OSError as error:
            yield Diagnosis(shown, Level.WARNING, f"{what}; changing it failed: {error.strerror}", remedy)
        else:
            yield Diagnosis(shown, Level.OK, f"mode changed from {mode} to 0600", "")
    else:
        yield Diagnosis(shown, Level.WARNING, what, remedy)


def _copies(secrets: SecretsFile) -> Iterator[Diagnosis]:
    """Find plaintext copies beside an env file, such as those of editors; the example is not a copy."""
    for path in sorted(_beside(secrets)):
        try:
            plain = detect(read_small(path)) is None
        except OSError:
            continue
        if plain:
            beside = path.parent == secrets.path.parent
            shown = str(Path(secrets.name).with_name(path.name)) if beside else str(path)
            yield Diagnosis(shown, Level.WARNING, f"a copy of {secrets.name} in plaintext", f"rm {shown}")


def _beside(secrets: SecretsFile) -> set[Path]:
    name, directory = secrets.path.name, secrets.path.parent
    patterns = (f"{name}?*", f".{name}.sw?", f"#{name}#", ".half-*", f"{secrets.path.stem}.*{secrets.path.suffix}")
    beside = {path for pattern in patterns for path in directory.glob(pattern)} | set(kept_texts(secrets.path))
    return {path for path in beside if path.is_file() and path.suffix != ".example" and path != secrets.path}


def _keys(secrets: SecretsFile, encryption: Encryption | None, repair: bool) -> Iterator[Diagnosis]:
    """Check that only the owner can read the key and password files."""
    if encryption is Encryption.AGE:
        for path in dict.fromkeys(source.path for source in secrets.sources if source.path):
            yield from _mode(path, _shown_path(path), OWNER_ONLY, repair)
    named = os.environ.get(PASSWORD_FILE, "")
    if encryption is Encryption.VAULT and named:
        path = expanded(named)
        if not os.access(path, os.X_OK):
            yield from _mode(path, _shown_path(path), OWNER_AND_GROUP, repair)


def _shown_path(path: Path) -> str:
    """Abbreviate the home directory in a path to ~."""
    home = str(Path.home())
    return f"~{str(path).removeprefix(home)}" if str(path).startswith(f"{home}/") else str(path)


def _content(secrets: SecretsFile, data: bytes, encryption: Encryption | None) -> Iterator[Diagnosis]:
    try:
        env = parse_values(secrets.keyring.decrypt(data), secrets)
    except EncryptionError as error:
        yield Diagnosis(secrets.name, Level.WARNING, f"cannot be decrypted: {error.found}", f"Needed: {error.needed}")
    except ConfigError as error:
        for issue in error.issues:
            remedy = f"Expected {issue.expected}"
            yield Diagnosis(secrets.name, Level.WARNING, f"{issue.place}: {issue.found}", remedy)
    else:
        yield from _placeholders(env.values, env.lines, secrets.name)
    if encryption is not None:
        yield from _recipients(secrets, data)


def _placeholders(values: Mapping[str, str], lines: Mapping[str, int], place: str) -> Iterator[Diagnosis]:
    for key, value in values.items():
        if checks.is_placeholder(key, value):
            what = f"line {lines[key]}: {key} is a placeholder"
            yield Diagnosis(place, Level.WARNING, what, f"Replace it with {checks.OWN_VALUE}")


def _recipients(secrets: SecretsFile, data: bytes) -> Iterator[Diagnosis]:
    try:
        found = recipient_differences(data, secrets)
    except EncryptionError:
        return  # _content reported it
    for difference in found:
        remedy = f"Correct {secrets.recipients_name}, then {PROGRAM} secrets.rotate --env {secrets.environment}"
        yield Diagnosis(secrets.recipients_name, Level.WARNING, difference, remedy)
