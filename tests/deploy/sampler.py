"""Searches /proc repeatedly for secret texts: `sampler.py TEXTS OUT UID [PARENT]`.

TEXTS has one text per line. Each hit is appended to OUT: the text, the file in /proc and the process. The program reads
as the user UID; with PARENT it reads only environments of that process's descendants. It counts its passes in
OUT.samples and stops once OUT.end exists. It runs on hosts: standard library only.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path


def parents() -> dict[int, int]:
    """Return the parent of each process."""
    result = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            stat = (process / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        result[int(process.name)] = int(stat.rpartition(")")[2].split()[1])
    return result


def descends(pid: int, ancestor: int, parent_of: dict[int, int]) -> bool:
    """Return whether a process descends from another one."""
    while pid in parent_of and pid != ancestor:
        pid = parent_of[pid]
    return pid == ancestor


def read(pid: int, name: str) -> bytes:
    """Return a file of /proc, or nothing where this user may not read it."""
    try:
        return Path("/proc", str(pid), name).read_bytes()
    except OSError:
        return b""


def main(texts: str, out: str, uid: str, parent: str = "") -> None:
    """Search until OUT.end exists."""
    secrets = [line for line in Path(texts).read_bytes().split(b"\n") if line]
    with Path(out).open("ab", buffering=0) as hits, Path(f"{out}.samples").open("wb", buffering=0) as samples:
        if os.geteuid() == 0 and uid != "0":
            os.setgroups([])
            os.setgid(int(uid))
            os.setuid(int(uid))
        count, seen = 0, set[bytes]()
        while not Path(f"{out}.end").exists():
            for hit in search(secrets, int(parent or 0)):
                if hit not in seen:
                    seen.add(hit)
                    hits.write(hit)
            count += 1
            samples.seek(0)
            samples.write(b"%d\n" % count)
            time.sleep(0.002)


def search(secrets: list[bytes], parent: int) -> Iterator[bytes]:
    """Yield a line for each secret in the arguments or the environment of another process."""
    parent_of = parents()
    for pid in parent_of.keys() - {os.getpid()}:
        for name in ("cmdline", "environ") if not parent or descends(pid, parent, parent_of) else ("cmdline",):
            content = read(pid, name)
            for text in secrets:
                if text in content:
                    yield b"%s in %s of %s\n" % (text, name.encode(), read(pid, "comm").strip())


if __name__ == "__main__":
    main(*sys.argv[1:])
