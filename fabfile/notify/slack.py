"""A message as Slack's incoming webhooks take it: blocks, and a fallback text for notifications. Pure.

Source: Slack's reference, Block Kit (50 blocks, 150 characters in a header, 3000 in a section, 10 fields of 2000) and
Formatting text (`&`, `<` and `>` are escaped). All texts together stay below 10,000 characters: beyond about 11,000
Slack refuses what keeps every single limit.
"""

from __future__ import annotations

from typing import Any

from fabfile.model.notice import Notice, Severity
from fabfile.notify.text import Field, Told

HEADER, FALLBACK, LEAD, FIELD, VERBATIM, CONTEXT = 150, 1000, 2400, 480, 2400, 300
MOST_FIELDS = 10

_MARKS = {Severity.INFO: "ℹ️", Severity.WARNING: "⚠️", Severity.CRITICAL: "🚨"}
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def payload(notice: Notice, told: Told) -> dict[str, Any]:
    """The body of the request."""
    mark = "✅" if notice.occasion.well else _MARKS[notice.severity]
    header = {"type": "plain_text", "text": fit(f"{mark} {told.subject}", HEADER), "emoji": True}
    blocks: list[dict[str, Any]] = [{"type": "header", "text": header}]
    if told.lead:
        blocks.append(_section(fit(told.lead, LEAD)))
    short = [field for field in told.fields if not field.verbatim]
    if short:
        blocks.append({"type": "section", "fields": [_field(field) for field in short[:MOST_FIELDS]]})
    blocks += [_verbatim(field) for field in told.fields if field.verbatim]
    blocks.append({"type": "context", "elements": [_marked(fit(told.footer, CONTEXT))]})
    return {"text": fit(f"{mark} {told.brief}", FALLBACK), "blocks": blocks}


def fit(text: str, longest: int) -> str:
    """The text escaped, and cut so that it has at most that many characters afterwards."""
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
    # Three backticks would end the block and let what follows be formatted.
    value = fit(field.value.replace("```", "'''"), VERBATIM - 80)
    return _section(f"*{fit(field.label, 60)}*\n```{value}```")
