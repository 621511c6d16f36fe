"""Where messages go: Slack, mail, any service that takes JSON. Shapes only.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlsplit

from fabfile.model.notice import Severity


class Security(str, Enum):
    """How the connection to a mail server is protected: TLS after a plain greeting, from the first byte, or not."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True)
class Hook:
    """An address that takes messages over HTTP; whoever knows it can send some. `lowest` None turns it off."""

    url: str = field(repr=False)
    lowest: Severity | None = Severity.INFO

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown: the address, and each part of it that a library could quote alone."""
        parts = urlsplit(self.url)
        pieces = (
            parts.netloc.rpartition("@")[0],
            parts.password or "",
            *parts.path.split("/"),
            *parts.query.split("&"),
        )
        beyond = self.url.partition(parts.netloc)[2]
        return (self.url, *(piece for piece in (beyond, *pieces) if _is_telling(piece)))


def _is_telling(piece: str) -> bool:
    """Whether a part of an address is a secret rather than a word of ordinary texts, such as `services`."""
    return len(piece) >= 16 or (len(piece) >= 8 and not re.fullmatch(r"[a-z_-]+", piece))


@dataclass(frozen=True)
class Mail:
    """A mail server, its login where it wants one, and between whom mail goes. `lowest` None turns it off."""

    host: str
    sender: str
    recipients: tuple[str, ...]
    port: int = 587
    user: str = ""
    password: str = field(default="", repr=False)
    security: Security = Security.STARTTLS
    lowest: Severity | None = Severity.INFO

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown: the password, and how it travels in a login."""
        return (f"\0{self.user}\0{self.password}", self.password) if self.password else ()


@dataclass(frozen=True)
class Channels:
    """Every configured channel, the language of the messages, and how long a repeated alert is held back."""

    slack: Hook | None = None
    mail: Mail | None = None
    webhook: Hook | None = None
    language: str = "en"
    repeat_seconds: float = 21_600.0

    @property
    def configured(self) -> tuple[tuple[str, Hook | Mail], ...]:
        """Each channel that has an address, by its name, those that are turned off too."""
        named = (("slack", self.slack), ("mail", self.mail), ("webhook", self.webhook))
        return tuple((name, channel) for name, channel in named if channel is not None)

    def taking(self, severity: Severity) -> tuple[str, ...]:
        """The names of the channels that a message of this severity goes to."""
        return tuple(
            name for name, channel in self.configured if channel.lowest is not None and severity.reaches(channel.lowest)
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown of all of them."""
        return tuple(secret for _, channel in self.configured for secret in channel.secrets)
