"""The webhook channel: a notice as JSON, and the HTTP request of both this channel and Slack's.

Requests follow no redirect, which could send a message to another server. Certificates are verified against the
system's authorities; the environment variables may name a proxy.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.masking import safe
from rolling_upgrade.engine.model import Hook, Notice
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.features.notify.delivery import Deadline, NotDelivered, one_line
from rolling_upgrade.features.notify.text import Message

#: The version of the webhook's object; it changes when a key is removed or changes its meaning.
FORM = 1


def send(hook: Hook, notice: Notice, message: Message, deadline: Deadline, secrets: Sequence[str]) -> None:
    """Send the notice once. Raises as `post` does."""
    post(hook.url, _payload(notice, message, secrets), deadline)


def _payload(notice: Notice, message: Message, secrets: Sequence[str]) -> dict[str, Any]:
    """The request body, with its secrets masked. `id` identifies the event across retries."""
    document = {
        "form": FORM,
        "id": notice.id,
        "thread": notice.thread,
        "event": notice.occasion,
        "severity": notice.severity,
        "application": notice.application,
        "environment": notice.environment,
        "at": datetime.fromtimestamp(notice.at, timezone.utc).isoformat(timespec="seconds"),
        "hosts": notice.hosts,
        "who": notice.who,
        "target": notice.target,
        "check": notice.check,
        "changes": notice.changes,
        "results": dict(notice.results),
        "seconds": round(notice.seconds, 3),
        "cause": notice.cause,
        "next_command": notice.next_command,
        "text": notice.text,
        "language": message.language,
        "subject": message.subject,
        "message": message.plain,
    }
    masked: dict[str, Any] = _masked(to_plain(document), secrets)
    return masked


def _masked(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        return safe(value, secrets)
    if isinstance(value, dict):
        return {safe(key, secrets): _masked(item, secrets) for key, item in value.items()}
    return [_masked(item, secrets) for item in value] if isinstance(value, list) else value


#: The maximum number of bytes to read of an error response.
READ_BYTES = 4096
_LONGEST_WAIT_SECONDS = 86_400
#: Status codes after which a retry may help; so may any 5xx.
RETRYABLE = frozenset({408, 425, 429})


def post(url: str, content: Mapping[str, Any], deadline: Deadline) -> None:
    """Post JSON once. Raises NotDelivered, or an error of the library while nothing has been sent yet."""
    request = _request(url, content)
    try:
        with build_opener(_CutByDeadline(deadline), _NoRedirect()).open(request, timeout=deadline.connecting):
            return
    except HTTPError as answer:
        with answer:
            raise _refused(answer) from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        # Source: urllib.request.AbstractHTTPHandler.do_open wraps errors until the end of sending in URLError.
        raise NotDelivered("no response after the message was sent: it may have arrived") from error


def _request(url: str, content: Mapping[str, Any]) -> Request:
    parts = urlsplit(url)
    login, _, address = parts.netloc.rpartition("@")
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "rolling-upgrade"}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(unquote(login).encode()).decode()}"
    url_without_login = parts._replace(netloc=address, fragment="").geturl()
    return Request(url_without_login, json.dumps(content).encode(), headers, method="POST")  # noqa: S310 - config allows http and https only


def _refused(answer: HTTPError) -> NotDelivered:
    if 300 <= answer.code < 400:
        return NotDelivered(f"HTTP {answer.code}: redirects are not followed")
    body = ""
    with suppress(OSError, http.client.HTTPException):
        body = one_line(answer.read(READ_BYTES))
    wait = _seconds(answer.headers.get("Retry-After", ""))
    pause = f"; retry after {wait:g} s" if wait else ""
    again = answer.code in RETRYABLE or answer.code >= 500
    return NotDelivered(f"HTTP {answer.code}{pause} {body}".rstrip(), again=again, wait_seconds=wait)


def _seconds(text: str) -> float:
    """The seconds of a Retry-After header; 0 for a date or a malformed value."""
    return float(untrusted.integer(text.strip(), maximum=_LONGEST_WAIT_SECONDS, default=0))


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Return no request, which makes the redirect an HTTPError."""


class _CutByDeadline(HTTPHandler, HTTPSHandler):
    """Opens connections that the deadline can cut, and whose timeout is the remaining time."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, request: Request) -> http.client.HTTPResponse:
        return self.do_open(self._limited(http.client.HTTPConnection), request)

    def https_open(self, request: Request) -> http.client.HTTPResponse:
        connection = self._limited(http.client.HTTPSConnection)
        return self.do_open(connection, request, context=ssl.create_default_context())

    def _limited(self, connection: type[http.client.HTTPConnection]) -> Callable[..., http.client.HTTPConnection]:
        deadline = self._deadline

        class Limited(connection):  # type: ignore[misc,valid-type]
            def connect(self) -> None:
                deadline.register(self)
                super().connect()
                self.sock.settimeout(deadline.remaining)

        return Limited
