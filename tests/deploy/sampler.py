"""Searches /proc repeatedly for secret texts: `sampler.py TEXTS OUT UID [PARENT]`.

TEXTS has one text per line. Each hit is appended to OUT: the text, the file in /proc and the process. The program reads
as the user UID. With PARENT, it reads the environments only of that process's descendants. It counts its passes in
OUT.samples and stops once OUT.end exists. To keep a pass short, it searches new processes, which may still execute
their program, each time, and older ones in one of fifty passes. It runs on hosts: standard library only.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

#: Each pass searches a process during its first NEW_PASSES passes; after that, every EVERY-th pass does.
NEW_PASSES, EVERY = 100, 50


def parent(pid: int) -> int:
    """Return the parent of a process, or 0 if the process has ended."""
    stat = read(pid, "stat").rpartition(b")")[2].split()
    return int(stat[1]) if stat else 0


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


def main(texts: str, out: str, uid: str, ancestor: str = "") -> None:
    """Search until OUT.end exists."""
    secrets = [line for line in Path(texts).read_bytes().split(b"\n") if line]
    with Path(out).open("ab", buffering=0) as hits, Path(f"{out}.samples").open("wb", buffering=0) as samples:
        if os.geteuid() == 0 and uid != "0":
            os.setgroups([])
            os.setgid(int(uid))
            os.setuid(int(uid))
        count, seen = 0, set[bytes]()
        parents: dict[int, int] = {}
        passes: dict[int, int] = {}
        while not Path(f"{out}.end").exists():
            for hit in search(secrets, int(ancestor or 0), parents, passes):
                if hit not in seen:
                    seen.add(hit)
                    hits.write(hit)
            count += 1
            samples.seek(0)
            samples.write(b"%d\n" % count)
            time.sleep(0.004)


def search(secrets: list[bytes], ancestor: int, parents: dict[int, int], passes: dict[int, int]) -> Iterator[bytes]:
    """Yield a line for each secret in the arguments or the environment of another process.

    `parents` maps each process to its parent, `passes` to the number of passes so far. This function updates both.
    """
    pids = {int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()} - {os.getpid()}
    for pid in passes.keys() - pids:
        del passes[pid], parents[pid]
    for pid in pids - passes.keys():
        passes[pid], parents[pid] = 0, parent(pid)
    for pid in pids:
        passes[pid] += 1
        if passes[pid] > NEW_PASSES and passes[pid] % EVERY:
            continue
        for name in ("cmdline", "environ") if not ancestor or descends(pid, ancestor, parents) else ("cmdline",):
            content = read(pid, name)
            for text in secrets:
                if text in content:
                    yield b"%s in %s of %s\n" % (text, name.encode(), read(pid, "comm").strip())


if __name__ == "__main__":
    main(*sys.argv[1:])
