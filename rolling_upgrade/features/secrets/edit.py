"""Edit an encrypted env file: decrypt it to memory, run the operator's editor, encrypt it for the same recipients."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rolling_upgrade.config.encryption import Encryption
from rolling_upgrade.config.loader import issues_of_env_text
from rolling_upgrade.config.secrets_file import SecretsFile, locate_secrets
from rolling_upgrade.engine.local_file import PRIVATE
from rolling_upgrade.errors import PROGRAM, ConfigError, ExitCode, RollingError
from rolling_upgrade.features.secrets.env_file import (
    as_config_error,
    encrypt_for_same_recipients,
    encrypted_bytes,
    parse_values,
    print_notes,
    recipient_differences,
    replace_env_file,
    verify,
)

#: File systems that live in memory. Source: proc(5), /proc/mounts: device, mount point, type.
_IN_MEMORY = ("tmpfs", "ramfs")
_MEMORY_DIRECTORIES = ("/dev/shm",)  # noqa: S108  (its file system is checked)
_END_SECONDS = 5.0
#: The prefix of temporary directories, followed by a hash of the file's path; and the name of a kept text.
_PREFIX = "rolling-"
_KEPT = re.compile(rf"{_PREFIX}[0-9a-f]{{12}}-[^-]+-(?P<original>[0-9a-f]{{12}})-(?P<file>.+)")


def edit(env: str | None, *, root: Path, resume: str = "") -> ExitCode:
    """Let the operator edit the plaintext; an invalid text is kept in memory and the file stays unchanged.

    `resume` names a text that an earlier edit kept; it replaces the decrypted content. Raises ConfigError.
    """
    secrets = locate_secrets(env, root=root)
    data, encryption = encrypted_bytes(secrets)
    editor = _editor()
    with as_config_error(secrets):
        text = secrets.keyring.decrypt(data)
    _check_recipients(data, encryption, secrets)
    _check_resume(resume, data, secrets)
    original = _resumed(resume) if resume else text
    with _temporary_directory(secrets) as directory:
        file = directory / secrets.path.name
        _write(file, original)
        try:
            _run(editor, file)
            edited = _read(file)
            if edited == text:
                print_notes([f"No changes; {secrets.name} is unchanged."])
                return ExitCode.DONE
            _encrypt_edited(edited, data, encryption, secrets)
        except RollingError as error:
            _keep(directory, file, original, data, secrets, error)
    if _is_kept(Path(resume)):
        Path(resume).unlink(missing_ok=True)
    _report(edited, secrets, root)
    return ExitCode.DONE


def kept_texts(file: Path) -> Iterator[Path]:
    """Yield this user's plaintexts left by edits of the file: kept texts, and those of a killed edit."""
    begin, name = _prefix(file), file.name
    for directory in dict.fromkeys(
        (*_MEMORY_DIRECTORIES, os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir())
    ):
        for pattern in (f"{begin}*-{name}", f"{begin}*/{name}"):
            for path in Path(directory).glob(pattern) if directory else ():
                with suppress(OSError):
                    if path.stat().st_uid == os.getuid():
                        yield path


def _check_recipients(data: bytes, encryption: Encryption, secrets: SecretsFile) -> None:
    """Refuse to edit when the recipients changed: an edit changes values only. Raises ConfigError."""
    with as_config_error(secrets):
        found = recipient_differences(data, secrets) if encryption is Encryption.AGE else ()
    if found:
        raise ConfigError(
            f"{secrets.name} and {secrets.recipients_name} differ: {'; '.join(found)}.",
            next_step=f"{PROGRAM} secrets.rotate --env {secrets.environment}, then edit",
        )


def _check_resume(resume: str, data: bytes, secrets: SecretsFile) -> None:
    """Refuse to resume a text from another file, or from an older version of this one. Raises ConfigError."""
    kept = _KEPT.fullmatch(Path(resume).name)
    if kept and kept["file"] != secrets.path.name:
        raise ConfigError(
            f"--resume {resume} was kept from {kept['file']}; {secrets.name} is unchanged.",
            next_step="name the environment of that text, or another file",
        )
    if kept and kept["original"] != _short_hash(data):
        raise ConfigError(
            f"{secrets.name} changed after {resume} was started; resuming would revert that change. It is unchanged.",
            next_step=f"{PROGRAM} secrets.edit --env {secrets.environment}, copy your lines, then rm {resume}",
        )


def _prefix(file: Path) -> str:
    return f"{_PREFIX}{_short_hash(os.fsencode(file.resolve()))}-"


def _short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _is_kept(path: Path) -> bool:
    """Whether this path is a text that an earlier edit of this user kept."""
    directory = Path(_memory() or tempfile.gettempdir())
    try:
        return bool(_KEPT.fullmatch(path.name)) and path.parent == directory and path.stat().st_uid == os.getuid()
    except OSError:
        return False


def _encrypt_edited(edited: bytes, data: bytes, encryption: Encryption, secrets: SecretsFile) -> None:
    parse_values(edited, secrets)
    with as_config_error(secrets):
        written = encrypt_for_same_recipients(data, edited, encryption, secrets)
    verify(written, edited, secrets, force=False)
    replace_env_file(secrets, written, before=data)


def _report(edited: bytes, secrets: SecretsFile, root: Path) -> None:
    print_notes([f"{secrets.name} is encrypted for the same recipients."])
    issues = issues_of_env_text(secrets.environment, edited.decode("utf-8-sig"), root=root)
    if issues:
        print_notes(["This configuration would not load:", *(f"  {issue}" for issue in issues)])


def _editor() -> list[str]:
    """Return the editor command. Raises ConfigError."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not named and sys.stdin.isatty() and shutil.which("vi"):
        return ["vi"]
    try:
        words = shlex.split(named or "")
    except ValueError:
        words = []
    if not words or not shutil.which(words[0]):
        what = f"The editor {named!r} is not installed." if named else "No editor is set."
        raise ConfigError(
            what, next_step='set one that runs until its window is closed: EDITOR=nano, or VISUAL="code --wait"'
        )
    return words


@contextmanager
def _temporary_directory(secrets: SecretsFile) -> Iterator[Path]:
    """Create a private directory in memory and always remove it; only `_keep` moves a text out."""
    memory = _memory()
    if not memory:
        print_notes(["warning: no in-memory file system is available, so the plaintext is on disk while you edit"])
    directory = Path(tempfile.mkdtemp(prefix=_prefix(secrets.path), dir=memory or None))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _memory() -> str:
    """Return a writable directory on an in-memory file system, or an empty string."""
    for candidate in (os.environ.get("XDG_RUNTIME_DIR", ""), *_MEMORY_DIRECTORIES):
        if candidate and os.access(candidate, os.W_OK | os.X_OK) and _file_system_type(Path(candidate)) in _IN_MEMORY:
            return candidate
    return ""


def _file_system_type(directory: Path) -> str:
    """Return the file system type of a directory, or an empty string if it is unknown."""
    try:
        rows = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    real = directory.resolve()
    kinds = {row[1]: row[2] for row in rows if real.is_relative_to(row[1])}
    return kinds[max(kinds, key=len)] if kinds else ""


def _write(file: Path, text: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(text)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        raise ConfigError("The editor deleted the file.") from None


def _resumed(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"--resume {path} cannot be read: {error.strerror}.") from None


def _run(editor: list[str], file: Path) -> None:
    """Run the editor and wait. Raises ConfigError when it fails; terminates it when this process is terminated.

    Ctrl-C is left to the editor, which may use it.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        process = subprocess.Popen([*editor, str(file)])
        try:
            code = process.wait()
        except BaseException:
            _end(process)
            raise
    finally:
        signal.signal(signal.SIGINT, before)
    if code:
        how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
        raise ConfigError(f"The editor {how}.")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _keep(directory: Path, file: Path, original: bytes, data: bytes, secrets: SecretsFile, error: RollingError) -> None:
    """Move the edited text out of the temporary directory, so that no input is lost. Always raises ConfigError."""
    try:
        typed = file.read_bytes()
    except OSError:
        typed = original
    issues = error.issues if isinstance(error, ConfigError) else ()
    unchanged = f"{secrets.name} is unchanged"
    what = error.message if unchanged in error.message else f"{error.message} {unchanged}."
    if typed == original:
        raise ConfigError(what, issues, next_step=error.next_step) from None
    kept = directory.with_name(f"{directory.name}-{_short_hash(data)}-{secrets.path.name}")
    _write(kept, typed)
    raise ConfigError(
        f"{what} Your text is kept in plaintext, readable by you only: {kept}",
        issues,
        next_step=f"{PROGRAM} secrets.edit --env {secrets.environment} --resume {kept}; or rm {kept}",
    ) from None
