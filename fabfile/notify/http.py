"""One JSON message to one address over HTTP. It knows no service; it follows no redirect, so that no one else gets it.

Certificates are verified by the system's authorities. A proxy is used where the environment names one.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from fabfile.notify.delivery import Deadline, NotDelivered, words

#: How much of an answer is read: a service says in a few words what it does not like.
READ_BYTES = 4096
#: Answers after which another try may help.
PASSING = frozenset({408, 425, 429})


def post(url: str, content: Mapping[str, Any], deadline: Deadline) -> None:
    """Send it once. Raises NotDelivered, or what the library raises while nothing has been sent yet."""
    request = _request(url, content)
    try:
        with _opener(deadline).open(request, timeout=deadline.connecting):
            return
    except HTTPError as answer:
        with answer:
            raise _refused(answer) from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        # Source: urllib.request.AbstractHTTPHandler.do_open wraps what happens up to the end of sending in URLError.
        raise NotDelivered("it took the message and did not answer: it may have arrived") from error


def _request(url: str, content: Mapping[str, Any]) -> Request:
    parts = urlsplit(url)
    login, _, place = parts.netloc.rpartition("@")
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "rolling-upgrade"}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(unquote(login).encode()).decode()}"
    bare = parts._replace(netloc=place, fragment="").geturl()
    return Request(bare, json.dumps(content).encode(), headers, method="POST")  # noqa: S310 - http or https: config sees to it


def _refused(answer: HTTPError) -> NotDelivered:
    if 300 <= answer.code < 400:
        return NotDelivered(f"HTTP {answer.code}: it wants the message elsewhere, which is not followed")
    said = ""
    with suppress(OSError, http.client.HTTPException):
        said = words(answer.read(READ_BYTES))
    wait = _seconds(answer.headers.get("Retry-After", ""))
    patience = f"; it asks to wait {wait:g} s" if wait else ""
    again = answer.code in PASSING or answer.code >= 500
    return NotDelivered(f"HTTP {answer.code}{patience} {said}".rstrip(), again=again, wait_seconds=wait)


def _seconds(text: str) -> float:
    """What a Retry-After header asks for; 0 for a form that is not a number of seconds."""
    return float(text) if text.strip().isdecimal() else 0.0


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Leave the answer as it is."""


class _Plain(HTTPHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, request: Request) -> http.client.HTTPResponse:
        return self.do_open(_held(http.client.HTTPConnection, self._deadline), request)


class _Protected(HTTPSHandler):
    def __init__(self, deadline: Deadline) -> None:
        self._verifying = ssl.create_default_context()
        super().__init__(context=self._verifying)
        self._deadline = deadline

    def https_open(self, request: Request) -> http.client.HTTPResponse:
        connection = _held(http.client.HTTPSConnection, self._deadline)
        return self.do_open(connection, request, context=self._verifying)


def _held(kind: type[http.client.HTTPConnection], deadline: Deadline) -> Callable[..., http.client.HTTPConnection]:
    """Connections that the deadline can cut, and that wait for an answer as long as there is time."""

    class Held(kind):  # type: ignore[misc,valid-type]
        def connect(self) -> None:
            deadline.holds(self)
            super().connect()
            self.sock.settimeout(deadline.remaining)

    return Held


def _opener(deadline: Deadline) -> OpenerDirector:
    return build_opener(_Plain(deadline), _Protected(deadline), _NoRedirect())
