"""The Slack channel: a message as the blocks of an incoming webhook."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.engine.model import Hook, Notice, Severity
from rolling_upgrade.features.notify.delivery import Deadline
from rolling_upgrade.features.notify.text import Field, Message
from rolling_upgrade.features.notify.webhook import post

#: Limits of Slack, in characters after escaping, some with a margin; and of the fields in one block.
HEADER, FALLBACK, LEAD, FIELD, VERBATIM, CONTEXT = 150, 1000, 2400, 480, 2400, 300
MOST_FIELDS = 10

_MARKS = {Severity.INFO: "ℹ️", Severity.WARNING: "⚠️", Severity.CRITICAL: "🚨"}
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def send(hook: Hook, notice: Notice, message: Message, deadline: Deadline) -> None:
    """Send the message once. Raises as `post` does."""
    post(hook.url, slack_payload(notice, message), deadline)


def slack_payload(notice: Notice, message: Message) -> dict[str, Any]:
    """The request body for Slack's incoming webhook."""
    mark = "✅" if notice.occasion.is_success else _MARKS[notice.severity]
    header = {"type": "plain_text", "text": fit(f"{mark} {message.subject}", HEADER), "emoji": True}
    blocks: list[dict[str, Any]] = [{"type": "header", "text": header}]
    if message.lead:
        blocks.append(_section(fit(message.lead, LEAD)))
    short = [field for field in message.fields if not field.verbatim]
    if short:
        blocks.append({"type": "section", "fields": [_field(field) for field in short[:MOST_FIELDS]]})
    blocks += [_verbatim(field) for field in message.fields if field.verbatim]
    blocks.append({"type": "context", "elements": [_marked(fit(message.footer, CONTEXT))]})
    return {"text": fit(f"{mark} {message.brief}", FALLBACK), "blocks": blocks}


def fit(text: str, longest: int) -> str:
    """Escape a text for Slack, and cut it to a number of characters after escaping."""
    pieces = [_ENTITIES.get(char, char) for char in text]
    if sum(map(len, pieces)) <= longest:
        return "".join(pieces)
    room, kept = longest - 1, []
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            break
        kept.append(piece)
    return f"{''.join(kept)}…"


def _marked(text: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": text}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _marked(text)}


def _field(field: Field) -> dict[str, str]:
    return _marked(f"*{fit(field.label, 60)}*\n{fit(field.value, FIELD - 70)}")


def _verbatim(field: Field) -> dict[str, Any]:
    # Three backticks would end the block.
    value = fit(field.value.replace("```", "'''"), VERBATIM - 80)
    return _section(f"*{fit(field.label, 60)}*\n```{value}```")
