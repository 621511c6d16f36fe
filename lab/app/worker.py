"""The sample application's worker: it works until SIGTERM, and records each start and stop.

`worker.py NAME` appends its events to NAME.jsonl beside the database, and holds a lock on NAME.lock: a worker that
finds it held records `overlap`. `worker.py ready` is the check of its container. The image sets the version and the
fault.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from drain import log

VERSION = os.environ.get("VERSION", "unknown")
FAULT = os.environ.get("FAULT", "")
DATA = Path(os.environ.get("DATABASE_PATH", "/app/data/memoryark.db")).parent
WORKING = Path("/tmp/working")  # noqa: S108 - inside the container


def record(name: str, event: str) -> None:
    """Append an event, so that it survives a power cut."""
    line = json.dumps({"event": event, "version": VERSION, "host": os.uname().nodename, "at": time.time()})
    with (DATA / f"{name}.jsonl").open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def work(name: str) -> int:
    """Work until SIGTERM."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    log(f"worker {name} {VERSION} starts")
    with (DATA / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            record(name, "overlap")
        record(name, "start")
        if FAULT != "never-healthy":
            WORKING.touch()
        stopped.wait()
        record(name, "stop")
    log("SIGTERM: the work is done")
    return 0


def main() -> int:
    """Check or work."""
    if sys.argv[1] == "ready":
        return 0 if WORKING.exists() else 1
    if FAULT == "exits-at-once":
        log("fatal: a required setting is missing")
        return 1
    return work(sys.argv[1])


if __name__ == "__main__":
    sys.exit(main())
