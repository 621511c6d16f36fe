"""A message for programs: every fact under its own name, and the words that people get. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from fabfile.model.masking import safe
from fabfile.model.notice import Notice
from fabfile.notify.text import Told

#: The form of the object; another number means that a name went away or changed its meaning.
FORM = 1


def payload(notice: Notice, told: Told, secrets: Sequence[str] = ()) -> dict[str, Any]:
    """The body of the request, its texts masked. `id` is the same whenever the same event is sent again."""
    found: dict[str, Any] = {
        "form": FORM,
        "id": notice.id,
        "thread": notice.thread,
        "event": notice.occasion.value,
        "severity": notice.severity.value,
        "application": notice.application,
        "environment": notice.environment,
        "at": datetime.fromtimestamp(notice.at, timezone.utc).isoformat(timespec="seconds"),
        "hosts": list(notice.hosts),
        "who": notice.who,
        "target": notice.target,
        "check": notice.check,
        "changes": [
            {"what": one.what, "before": one.before, "after": one.after, "hosts": list(one.hosts)}
            for one in notice.passages
        ],
        "results": {host: result.value for host, result in notice.results},
        "seconds": round(notice.seconds, 3),
        "cause": notice.cause,
        "next_command": notice.next_command,
        "text": notice.text,
        "language": told.language,
        "subject": told.subject,
        "message": told.plain,
    }
    masked: dict[str, Any] = _masked(found, secrets)
    return masked


def _masked(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        return safe(value, secrets)
    if isinstance(value, dict):
        return {safe(key, secrets): _masked(item, secrets) for key, item in value.items()}
    return [_masked(item, secrets) for item in value] if isinstance(value, list) else value
