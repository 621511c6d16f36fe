"""Hosts that send false backups: wrong sizes and hostile archives."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rolling_upgrade import config
from rolling_upgrade.features.backup import manifest
from rolling_upgrade.features.backup.archive import first_fault, max_bytes
from rolling_upgrade.features.backup.manifest import Backup
from tests.hostile.hosts import MAX_KIB, Task, attacker, project, wait_until
from tests.support.sample import application

ID = "20261123T020000Z-abcdef"
APP = application()
TOP = f"shop-{ID}"
FETCH = (
    "from rolling_upgrade.features.backup.workflow import fetch",
    "fetch('demo', root=Path({root!r}), to={to!r})",
)


def manifest_text(app: str = "shop", *, bytes: int = 5, uploads: int | None = 1, listed: int = 70) -> str:
    """Return a manifest; `bytes` is the size of the database, `listed` the size of the list of hashes."""
    digest = hashlib.sha256(b"aaaaa").hexdigest()
    files = [("database.db", bytes, digest), ("rows", 5, digest)]
    files += [("uploads.sums", listed, hashlib.sha256(sums()).hexdigest())] if uploads is not None else []
    fields = {
        "format": 1, "id": ID, "kind": "manual", "app": app, "time": "", "release": "", "services": {},
        "database": "sqlite", "journal_mode": "wal", "rows": 1, "uploads": uploads, "uploads_bytes": 1,
        "files": [{"path": path, "bytes": size, "sha256": sha} for path, size, sha in files],
    }  # fmt: skip
    return json.dumps(fields)


def sums() -> bytes:
    return f"{hashlib.sha256(b'x').hexdigest()}  ./a\n".encode()


def attack_script(text: str, then: str) -> str:
    """Return a script that lists the backup and runs `then` instead of sending the archive."""
    return f"""\
case "$(timeout 1 cat)" in
  *--create*) {then} ;;
  *) printf '%s\\n' @@now 1795403565 '@@backup APP-{ID}' '{text}' @@verdict 'good 1 x' @@end ;;
esac"""


@contextmanager
def fetch_from_attacker(tmp_path: Path, bytes: int, then: str) -> Iterator[Task]:
    """Fetch a backup from a host that claims a size and runs `then` instead of sending the archive."""
    evil = attacker(tmp_path / "evil", "")
    root = project(tmp_path / "project", evil=evil)
    name = config.load("demo", root=root).targets[0].application.name
    text = attack_script(manifest_text(name, bytes=bytes, uploads=None), then).replace("APP-", f"{name}-")
    (tmp_path / "evil" / "attack").write_text(f"#!/bin/sh\n{text}\n")
    try:
        yield Task(FETCH[0], FETCH[1].format(root=str(root), to=str(tmp_path / "here")))
    finally:
        evil.stop()


def test_fetch_endless_download_is_stopped_and_removed(tmp_path: Path) -> None:
    with fetch_from_attacker(tmp_path, 5000, "exec cat /dev/zero") as task:
        result = task.wait(60)

    assert (result.code, list((tmp_path / "here").iterdir())) == (1, []), result
    assert "the host sent more than" in result.errors
    assert "Traceback" not in result.errors
    assert result.peak_kib < MAX_KIB


def test_fetch_backup_larger_than_the_free_space_is_not_started(tmp_path: Path) -> None:
    with fetch_from_attacker(tmp_path, 1 << 50, "exec cat /dev/zero") as task:
        result = task.wait(60)

    assert (result.code, list((tmp_path / "here").iterdir())) == (1, []), result
    assert "needs up to 1024 TiB by its manifest" in result.errors
    assert "Nothing was fetched" in result.errors


@pytest.mark.parametrize(
    "then", ["exec cat /dev/zero", "while head -c 1000 /dev/zero; do sleep 0.05; done"], ids=["flood", "drip"]
)
def test_fetch_interrupted_ends_at_once_and_removes_its_files(then: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    with fetch_from_attacker(tmp_path, 2 << 30, then) as task:
        wait_until(lambda: any(path.stat().st_size for path in here.glob("*.part")), "the first bytes")
        task.interrupt()
        result = task.wait(10)

    assert (result.code, list(here.iterdir())) == (130, []), result


def member(name: str, content: bytes = b"", **changes: object) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        for key, value in changes.items():
            setattr(entry, key, value)
        tar.addfile(entry, io.BytesIO(content))

    return add


def raw(data: bytes) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        assert tar.fileobj is not None
        tar.fileobj.write(data)

    return add


def header(kind: bytes, size: int) -> bytes:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = kind, size
    return entry.tobuf(tarfile.GNU_FORMAT)


def extended_header(kind: bytes, content: bytes) -> bytes:
    """Return a header with properties of the next member."""
    return header(kind, len(content)) + content.ljust(-(-len(content) // 512) * 512, b"\0")


def pax(key: str, value: str) -> bytes:
    """Return a record of an extended header."""
    text = f" {key}={value}\n"
    return f"{len(text) + 2}{text}".encode()


COMPLETE = [
    member(TOP, type=tarfile.DIRTYPE),
    member(f"{TOP}/manifest.json", manifest_text(listed=len(sums())).encode()),
    member(f"{TOP}/database.db", b"aaaaa"),
    member(f"{TOP}/rows", b"aaaaa"),
    member(f"{TOP}/uploads.sums", sums()),
    member(f"{TOP}.uploads/files/a", b"x"),
]
UPLOAD = f"{TOP}.uploads/files"
ATTACKS: dict[str, list[Callable[[tarfile.TarFile], None]]] = {
    "an absolute name": [member("/etc/passwd", b"x")],
    "a name above": [member(f"{TOP}/../../x", b"x")],
    "a name beside": [member("other/x", b"x")],
    "a link out of it": [member(f"{UPLOAD}/l", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    "a link above": [member(f"{UPLOAD}/l", type=tarfile.SYMTYPE, linkname="../../../x")],
    "a link in the place of a file": [member(f"{TOP}/l", type=tarfile.SYMTYPE, linkname="rows")],
    "a hard link to nothing": [member(f"{UPLOAD}/l", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "a hard link to what comes later": [member(f"{UPLOAD}/l", type=tarfile.LNKTYPE, linkname=f"{UPLOAD}/z")],
    "a device": [member(f"{UPLOAD}/d", type=tarfile.CHRTYPE)],
    "a pipe": [member(f"{UPLOAD}/p", type=tarfile.FIFOTYPE)],
    "a file twice": [member(f"{TOP}/rows", b"other")],
    "an upload twice": [member(f"{UPLOAD}/a", b"x")],
    "an upload that is not listed": [member(f"{UPLOAD}/b", b"x")],
    "too many members": [member(f"{UPLOAD}/{n}", type=tarfile.DIRTYPE) for n in range(10_100)],
    "a sparse file": [raw(header(tarfile.GNUTYPE_SPARSE, 0))],
    "a header of 8 GiB": [raw(header(tarfile.XHDTYPE, 8 << 30))],
    "a name of 8 GiB": [raw(header(tarfile.GNUTYPE_LONGNAME, 8 << 30))],
    "a file of 8 GiB that is not there": [raw(header(tarfile.REGTYPE, 8 << 30))],
    "a size below zero": [raw(header(tarfile.REGTYPE, -1024))],
    "a name of a size below zero": [raw(header(tarfile.GNUTYPE_LONGNAME, -1024))],
    "long names without a file": [raw(extended_header(tarfile.GNUTYPE_LONGNAME, b"x\0") * 2000)],
    "extended headers without a file": [raw(extended_header(tarfile.XHDTYPE, pax("path", "x")) * 2000)],
    "headers for the whole archive": [raw(extended_header(tarfile.XGLTYPE, pax("comment", "x")))],
    "a sparse file of another form": [
        raw(extended_header(tarfile.XHDTYPE, pax("GNU.sparse.major", "1") + pax("GNU.sparse.minor", "0"))),
        member(f"{UPLOAD}/s", b"100\n" + b"0\n" * 200),
    ],
    "a sparse file of an old form": [
        raw(extended_header(tarfile.XHDTYPE, pax("GNU.sparse.map", "0,1"))),
        member(f"{UPLOAD}/s", b"x"),
    ],
    "a size that is no number": [raw(extended_header(tarfile.XHDTYPE, pax("size", "²"))), member(f"{UPLOAD}/s")],
    "a time that is infinite": [raw(extended_header(tarfile.XHDTYPE, pax("mtime", "1e999"))), member(f"{UPLOAD}/s")],
    "a size of many digits": [raw(extended_header(tarfile.XHDTYPE, pax("size", "9" * 60))), member(f"{UPLOAD}/s")],
    "something behind its end": [raw(bytes(1024) + b"x" * 512)],
    "no header": [raw(b"\xff" * 512)],
}


def write_archive(path: Path, *members: Callable[[tarfile.TarFile], None]) -> Backup:
    with tarfile.open(path, "w") as tar:
        for add in members:
            add(tar)
    return manifest.read("shop", ID, manifest_text(listed=len(sums())))


def test_faults_complete_archive_has_none(tmp_path: Path) -> None:
    backup = write_archive(tmp_path / "x", *COMPLETE)

    assert first_fault(tmp_path / "x", APP, backup) == ""
    assert (tmp_path / "x").stat().st_size <= max_bytes(backup)


@pytest.mark.parametrize("attack", ATTACKS)
def test_faults_archive_with_an_unexpected_member_has_one(attack: str, tmp_path: Path) -> None:
    backup = write_archive(tmp_path / "x", *COMPLETE, *ATTACKS[attack])

    assert first_fault(tmp_path / "x", APP, backup) != ""


def listing(path: Path, count: int, name: Callable[[int], str], *, present: bool) -> Backup:
    """Write an archive that lists so many uploaded files, and contains them if `present`."""
    digest = hashlib.sha256(b"").hexdigest()
    rows = "".join(f"{digest}  ./{name(at)}\n" for at in range(count)).encode()
    text = manifest_text(listed=len(rows), uploads=count).replace(
        hashlib.sha256(sums()).hexdigest(), hashlib.sha256(rows).hexdigest()
    )
    files = [member(f"{UPLOAD}/{name(at)}") for at in range(count if present else 0)]
    parts = [member(f"{TOP}/manifest.json", text.encode()), *COMPLETE[2:4], member(f"{TOP}/uploads.sums", rows)]
    write_archive(path, *parts, *files)
    return manifest.read("shop", ID, text)


def test_faults_long_names_use_no_more_memory_than_short_ones(tmp_path: Path) -> None:
    backup = listing(tmp_path / "x", 1500, lambda at: f"{at}/{'y/' * 4000}z", present=True)
    tracemalloc.start()
    try:
        fault = first_fault(tmp_path / "x", APP, backup)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert fault == ""
    # Both sets of names would take 24 MB if the reader kept them.
    assert peak < 6_000_000


def test_faults_listed_files_that_are_missing_are_counted(tmp_path: Path) -> None:
    backup = listing(tmp_path / "x", 300, lambda at: f"f{at:03}", present=False)

    assert first_fault(tmp_path / "x", APP, backup) == "300 uploaded files differ, the first is ./f000"


def test_faults_any_archive_is_read_or_has_a_fault(tmp_path: Path) -> None:
    """A thousand archives, each with some bytes of its headers replaced."""
    chance, path = random.Random(5), tmp_path / "x"  # noqa: S311 - the same archives each time
    extended = [raw(extended_header(tarfile.XHDTYPE, pax("path", f"{UPLOAD}/b") + pax("mtime", "1.5")))]
    longer = [raw(extended_header(tarfile.GNUTYPE_LONGNAME, f"{UPLOAD}/c".encode()))]
    backup = write_archive(path, *COMPLETE, *extended, member("b"), *longer, member("c"))
    original, interesting = path.read_bytes(), b"\0 \xff\x800179=KLSgx"
    for _ in range(1000):
        data = bytearray(original)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(original) - 1024)] = chance.choice(interesting)
        for at in range(0, len(data), 512):
            if data[at + 257 : at + 262] == b"ustar" and chance.random() < 0.9:
                total = sum(data[at : at + 148]) + 8 * 32 + sum(data[at + 156 : at + 512])
                data[at + 148 : at + 156] = b"%06o\0 " % total
        path.write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        assert isinstance(first_fault(path, APP, backup), str)


def test_faults_link_within_the_uploads_has_none(tmp_path: Path) -> None:
    links = [member(f"{UPLOAD}/l", type=tarfile.SYMTYPE, linkname="a")]

    assert first_fault(tmp_path / "x", APP, write_archive(tmp_path / "x", *COMPLETE, *links)) == ""
