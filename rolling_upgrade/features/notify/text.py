"""Renders a notice as a message in one language; every channel shows the same texts.

The caller passes `read`, which returns a template of `templates/notify/` from a directory or from inside a zipapp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from string import Template

from rolling_upgrade.engine.masking import safe
from rolling_upgrade.engine.model import HostResult, Image, Notice, VersionChange, short_digest
from rolling_upgrade.engine.plan import Change, Plan

#: Returns a template by its name, such as `en/done.txt`.
Read = Callable[[str], str]

#: The maximum number of items of a list, and of characters of a text and of a line.
SHOWN_ITEMS = 10
LONGEST_TEXT = 2000
LONGEST_LINE = 200


@dataclass(frozen=True)
class Field:
    """A labelled value; a `verbatim` value is a command or a program's output, of one line or several."""

    label: str
    value: str
    verbatim: bool = False


@dataclass(frozen=True)
class Message:
    """A rendered notice: a subject line, a lead of a sentence or two, and the facts."""

    subject: str
    lead: str
    fields: tuple[Field, ...]
    footer: str
    language: str

    @property
    def brief(self) -> str:
        """Subject and lead on one line, for previews."""
        return f"{self.subject}. {self.lead}"

    @property
    def plain(self) -> str:
        """The whole message as plain text."""
        parts = [self.subject, self.lead, "\n".join(_plain(field) for field in self.fields), f"-- \n{self.footer}"]
        return "\n\n".join(part for part in parts if part) + "\n"


def compose(notice: Notice, language: str, read: Read, secrets: Sequence[str] = ()) -> Message:
    """Render a notice, its secrets masked. Raises OSError for a missing template, KeyError for an unknown placeholder."""
    words = _Words(language, read, secrets)
    first, _, rest = read(f"{language}/{_template(notice)}.txt").partition("\n")
    values = words.values(notice)
    subject = f"[{notice.application} {notice.environment}] {Template(first).substitute(values)}"
    return Message(
        subject=_cut(words.line(subject), LONGEST_LINE),
        lead=Template(rest.strip()).substitute(values),
        fields=tuple(words.fields(notice)),
        footer=f"{notice.application} · {notice.environment} · {_moment(notice.at)}",
        language=language,
    )


def _template(notice: Notice) -> str:
    occasion = notice.occasion
    return (
        "recovered"
        if (occasion.subject, occasion.phase) == ("recovery", "done")
        else occasion.phase or occasion.subject
    )


class _Words:
    """The fixed words of one language, and the values of a notice in that language."""

    def __init__(self, language: str, read: Read, secrets: Sequence[str]) -> None:
        rows = (row.partition(" = ") for row in read(f"{language}/words.txt").splitlines())
        self._words: Mapping[str, str] = {key: word for key, _, word in rows}
        self._secrets = secrets

    def line(self, text: str) -> str:
        """A masked text on one line."""
        return " ".join(safe(text, self._secrets).split())

    def text(self, text: str) -> str:
        """A masked text of several lines, cut to LONGEST_TEXT."""
        return _cut(safe(text, self._secrets).strip(), LONGEST_TEXT)

    def values(self, notice: Notice) -> dict[str, str]:
        """The placeholders of the templates."""
        return {
            "action": self._words.get(notice.occasion.subject, notice.occasion.subject),
            "check": self.line(notice.check),
            "hosts": self._listed([self.line(host) for host in notice.hosts], ", "),
            "seconds": duration(notice.seconds),
            "target": self.line(notice.target) or notice.environment,
            "text": self.text(notice.text),
            "who": self.line(notice.who) or notice.application,
        }

    def fields(self, notice: Notice) -> Iterator[Field]:
        """The facts of the notice, without those that are empty."""
        run = notice.occasion.subject in {"deploy", "rollback", "restore"}
        facts = (
            ("hosts", self._listed([self.line(host) for host in notice.hosts], ", ")),
            ("who", self.line(notice.who)),
            ("check", self.line(notice.check)),
            ("done", self._words.get(notice.target, "") if notice.occasion.subject == "recovery" else ""),
            ("changes", self._listed([self._change(change) for change in notice.changes], "\n")),
            (
                "results",
                self._listed([f"{host}: {self._words[result.name.lower()]}" for host, result in notice.results], "\n"),
            ),
            ("release", self.line(notice.thread) if run else ""),
            ("seconds", duration(notice.seconds) if notice.seconds else ""),
        )
        yield from (Field(self._words[key], value) for key, value in facts if value)
        if notice.cause:
            yield Field(self._words["cause"], self.text(notice.cause), verbatim=True)
        if notice.next_command:
            label = "back" if run and notice.occasion.phase == "done" else "next"
            yield Field(self._words[label], self.text(notice.next_command), verbatim=True)

    def _change(self, change: VersionChange) -> str:
        what = self._words.get(change.what, change.what)
        versions = f"{change.before} → {change.after}" if change.before else f"→ {change.after}"
        hosts = f" ({self._listed(list(change.hosts), ', ')})" if change.hosts else ""
        return self.line(f"{what} {versions}{hosts}")

    def _listed(self, items: Sequence[str], between: str) -> str:
        shown = [_cut(item, LONGEST_LINE) for item in items[:SHOWN_ITEMS]]
        if len(items) > SHOWN_ITEMS:
            shown.append(Template(self._words["and_more"]).substitute(count=len(items) - SHOWN_ITEMS))
        return between.join(shown)


def duration(seconds: float) -> str:
    """A duration in its two largest units, with the symbols of the SI: `21 s`, `3 min 12 s`."""
    rounded = max(round(seconds), 0)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    if rounded < 86_400:
        return f"{rounded // 3600} h {rounded % 3600 // 60} min"
    return f"{rounded // 86_400} d {rounded % 86_400 // 3600} h"


def _plain(field: Field) -> str:
    if "\n" not in field.value:
        return f"{field.label}: {field.value}"
    return "\n".join([f"{field.label}:", *(f"  {line}" for line in field.value.splitlines())])


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def version_changes(plans: Sequence[Plan]) -> Iterator[VersionChange]:
    """The changes of all plans, as messages show them; hosts with the same change are grouped."""
    hosts_by_change: dict[tuple[str, str, str], list[str]] = {}
    for plan in plans:
        for change in _changes(plan):
            hosts_by_change.setdefault(change, []).append(plan.host)
    for (what, before, after), hosts in hosts_by_change.items():
        yield VersionChange(what, before, after, () if len(hosts) == len(plans) else tuple(hosts))


def _changes(plan: Plan) -> Iterator[tuple[str, str, str]]:
    if plan.result is HostResult.RESTORED and plan.record:
        yield "data", "", plan.record.target
    for service in plan.services:
        if service.change is not Change.KEEP:
            yield service.service, *_versions(service.current, service.wanted)


def _versions(before: Image | None, after: Image) -> tuple[str, str]:
    """Two images by the parts that differ: references, else tags, else digests."""
    if before is None:
        return "", after.reference
    if before.repository != after.repository:
        return before.reference, after.reference
    if before.tag != after.tag or before.digest == after.digest:
        return before.tag or short_digest(before.digest), after.tag or short_digest(after.digest)
    return f"{before.tag} {short_digest(before.digest)}".strip(), f"{after.tag} {short_digest(after.digest)}".strip()
