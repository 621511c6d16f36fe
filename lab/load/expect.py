"""Checks of the sample application's answers. Each check raises `RequestFailed` for a wrong answer."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from lab.load.wire import Answer, Cause, RequestFailed

PAGE, PAGE_HEALTH, VERSION, HEALTH = "/", "/health", "/api/version", "/api/health"
UPLOADS, SLOW, STREAM = "/api/uploads", "/api/slow?seconds=2", "/api/stream"

#: The paths that readers request in turn.
READ_PATHS = (PAGE, VERSION, HEALTH, PAGE, VERSION, PAGE_HEALTH)

BACKEND, FRONTEND = "backend", "frontend"
_VERSION_ON_PAGE = re.compile(rb'id="version">([^<\s]+)<')


@dataclass(frozen=True)
class ServedBy:
    """The service and the version that answered, where the answer contains them."""

    service: str = ""
    version: str = ""


@dataclass(frozen=True)
class Write:
    """An acknowledged upload."""

    server: str
    id: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.server}: upload {self.id}"


def read(path: str, answer: Answer) -> ServedBy:
    """Check the answer to a reader's request."""
    _status(answer, 200)
    if path == PAGE:
        match = _VERSION_ON_PAGE.search(answer.body)
        if b"</html>" not in answer.body or match is None:
            raise RequestFailed(Cause.WRONG_CONTENT, f"{path}: no page with a version: {_start(answer)}")
        return ServedBy(FRONTEND, match[1].decode())
    if path == VERSION:
        return ServedBy(BACKEND, _text(answer, "version"))
    if _text(answer, "status") != "ok":
        raise RequestFailed(Cause.WRONG_CONTENT, f"{path}: not ok: {_start(answer)}")
    return ServedBy()


def slow(answer: Answer) -> ServedBy:
    """Check the answer to a slow request."""
    _status(answer, 200)
    if _text(answer, "slept") != "2.0":
        raise RequestFailed(Cause.WRONG_CONTENT, f"not the requested delay: {_start(answer)}")
    return ServedBy()


def upload(server: str, body: bytes, answer: Answer) -> Write:
    """Check the answer to an upload: it must have an id and the checksum of the sent bytes."""
    _status(answer, 201)
    sent = hashlib.sha256(body).hexdigest()
    if _text(answer, "sha256") != sent:
        raise RequestFailed(Cause.WRONG_CONTENT, f"upload of {len(body)} bytes: other checksum: {_start(answer)}")
    return Write(server, _text(answer, "id"), sent)


def read_back(write: Write, answer: Answer) -> ServedBy:
    """Check that the server returns an acknowledged upload unchanged."""
    _status(answer, 200)
    if hashlib.sha256(answer.body).hexdigest() != write.sha256:
        raise RequestFailed(Cause.WRONG_CONTENT, f"{write} came back changed ({len(answer.body)} bytes)")
    return ServedBy()


def _status(answer: Answer, expected: int) -> None:
    if answer.head.status != expected:
        raise RequestFailed(Cause.WRONG_STATUS, f"{answer.head.status} instead of {expected}: {_start(answer)}")


def _json(answer: Answer) -> dict[str, Any]:
    try:
        content = json.loads(answer.body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise RequestFailed(Cause.WRONG_CONTENT, f"no JSON object: {_start(answer)}")
    return content


def _text(answer: Answer, key: str) -> str:
    value = _json(answer).get(key)
    if value is None or value == "":
        raise RequestFailed(Cause.WRONG_CONTENT, f"no {key!r} in {_start(answer)}")
    return str(value)


def _start(answer: Answer) -> str:
    return repr(answer.body[:80])[1:]
