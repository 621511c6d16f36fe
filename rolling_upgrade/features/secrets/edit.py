"""Editing an encrypted env file: in memory, by the person's own editor, and back in the same form. The story only."""

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

from fabfile.config.at_rest import AtRest, at_rest
from fabfile.config.loading import mistakes_with
from fabfile.errors import ConfigError, ExitCode, RollingError
from fabfile.sealing.forms import Form
from fabfile.workflows.at_rest import (
    differences,
    encrypted_bytes,
    prove,
    put,
    refusing,
    same_recipients,
    say,
    values_in,
)
from fabfile.workflows.replacing import PRIVATE

#: File systems that live in memory. Source: proc(5), /proc/mounts: device, mount point, type.
_IN_MEMORY = ("tmpfs", "ramfs")
_MEMORY = ("/dev/shm",)  # noqa: S108  (it is asked what it is)
_END_SECONDS = 5.0
#: How the names of our folders begin, before a hash of the file's path, and the whole name of a text that was kept.
_PREFIX = "rolling-"
_KEPT = re.compile(rf"{_PREFIX}[0-9a-f]{{12}}-[^-]+-(?P<begun>[0-9a-f]{{12}})-(?P<file>.+)")


def edit(environment: str | None, *, root: Path, resume: str = "") -> ExitCode:
    """Let a person change the plaintext; what is no env file is kept aside and never put in place. Raises ConfigError.

    `resume` names a text that an earlier edit kept: it is edited instead of what the file holds.
    """
    place = at_rest(environment, root=root)
    data, form = encrypted_bytes(place)
    editor = _editor()
    with refusing(place):
        text = place.keyring.open(data)
    _check_recipients(data, form, place)
    _check_resumed(resume, data, place)
    with _folder(place) as folder:
        file = folder / place.file.name
        _write(file, _resumed(resume) if resume else text)
        try:
            _run(editor, file)
            edited = _read(file)
            if edited == text:
                say([f"Nothing changed; {place.shown} was left as it is."])
                return ExitCode.DONE
            _put_back(edited, data, form, place)
        except RollingError as error:
            _keep(folder, file, _resumed(resume) if resume else text, data, place, error)
    if _is_kept(Path(resume)):
        Path(resume).unlink(missing_ok=True)
    _tell(edited, place, root)
    return ExitCode.DONE


def kept_texts(file: Path) -> Iterator[Path]:
    """The plaintexts of this person that edits of the file left: kept ones, and those of an edit that was killed."""
    begin, name = _prefix(file), file.name
    for folder in dict.fromkeys((*_MEMORY, os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir())):
        for pattern in (f"{begin}*-{name}", f"{begin}*/{name}"):
            for path in Path(folder).glob(pattern) if folder else ():
                with suppress(OSError):
                    if path.stat().st_uid == os.getuid():
                        yield path


def _check_recipients(data: bytes, form: Form, place: AtRest) -> None:
    """An edit changes values, not who may read them. Raises ConfigError."""
    with refusing(place):
        found = differences(data, place) if form is Form.AGE else ()
    if found:
        raise ConfigError(
            f"{place.shown} and {place.recipients_shown} disagree: {'; '.join(found)}.",
            next_step=f"inv secrets.rotate --env {place.environment}, then edit",
        )


def _check_resumed(resume: str, data: bytes, place: AtRest) -> None:
    """A text that was kept goes into the file it came from, as that was. Raises ConfigError."""
    kept = _KEPT.fullmatch(Path(resume).name)
    if kept and kept["file"] != place.file.name:
        raise ConfigError(
            f"--resume {resume} was kept from {kept['file']}; {place.shown} was left as it is.",
            next_step="name the environment that it is of, or another file",
        )
    if kept and kept["begun"] != _mark(data):
        raise ConfigError(
            f"{place.shown} was changed since {resume} was begun, which would take that back; it was left as it is.",
            next_step=f"inv secrets.edit --env {place.environment}, bring your lines over, then rm {resume}",
        )


def _prefix(file: Path) -> str:
    return f"{_PREFIX}{_mark(os.fsencode(file.resolve()))}-"


def _mark(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _is_kept(path: Path) -> bool:
    """Whether an edit of this person kept the text there."""
    folder = Path(_memory() or tempfile.gettempdir())
    try:
        return bool(_KEPT.fullmatch(path.name)) and path.parent == folder and path.stat().st_uid == os.getuid()
    except OSError:
        return False


def _put_back(edited: bytes, data: bytes, form: Form, place: AtRest) -> None:
    values_in(edited, place)
    with refusing(place):
        written = same_recipients(data, edited, form, place)
    prove(written, edited, place, force=False)
    put(place, written, before=data)


def _tell(edited: bytes, place: AtRest, root: Path) -> None:
    say([f"{place.shown} is encrypted again, for the same recipients."])
    mistakes = mistakes_with(place.environment, edited.decode("utf-8-sig"), root=root)
    if mistakes:
        say(["It would not load like this:", *(f"  {mistake}" for mistake in mistakes)])


def _editor() -> list[str]:
    """The editor's words. Raises ConfigError."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not named and sys.stdin.isatty() and shutil.which("vi"):
        return ["vi"]
    try:
        words = shlex.split(named or "")
    except ValueError:
        words = []
    if not words or not shutil.which(words[0]):
        what = f"the editor {named!r} cannot be run." if named else "no editor is named."
        raise ConfigError(
            what, next_step='name one that stays until it is closed: EDITOR=nano, or VISUAL="code --wait"'
        )
    return words


@contextmanager
def _folder(place: AtRest) -> Iterator[Path]:
    """A folder of our own in memory, gone afterwards whatever happens; `_keep` is what takes a text out of it."""
    memory = _memory()
    if not memory:
        say(["warning: no file system in memory here, so the text lies on disk while you edit it"])
    folder = Path(tempfile.mkdtemp(prefix=_prefix(place.file), dir=memory or None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _memory() -> str:
    """A folder that lives in memory and that we may write to, '' where there is none."""
    for candidate in (os.environ.get("XDG_RUNTIME_DIR", ""), *_MEMORY):
        if candidate and os.access(candidate, os.W_OK | os.X_OK) and _kind(Path(candidate)) in _IN_MEMORY:
            return candidate
    return ""


def _kind(folder: Path) -> str:
    """The kind of file system that a folder is on, '' where the kernel does not tell."""
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
        raise ConfigError("the editor left no text.") from None


def _resumed(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"--resume {path} cannot be read: {error.strerror}.") from None


def _run(editor: list[str], file: Path) -> None:
    """Wait for the editor. Raises ConfigError when it fails; ends it when this process is told to end.

    Ctrl-C belongs to the editor meanwhile: it means something else there.
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
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise ConfigError(f"the editor {how}.")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _keep(folder: Path, file: Path, begun: bytes, data: bytes, place: AtRest, error: RollingError) -> None:
    """Put what was typed beside the folder, so that nothing is lost, and say where. Raises ConfigError, always."""
    try:
        typed = file.read_bytes()
    except OSError:
        typed = begun
    mistakes = error.mistakes if isinstance(error, ConfigError) else ()
    left = f"{place.shown} was left as it is"
    what = error.message if left in error.message else f"{error.message} {left}."
    if typed == begun:
        raise ConfigError(what, mistakes, next_step=error.next_step) from None
    kept = folder.with_name(f"{folder.name}-{_mark(data)}-{place.file.name}")
    _write(kept, typed)
    raise ConfigError(
        f"{what} Your text is kept, in plain text, for you alone: {kept}",
        mistakes,
        next_step=f"inv secrets.edit --env {place.environment} --resume {kept}; or rm {kept}",
    ) from None
