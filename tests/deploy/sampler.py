"""Looks at every process, again and again, for texts that must not be seen: `sampler.py TEXTS OUT UID [PARENT]`.

TEXTS has a text a line; what is found goes to OUT: which text, and the name of the file in /proc that had it. It reads
as the user UID, so that it sees what that user sees; with PARENT, environments of the processes below that one alone.
The file OUT.looks has how often it has looked; it ends once there is a file OUT.end. Nothing but the standard library.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path


def parents() -> dict[int, int]:
    """The parent of each process that is there."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            stat = (process / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found[int(process.name)] = int(stat.rpartition(")")[2].split()[1])
    return found


def below(pid: int, ancestor: int, found: dict[int, int]) -> bool:
    """Whether a process descends from another one."""
    while pid in found and pid != ancestor:
        pid = found[pid]
    return pid == ancestor


def read(pid: int, name: str) -> bytes:
    """What /proc shows of a process to this user."""
    try:
        return Path("/proc", str(pid), name).read_bytes()
    except OSError:
        return b""


def main(texts: str, out: str, uid: str, parent: str = "") -> None:
    """Look until the end is told."""
    wanted = [line for line in Path(texts).read_bytes().split(b"\n") if line]
    with Path(out).open("ab", buffering=0) as hits, Path(f"{out}.looks").open("wb", buffering=0) as looks:
        if os.geteuid() == 0 and uid != "0":
            os.setgroups([])
            os.setgid(int(uid))
            os.setuid(int(uid))
        count, seen = 0, set[bytes]()
        while not Path(f"{out}.end").exists():
            for found in look(wanted, int(parent or 0)):
                if found not in seen:
                    seen.add(found)
                    hits.write(found)
            count += 1
            looks.seek(0)
            looks.write(b"%d\n" % count)
            time.sleep(0.002)


def look(wanted: list[bytes], parent: int) -> Iterator[bytes]:
    """A line for each text in the arguments or the environment of each process but this one."""
    every = parents()
    for pid in every.keys() - {os.getpid()}:
        for name in ("cmdline", "environ") if not parent or below(pid, parent, every) else ("cmdline",):
            content = read(pid, name)
            for text in wanted:
                if text in content:
                    yield b"%s in %s of %s\n" % (text, name.encode(), read(pid, "comm").strip())


if __name__ == "__main__":
    main(*sys.argv[1:])
