"""The sample application's backend: uploads, slow answers, an event stream, and faults on demand.

A 201 means that the file and its row are on disk. Two colors can use one database. The image sets the version
(VERSION) and the fault (FAULT, see `Fault`). With ALLOWED_HOST and SSL_REDIRECT it is as strict as a web framework.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import closing
from enum import Enum
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from drain import DrainingServer, Handler, log

VERSION = os.environ.get("VERSION", "unknown")
DATABASE = Path(os.environ.get("DATABASE_PATH", "/app/data/memoryark.db"))
UPLOADS = Path(os.environ.get("UPLOADS_PATH", "/app/uploads"))
#: The only Host that is answered; empty for any. Whether plain requests are redirected to https.
ALLOWED_HOST = os.environ.get("ALLOWED_HOST", "")
SSL_REDIRECT = os.environ.get("SSL_REDIRECT", "") == "true"
STARTED = time.monotonic()


class Fault(str, Enum):
    """The fault of this image."""

    NONE = ""
    BROKEN = "broken"
    NEVER_HEALTHY = "never-healthy"
    CRASH_LATER = "crash-later"
    SLOW_START = "slow-start"
    FLAPPING = "flapping"
    EXITS_AT_ONCE = "exits-at-once"
    WRONG_CHAIN = "wrong-chain"


FAULT = Fault(os.environ.get("FAULT", ""))
CRASH_SECONDS = 4.0
SLOW_START_SECONDS = 6.0
PROXY_HEADERS = {"x-forwarded-for", "x-real-ip"}
_health_answers = itertools.count()


def connect() -> sqlite3.Connection:
    """Open a connection that waits for writes of the other color and syncs every commit."""
    connection = sqlite3.connect(DATABASE, timeout=10, isolation_level=None)
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def prepare() -> None:
    """Create missing directories and tables."""
    DATABASE.parent.mkdir(parents=True, exist_ok=True)
    UPLOADS.mkdir(parents=True, exist_ok=True)
    with closing(connect()) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS uploads"
            " (id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,"
            " version TEXT NOT NULL, at REAL NOT NULL)"
        )


def sync_directory(path: Path) -> None:
    """Make renames in the directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Backend(Handler):
    """The paths of the application."""

    def respond(self) -> None:
        """Call the function of the path."""
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        host = self.headers.get("Host", "")
        if ALLOWED_HOST and host != ALLOWED_HOST:
            self.answer(400, f"<h1>Bad Request: invalid host {host}</h1>\n".encode(), "text/html")
        elif SSL_REDIRECT and self.headers.get("X-Forwarded-Proto") != "https":
            self.redirect(f"https://{host}{self.path}")
        elif url.path == "/api/uploads" and self.command == "POST":
            self.store_upload()
        elif self.headers.get("Content-Length", "0") != "0" or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            self.answer_json(405, error="only /api/uploads takes a body")
        elif url.path in ("/api/health", "/health"):
            self.health()
        elif url.path == "/api/version":
            self.answer_json(200, version=VERSION)
        elif url.path == "/api/uploads":
            self.list_uploads()
        elif url.path.startswith("/api/uploads/"):
            self.one_upload(url.path.removeprefix("/api/uploads/"))
        elif url.path == "/api/slow":
            self.slow(query)
        elif url.path == "/api/stream":
            self.stream()
        else:
            self.answer_json(404, error="no such path")

    def redirect(self, location: str) -> None:
        """Send the client to another URL."""
        self.send_response(301)
        self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def health(self) -> None:
        """Report healthy when the database is readable and the image has no active fault."""
        reason = unhealthy_reason(self.headers.keys())
        if reason:
            self.answer_json(503, status="error", version=VERSION, reason=reason)
            return
        try:
            with closing(connect()) as database:
                count = database.execute("SELECT count(*) FROM uploads").fetchone()[0]
        except sqlite3.Error as error:
            self.answer_json(503, status="error", version=VERSION, reason=f"database: {error}")
            return
        self.answer_json(200, status="ok", version=VERSION, uploads=count)

    def store_upload(self) -> None:
        """Write and sync the file, then the row, then answer."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self.close_connection = True
            self.answer_json(411, error="Content-Length is needed")
            return
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            self.close_connection = True
            return
        upload, digest = uuid.uuid4().hex, hashlib.sha256(body).hexdigest()
        partial = UPLOADS / f".{upload}.part"
        with partial.open("wb") as out:
            out.write(body)
            out.flush()
            os.fsync(out.fileno())
        partial.rename(UPLOADS / upload)
        sync_directory(UPLOADS)
        with closing(connect()) as database:
            row = (upload, digest, len(body), VERSION, time.time())
            database.execute("INSERT INTO uploads VALUES (?, ?, ?, ?, ?)", row)
        self.answer_json(201, id=upload, sha256=digest, bytes=len(body), version=VERSION)

    def list_uploads(self) -> None:
        """Answer with the number and the total size of the uploads."""
        with closing(connect()) as database:
            count, size = database.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM uploads").fetchone()
        self.answer_json(200, count=count, bytes=size)

    def one_upload(self, upload: str) -> None:
        """Answer with the content of an upload that has its row and its file."""
        with closing(connect()) as database:
            row = database.execute("SELECT sha256 FROM uploads WHERE id = ?", (upload,)).fetchone()
        path = UPLOADS / Path(upload).name
        if row is None or not path.is_file():
            self.answer_json(404, error="no such upload", row=row is not None, file=path.is_file())
            return
        self.answer(200, path.read_bytes(), "application/octet-stream")

    def slow(self, query: dict[str, str]) -> None:
        """Log the request, and answer after a delay of up to 90 s."""
        log(f"slow {self.command} {self.path} arrived")
        try:
            seconds = min(90.0, max(0.0, float(query.get("seconds", "2"))))
        except ValueError:
            self.answer_json(400, error="seconds must be a number")
            return
        time.sleep(seconds)
        self.answer_json(200, slept=seconds, version=VERSION)

    def stream(self) -> None:
        """Send one event per second until the client disconnects or the server drains."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Accel-Buffering", "no")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for number in itertools.count():
            self.event("tick", f'{{"n": {number}, "version": "{VERSION}"}}')
            if self.server.draining.wait(1.0):
                break
        self.event("goodbye", f'{{"version": "{VERSION}"}}')
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def event(self, name: str, data: str) -> None:
        """Send one event as one chunk."""
        text = f"event: {name}\ndata: {data}\n\n".encode()
        self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
        self.wfile.flush()


def unhealthy_reason(headers: Iterable[str]) -> str:
    """Return the reason why this image reports itself unhealthy, or ''."""
    if FAULT in (Fault.BROKEN, Fault.NEVER_HEALTHY):
        return "this version is broken" if FAULT is Fault.BROKEN else "never healthy"
    if FAULT is Fault.SLOW_START and time.monotonic() - STARTED < SLOW_START_SECONDS:
        return "still starting"
    if FAULT is Fault.FLAPPING and next(_health_answers) % 2:
        return "flapping"
    if FAULT is Fault.WRONG_CHAIN and PROXY_HEADERS & {name.lower() for name in headers}:
        return "unhealthy behind a proxy"
    # A file beside the database makes one version unhealthy in every container.
    return "this version went bad" if (DATABASE.parent / f"unhealthy-{VERSION}").exists() else ""


def crash() -> None:
    """Exit as after a fatal error."""
    log("fatal: simulated crash")
    os._exit(1)


def main() -> int:
    """Prepare the directories, then serve until drained."""
    log(f"backend {VERSION} starts" + (f" with fault {FAULT.value}" if FAULT.value else ""))
    if FAULT is Fault.EXITS_AT_ONCE:
        log("fatal: a required setting is missing")
        return 1
    prepare()
    server = DrainingServer(int(os.environ.get("PORT", "8080")), Backend)
    if FAULT is Fault.CRASH_LATER:
        threading.Timer(CRASH_SECONDS, crash).start()
    return server.run()


if __name__ == "__main__":
    sys.exit(main())
