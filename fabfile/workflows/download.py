"""One backup brought to this machine: streamed to a file of the owner's alone, then compared with its manifest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tarfile
from pathlib import Path
from typing import BinaryIO

from fabfile.commands import journal, manifest, verification
from fabfile.errors import ConfigError, RollingError, StepFailed
from fabfile.model import Application, Backup, Phase
from fabfile.remote.execute import Run
from fabfile.remote.host import StreamingHost

_CHUNK = 1 << 20
#: How often the progress is told, in parts of the whole.
_TOLD = 10


def download(host: StreamingHost, app: Application, backup: Backup, directory: Path, run: Run) -> Path:
    """Bring a backup here as `APP-ID.HOST.tar`; what is cut off or not as its manifest says is deleted again."""
    if backup.problem:
        raise StepFailed(f"{host.name}: backup {backup.id}: {backup.problem}.")
    target = directory / f"{app.name}-{backup.id}.{host.name}.tar"
    partial = target.with_name(f"{target.name}.part")
    title = f"bring {backup.id} to {directory}"
    run.say(Phase.STARTED, title, host.name, "fetch")
    began = run.clock()
    try:
        with _private_file(partial) as out:
            _stream(host, app, backup, out, run)
        said = faults(partial, app, backup)
        if said:
            raise StepFailed(f"{host.name}: what arrived is not backup {backup.id}: {said}.")
        partial.replace(target)
    except OSError as error:
        raise StepFailed(f"{host.name}: {target} could not be written: {error}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    run.say(Phase.DONE, title, host.name, "fetch", run.clock() - began, f"{target}: every file as its manifest says")
    return target


def _private_file(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except OSError as error:
        raise ConfigError(f"{path.parent} cannot be written: {error}.", next_step="choose another directory") from error


def _stream(host: StreamingHost, app: Application, backup: Backup, out: BinaryIO, run: Run) -> None:
    whole = backup.bytes + backup.uploads_bytes
    errors = bytearray()
    progress = {"bytes": 0, "told": 0}

    def take(piece: bytes) -> None:
        out.write(piece)
        progress["bytes"] += len(piece)
        part = min(_TOLD, progress["bytes"] * _TOLD // max(whole, 1))
        if part > progress["told"] and whole > _CHUNK:
            progress["told"] = part
            run.say(Phase.NOTE, f"{part * 100 // _TOLD}% of {whole >> 20} MiB", host.name, "fetch")

    script = journal.direct(verification.archive(app, backup))
    status = host.stream(script, take, errors.extend)
    if status != 0:
        raise StepFailed(
            f"{host.name}: the backup could not be read (status {status}).\n{errors.decode(errors='replace')}"
        )


def faults(path: Path, app: Application, backup: Backup) -> str:
    """The first thing in an archive that is not as the backup's manifest says; '' when there is none."""
    top, files = f"{app.name}-{backup.id}", f"{app.name}-{backup.id}.uploads/files/"
    wanted = {f"{top}/{file.path}": file.sha256 for file in backup.files}
    uploaded: dict[str, str] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if not member.isfile() and not member.islnk():
                    continue
                digest = _digest(archive, member)
                if member.name.startswith(files):
                    uploaded["./" + member.name.removeprefix(files)] = digest
                elif wanted.get(member.name, digest) != digest:
                    return f"{member.name} has another SHA-256"
                elif member.name == f"{top}/manifest.json":
                    manifest.read(app.name, backup.id, _content(archive, member).decode())
                wanted.pop(member.name, None)
            listed = _listed(archive, f"{top}/uploads.sums") if backup.uploads is not None else {}
    except (tarfile.TarError, RollingError, ValueError, KeyError, OSError) as error:
        return f"it cannot be read ({error})"
    if wanted:
        return f"{', '.join(sorted(wanted))} missing"
    if uploaded != listed:
        wrong = sorted(name for name in uploaded.keys() | listed.keys() if uploaded.get(name) != listed.get(name))
        return f"{len(wrong)} uploaded files differ, the first is {wrong[0]}"
    return ""


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


def _digest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    digest = hashlib.sha256()
    file = archive.extractfile(member)
    while file and (piece := file.read(_CHUNK)):
        digest.update(piece)
    return digest.hexdigest()


def _listed(archive: tarfile.TarFile, name: str) -> dict[str, str]:
    """The hashes by name of a list that sha256sum wrote, its escapes read back."""
    rows = _content(archive, archive.getmember(name)).decode("utf-8", "surrogateescape").split("\n")
    return {_unescaped(row)[66:]: _unescaped(row)[:64] for row in rows if row}


def _unescaped(row: str) -> str:
    if not row.startswith("\\"):
        return row
    return re.sub(r"\\(.)", lambda match: {"n": "\n", "r": "\r"}.get(match[1], match[1]), row[1:])
