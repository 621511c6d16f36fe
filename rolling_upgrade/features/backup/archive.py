"""Download a backup as a tar archive, and compare the archive with the manifest without unpacking it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, NoReturn

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import StreamingHost, check_given_up
from rolling_upgrade.engine.model import Application, Phase
from rolling_upgrade.engine.shell import direct
from rolling_upgrade.engine.untrusted import Malformed, line
from rolling_upgrade.errors import PROGRAM, ConfigError, RollingError, StepFailed
from rolling_upgrade.features.backup import manifest, shell
from rolling_upgrade.features.backup.manifest import Backup

#: The comparison accepts this many uploaded files: each takes a few hundred bytes of memory, whatever its name.
MAX_UPLOADS = 2_000_000
_CHUNK = 1 << 20
#: The timeout of a download.
DOWNLOAD_SECONDS = 6 * 3600.0
#: How many bytes of the end of the host's error output to keep.
_MAX_ERRORS = 64 << 10
#: The number of progress reports of one download.
_REPORTS = 10
#: The overhead of one file in an archive, bytes: headers, a long name, block padding, directories.
_BYTES_A_FILE = 16 << 10
#: The overhead of an archive, bytes and members: directories, and the zeros at its end.
_BYTES_AN_ARCHIVE, _MEMBERS_AN_ARCHIVE = 10 << 20, 10_000
#: The members for one file: the file and its directories.
_MEMBERS_A_FILE = 5
#: The size limits in bytes of a header for the next member, of a line of hashes, and of a manifest.
_MAX_HEADER, _MAX_ROW, _MAX_MANIFEST = 64 << 10, 16 << 10, 64 << 10
_DESCRIBING = (
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def download(host: StreamingHost, app: Application, backup: Backup, directory: Path, context: RunContext) -> Path:
    """Download a backup to `APP-ID.HOST.tar`; delete the archive if it is truncated or differs from its manifest."""
    if backup.problem:
        raise StepFailed(f"{host.name}: backup {backup.id}: {backup.problem}.")
    target = directory / f"{app.name}-{backup.id}.{host.name}.tar"
    partial = target.with_name(f"{target.name}.part")
    title = f"fetch {backup.id} to {directory}"
    context.emit(Phase.STARTED, title, host.name, "fetch")
    started_at = context.clock()
    try:
        with _private_file(partial) as out:
            _check_room(host.name, backup, directory)
            _stream(host, app, backup, out, context)
        fault = first_fault(partial, app, backup, lambda: check_given_up(host.name))
        if fault:
            raise StepFailed(
                f"{host.name}: the archive differs from the manifest of backup {backup.id}: {fault}. Nothing was kept.",
                next_step=f"{PROGRAM} backup.verify checks the backup on {host.name}",
            )
        partial.replace(target)
    except OSError as error:
        raise StepFailed(f"{host.name}: {target} could not be written: {error}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    context.emit(
        Phase.DONE,
        title,
        host.name,
        "fetch",
        context.clock() - started_at,
        f"{target}: every file matches its manifest",
    )
    return target


def _private_file(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except OSError as error:
        raise ConfigError(f"{path.parent} cannot be written: {error}.", next_step="choose another directory") from error


def _check_room(host: str, backup: Backup, directory: Path) -> None:
    """Raise StepFailed if the backup, by its manifest, does not fit on this disk."""
    if (backup.uploads or 0) > MAX_UPLOADS:
        raise StepFailed(
            f"{host}: backup {backup.id} has {backup.uploads} uploaded files; the maximum is {MAX_UPLOADS}."
        )
    free, needed = shutil.disk_usage(directory).free, max_bytes(backup)
    if free < needed:
        raise StepFailed(
            f"{host}: backup {backup.id} needs up to {untrusted.size(needed)} by its manifest, and {directory} has "
            f"{untrusted.size(free)} free. Nothing was fetched.",
            next_step="free some space, or choose another directory with --to",
        )


def _stream(host: StreamingHost, app: Application, backup: Backup, out: BinaryIO, context: RunContext) -> None:
    expected, most = backup.bytes + backup.uploads_bytes, max_bytes(backup)
    errors = bytearray()
    progress = {"bytes": 0, "reports": 0}

    def write(piece: bytes) -> None:
        progress["bytes"] += len(piece)
        if progress["bytes"] > most:
            raise StepFailed(
                f"{host.name}: the host sent more than the {untrusted.size(most)} that the manifest of backup {backup.id} allows. "
                "Nothing was kept.",
                next_step=f"{PROGRAM} backup.verify checks the backup on {host.name}",
            )
        out.write(piece)
        part = min(_REPORTS, progress["bytes"] * _REPORTS // max(expected, 1))
        if part > progress["reports"] and expected > _CHUNK:
            progress["reports"] = part
            context.emit(Phase.NOTE, f"{part * 100 // _REPORTS}% of {expected >> 20} MiB", host.name, "fetch")

    def keep_errors(piece: bytes) -> None:
        errors.extend(piece)
        del errors[:-_MAX_ERRORS]

    script = direct(shell.archive(app, backup))
    status = host.stream(script, write, keep_errors, timeout_seconds=DOWNLOAD_SECONDS)
    if status != 0:
        tail = untrusted.tail(errors.decode(errors="replace"))
        raise StepFailed(f"{host.name}: the backup could not be read (status {status}).\n{tail}")


def max_bytes(backup: Backup) -> int:
    """Return the maximum size in bytes of a backup's archive, according to its manifest."""
    files = len(backup.files) + (backup.uploads or 0)
    return backup.bytes + backup.uploads_bytes + files * _BYTES_A_FILE + _BYTES_AN_ARCHIVE


def first_fault(path: Path, app: Application, backup: Backup, check: Callable[[], None] = lambda: None) -> str:
    """Return the first difference between an archive and the backup's manifest; '' for none.

    `check` is called repeatedly and may raise to end the comparison.
    """
    try:
        with tarfile.open(path, "r:", tarinfo=_Member) as archive:
            return _Comparison(archive, app, backup, check).fault()
    except RecursionError:
        # tarfile recurses for each header that describes the next member.
        return "it cannot be read (headers without a file)"
    except (tarfile.TarError, RollingError, ValueError, LookupError, OSError, ArithmeticError) as error:
        return f"it cannot be read ({line(error)})"


class _Member(tarfile.TarInfo):
    """An archive member with a bounded header."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        """Read a header. Raises ReadError for an oversized one, a sparse file, or a header of the whole archive."""
        member = super().frombuf(buf, encoding, errors)
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse file")
        if member.type == tarfile.XGLTYPE:
            # tarfile keeps its content for every following member.
            raise tarfile.ReadError("a header for the whole archive")
        if member.size < 0 or (member.type in _DESCRIBING and member.size > _MAX_HEADER):
            raise tarfile.ReadError(f"a header of {member.size} bytes")
        return member

    def _proc_gnusparse_00(self, *_: object) -> NoReturn:
        raise tarfile.ReadError("a sparse file")

    # tarfile reads the whole map of such a file, which may be as long as the archive.
    _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00


class _Names:
    """A count of names, and the alphabetically first one."""

    count = 0
    first = ""

    def add(self, name: str) -> None:
        """Count a name."""
        shown = line(name)
        self.first = min(self.first, shown) if self.count else shown
        self.count += 1


class _Comparison:
    """One pass over an archive: first the directory of the backup, then its uploaded files."""

    def __init__(self, archive: tarfile.TarFile, app: Application, backup: Backup, check: Callable[[], None]) -> None:
        self._archive, self._app, self._backup, self._check = archive, app, backup, check
        self._top = f"{app.name}-{backup.id}"
        self._uploads = f"{self._top}.uploads"
        self._expected = {f"{self._top}/{file.path}": file.sha256 for file in backup.files}
        self._uploads_list: tarfile.TarInfo | None = None
        self._hashes: dict[bytes, bytes] = {}
        self._seen: set[bytes] = set()
        self._wrong = _Names()

    def fault(self) -> str:
        """Return the first fault, or ''. Raises the errors of tarfile for a damaged archive."""
        left = _MEMBERS_AN_ARCHIVE + _MEMBERS_A_FILE * (len(self._backup.files) + (self._backup.uploads or 0))
        while (member := self._archive.next()) is not None:
            # tarfile keeps every member, and the comparison needs none again.
            self._archive.members.clear()  # type: ignore[attr-defined]
            self._check()
            left -= 1
            fault = self._unexpected(member) or ("more members than its manifest allows" if left < 0 else "")
            fault = fault or self._compare(member)
            if fault:
                return fault
        if self._has_trailing_data():
            return "data follows its end"
        if self._expected:
            return f"{line(', '.join(sorted(self._expected)))} missing"
        if self._uploads_list is not None and not self._hashes.keys() <= self._seen:
            for name, _ in self._rows(self._uploads_list):
                if _key(name) not in self._seen:
                    self._wrong.add(name)
        return (
            f"{self._wrong.count} uploaded files differ, the first is {self._wrong.first}" if self._wrong.count else ""
        )

    def _unexpected(self, member: tarfile.TarInfo) -> str:
        """Return why no backup contains such a member: unpacked, it could escape its directory or exceed its size."""
        name = member.name
        inside = name in {self._top, self._uploads} or name.startswith((f"{self._top}/", f"{self._uploads}/"))
        if not inside or ".." in name.split("/") or _key(name) in self._seen:
            return f"{line(name)!r} does not belong to it"
        if member.issparse():
            return f"{line(name)!r} is a sparse file"
        if member.issym():
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            if not target.startswith(f"{self._uploads}/files/") or not name.startswith(f"{self._uploads}/files/"):
                return f"{line(name)!r} is a link to {line(member.linkname)!r}"
        elif member.islnk() and _key(self._upload(member.linkname)) not in self._seen:
            return f"{line(name)!r} is a link to {line(member.linkname)!r}"
        elif not (member.isreg() or member.isdir() or member.islnk()):
            return f"{line(name)!r} is not a regular file"
        return ""

    def _compare(self, member: tarfile.TarInfo) -> str:
        """Compare the content of a member; differing uploads are only counted."""
        if member.name.startswith(f"{self._uploads}/files/") and (member.isreg() or member.islnk()):
            name = self._upload(member.name)
            key, other = _key(name), _key(self._upload(member.linkname))
            digest = self._hashes.get(other) if member.islnk() else self._digest(member)
            if digest is None or self._hashes.get(key) != digest or key in self._seen:
                self._wrong.add(name)
            self._seen.add(key)
        elif member.isreg():
            expected = self._expected.pop(member.name, None)
            if expected is not None and self._digest(member).hex() != expected:
                return f"{member.name} has a different SHA-256"
            if member.name == f"{self._top}/manifest.json":
                manifest.read(self._app.name, self._backup.id, self._content(member, _MAX_MANIFEST).decode())
            elif member.name == f"{self._top}/uploads.sums" and self._backup.uploads is not None:
                self._uploads_list = member
                for name, digest in self._rows(member):
                    if len(self._hashes) >= self._backup.uploads:
                        raise Malformed(f"a list of more than {self._backup.uploads} hashes")
                    self._hashes[_key(name)] = digest
            self._seen.add(_key(member.name))
        return ""

    def _upload(self, name: str) -> str:
        """Return the name of an uploaded file as in the list of hashes."""
        return f"./{name.removeprefix(f'{self._uploads}/files/')}"

    def _rows(self, member: tarfile.TarInfo) -> Iterator[tuple[str, bytes]]:
        """Parse a list that sha256sum wrote, with its escapes."""
        file = self._open(member)
        while row := file.readline(_MAX_ROW):
            self._check()
            text = _unescaped(row.rstrip(b"\n").decode("utf-8", "surrogateescape"))
            if not re.fullmatch(r"[0-9a-f]{64}", text[:64]):
                raise Malformed(f"a list of hashes with the line {line(text, 80)!r}")
            yield text[66:], bytes.fromhex(text[:64])

    def _content(self, member: tarfile.TarInfo, most: int) -> bytes:
        content = self._open(member).read(most + 1)
        if len(content) > most:
            raise Malformed(f"{member.name} has more than {most} bytes")
        return content

    def _digest(self, member: tarfile.TarInfo) -> bytes:
        digest, file = hashlib.sha256(), self._open(member)
        while piece := file.read(_CHUNK):
            self._check()
            digest.update(piece)
        return digest.digest()

    def _open(self, member: tarfile.TarInfo) -> IO[bytes]:
        file = self._archive.extractfile(member)
        if file is None:
            raise Malformed(f"{member.name} has no content")
        return file

    def _has_trailing_data(self) -> bool:
        """Whether data other than zeros follows the last member: tar would continue there."""
        file = self._archive.fileobj
        file.seek(self._archive.offset)
        while piece := file.read(_CHUNK):
            self._check()
            if piece.strip(b"\0"):
                return True
        return False


def _key(name: str) -> bytes:
    """Return a digest of a name, so that long names take no more memory than short ones."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _unescaped(row: str) -> str:
    if not row.startswith("\\"):
        return row
    return re.sub(r"\\(.)", lambda match: {"n": "\n", "r": "\r"}.get(match[1], match[1]), row[1:])
