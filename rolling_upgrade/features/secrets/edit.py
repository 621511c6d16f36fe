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

from rolling_upgrade.config.encrypted_files import SecretsFile, locate_secrets
from rolling_upgrade.config.encryption import Encryption
from rolling_upgrade.config.loader import issues_with
from rolling_upgrade.engine.local_file import PRIVATE
from rolling_upgrade.errors import PROGRAM, ConfigError, ExitCode, RollingError
from rolling_upgrade.features.secrets.files import (
    differences,
    encrypted_bytes,
    prove,
    put,
    refusing,
    same_recipients,
    say,
    values_in,
)

#: File systems that live in memory. Source: proc(5), /proc/mounts: device, mount point, type.
_IN_MEMORY = ("tmpfs", "ramfs")
_MEMORY = ("/dev/shm",)  # noqa: S108  (its file system is checked)
_END_SECONDS = 5.0
#: The prefix of temporary folders, before a hash of the file's path, and the name of a kept text.
_PREFIX = "rolling-"
_KEPT = re.compile(rf"{_PREFIX}[0-9a-f]{{12}}-[^-]+-(?P<begun>[0-9a-f]{{12}})-(?P<file>.+)")


def edit(environment: str | None, *, root: Path, resume: str = "") -> ExitCode:
    """Let the operator edit the plaintext; an invalid text is kept in memory and the file stays unchanged.

    `resume` names a text that an earlier edit kept; it replaces the decrypted content. Raises ConfigError.
    """
    secrets = locate_secrets(environment, root=root)
    data, encryption = encrypted_bytes(secrets)
    editor = _editor()
    with refusing(secrets):
        text = secrets.keyring.decrypt(data)
    _check_recipients(data, encryption, secrets)
    _check_resumed(resume, data, secrets)
    with _folder(secrets) as folder:
        file = folder / secrets.path.name
        _write(file, _resumed(resume) if resume else text)
        try:
            _run(editor, file)
            edited = _read(file)
            if edited == text:
                say([f"No changes; {secrets.name} is unchanged."])
                return ExitCode.DONE
            _put_back(edited, data, encryption, secrets)
        except RollingError as error:
            _keep(folder, file, _resumed(resume) if resume else text, data, secrets, error)
    if _is_kept(Path(resume)):
        Path(resume).unlink(missing_ok=True)
    _tell(edited, secrets, root)
    return ExitCode.DONE


def kept_texts(file: Path) -> Iterator[Path]:
    """Yield this user's plaintexts left by edits of the file: kept texts, and those of a killed edit."""
    begin, name = _prefix(file), file.name
    for folder in dict.fromkeys((*_MEMORY, os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir())):
        for pattern in (f"{begin}*-{name}", f"{begin}*/{name}"):
            for path in Path(folder).glob(pattern) if folder else ():
                with suppress(OSError):
                    if path.stat().st_uid == os.getuid():
                        yield path


def _check_recipients(data: bytes, encryption: Encryption, secrets: SecretsFile) -> None:
    """Refuse to edit when the recipients changed: an edit changes values only. Raises ConfigError."""
    with refusing(secrets):
        found = differences(data, secrets) if encryption is Encryption.AGE else ()
    if found:
        raise ConfigError(
            f"{secrets.name} and {secrets.recipients_name} differ: {'; '.join(found)}.",
            next_step=f"{PROGRAM} secrets.rotate --env {secrets.environment}, then edit",
        )


def _check_resumed(resume: str, data: bytes, secrets: SecretsFile) -> None:
    """Refuse to resume a text from another file, or from an older version of this one. Raises ConfigError."""
    kept = _KEPT.fullmatch(Path(resume).name)
    if kept and kept["file"] != secrets.path.name:
        raise ConfigError(
            f"--resume {resume} was kept from {kept['file']}; {secrets.name} is unchanged.",
            next_step="name the environment of that text, or another file",
        )
    if kept and kept["begun"] != _mark(data):
        raise ConfigError(
            f"{secrets.name} changed after {resume} was started; resuming would revert that change. It is unchanged.",
            next_step=f"{PROGRAM} secrets.edit --env {secrets.environment}, copy your lines, then rm {resume}",
        )


def _prefix(file: Path) -> str:
    return f"{_PREFIX}{_mark(os.fsencode(file.resolve()))}-"


def _mark(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _is_kept(path: Path) -> bool:
    """Return whether an edit by this user kept the text at that path."""
    folder = Path(_memory() or tempfile.gettempdir())
    try:
        return bool(_KEPT.fullmatch(path.name)) and path.parent == folder and path.stat().st_uid == os.getuid()
    except OSError:
        return False


def _put_back(edited: bytes, data: bytes, encryption: Encryption, secrets: SecretsFile) -> None:
    values_in(edited, secrets)
    with refusing(secrets):
        written = same_recipients(data, edited, encryption, secrets)
    prove(written, edited, secrets, force=False)
    put(secrets, written, before=data)


def _tell(edited: bytes, secrets: SecretsFile, root: Path) -> None:
    say([f"{secrets.name} is encrypted for the same recipients."])
    issues = issues_with(secrets.environment, edited.decode("utf-8-sig"), root=root)
    if issues:
        say(["This configuration would not load:", *(f"  {issue}" for issue in issues)])


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
def _folder(secrets: SecretsFile) -> Iterator[Path]:
    """Create a private folder in memory and always remove it; only `_keep` moves a text out."""
    memory = _memory()
    if not memory:
        say(["warning: no in-memory file system is available, so the plaintext is on disk while you edit"])
    folder = Path(tempfile.mkdtemp(prefix=_prefix(secrets.path), dir=memory or None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _memory() -> str:
    """Return a writable folder on an in-memory file system, empty when there is none."""
    for candidate in (os.environ.get("XDG_RUNTIME_DIR", ""), *_MEMORY):
        if candidate and os.access(candidate, os.W_OK | os.X_OK) and _kind(Path(candidate)) in _IN_MEMORY:
            return candidate
    return ""


def _kind(folder: Path) -> str:
    """Return the type of the file system of a folder, empty when the kernel does not tell."""
    try:
        rows = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    real = folder.resolve()
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


def _keep(folder: Path, file: Path, begun: bytes, data: bytes, secrets: SecretsFile, error: RollingError) -> None:
    """Move the edited text out of the folder, so that nothing is lost. Always raises ConfigError."""
    try:
        typed = file.read_bytes()
    except OSError:
        typed = begun
    issues = error.issues if isinstance(error, ConfigError) else ()
    unchanged = f"{secrets.name} is unchanged"
    what = error.message if unchanged in error.message else f"{error.message} {unchanged}."
    if typed == begun:
        raise ConfigError(what, issues, next_step=error.next_step) from None
    kept = folder.with_name(f"{folder.name}-{_mark(data)}-{secrets.path.name}")
    _write(kept, typed)
    raise ConfigError(
        f"{what} Your text is kept in plain text, readable by you only: {kept}",
        issues,
        next_step=f"{PROGRAM} secrets.edit --env {secrets.environment} --resume {kept}; or rm {kept}",
    ) from None
