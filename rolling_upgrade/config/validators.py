"""The forms that a value may have: text in, value out, or the sentence that says what is expected.

Everything that ends up in Nginx text, in a podman flag or in a name has a strict form here. It reads no file
and knows no key. Standard library only.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterable
from types import UnionType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin
from urllib.parse import urlsplit

from fabfile.config import schedule
from fabfile.model import PORT_OFFSET, Image

T = TypeVar("T")

#: What switches a path off that has a default.
NONE = "none"


class Form(Generic[T]):
    """A kind of value. Calling it with a text gives the value; ValueError carries the text of `expected`."""

    def __init__(self, expected: str, parse: Callable[[str], T | None]) -> None:
        self.expected = expected
        self._parse = parse

    def __call__(self, text: object) -> T:
        value = self._parse(text) if isinstance(text, str) else None
        if value is None:
            raise ValueError(self.expected)
        return value


def of(annotation: object, metadata: Iterable[object]) -> Form[Any] | None:
    """The form that a field of a model has, also where the field is optional or is a list of it."""
    for part in metadata:
        form = getattr(part, "func", None)
        if isinstance(form, Form):
            return form
    inner = [argument for argument in get_args(annotation) if get_origin(argument) is Annotated]
    return of(None, inner[0].__metadata__) if inner and get_origin(annotation) in (Union, UnionType) else None


def matching(expected: str, pattern: str) -> Form[str]:
    """Text that matches a pattern from its first to its last character."""
    compiled = re.compile(pattern)
    return Form(expected, lambda text: text if compiled.fullmatch(text) else None)


def one_of(*words: str) -> Form[str]:
    """One of a few words, in any case; the value is the word as listed."""
    by_folded = {word.casefold(): word for word in words}
    return Form(" or ".join((", ".join(words[:-1]), words[-1])), lambda text: by_folded.get(text.casefold()))


def whole(low: int, high: int, what: str = "a whole number") -> Form[int]:
    """A whole number between two bounds, both allowed."""

    def parse(text: str) -> int | None:
        value = int(text) if re.fullmatch(r"[0-9]{1,12}", text) else -1
        return value if low <= value <= high else None

    return Form(f"{what} from {low} to {high}", parse)


def number(low: float, high: float, what: str = "a number") -> Form[float]:
    """A decimal number between two bounds, both allowed."""

    def parse(text: str) -> float | None:
        value = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}", text) else math.nan
        return value if low <= value <= high else None

    return Form(f"{what} from {low:g} to {high:g}", parse)


_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(low: float, high: float) -> Form[float]:
    """A length of time in seconds, written with a unit (`30s`, `1m30s`, `500ms`) or as a plain number."""

    def parse(text: str) -> float | None:
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
            value = float(text)
        elif re.fullmatch(r"([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d))+", text):
            parts = re.findall(r"([0-9.]+)(ms|s|m|h|d)", text)
            value = sum(float(count) * _DURATION_UNITS[unit] for count, unit in parts)
        else:
            return None
        return value if low <= value <= high else None

    return Form(f"a duration such as 30s or 500ms, from {low:g} to {high:.0f} seconds", parse)


#: The pause between two checks, in the env file and on the command line.
INTERVAL = duration(1, 86_400)


_SIZE_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def size(low: int) -> Form[int]:
    """A number of bytes, written as `1GB`, `512MB`, `100M`, `1.5GiB`; units count in steps of 1024."""

    def parse(text: str) -> int | None:
        match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)\s?([kmgt]?)(?:i?b)?", text, re.IGNORECASE)
        if match is None:
            return None
        value = round(float(match[1]) * 1024 ** _SIZE_UNITS[match[2].lower()])
        return value if low <= value <= 2**50 else None

    least = f", at least {low // 1024**2}MB" if low >= 1024**2 else ""
    return Form(f"a size such as 512MB or 1GB{least}", parse)


def _boolean(text: str) -> bool | None:
    words = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    return words.get(text.casefold())


def _path(text: str) -> str | None:
    clean = re.fullmatch(r"/|(/[\w.@+=-]+)+/?", text) and ".." not in text.split("/")
    return (text.rstrip("/") or "/") if clean else None


def _below_root(text: str) -> str | None:
    path = _path(text)
    return path if path and path != "/" else None


def _path_or_none(text: str) -> str | None:
    return NONE if text.casefold() == NONE else _below_root(text)


def _ip_address(text: str) -> str | None:
    try:
        return None if "%" in text else str(ipaddress.ip_address(text))
    except ValueError:
        return None


def is_ip_address(text: str) -> bool:
    """Whether it is an address rather than a name."""
    return _ip_address(text) is not None


def _file(text: str) -> str | None:
    return None if text.endswith("/") else _below_root(text)


def _file_in_directory(text: str) -> str | None:
    path = _file(text)
    return path if path and path.count("/") > 1 else None


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text if re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", text) else None


def _jump(text: str) -> str | None:
    match = re.fullmatch(r"(?:([a-z_][a-z0-9_-]{0,31})@)?([A-Za-z0-9][A-Za-z0-9._-]*)(?::([0-9]{1,5}))?", text)
    return text if match and 1 <= int(match[3] or 22) <= 65535 else None


def _server(text: str) -> str | None:
    return _address(text) if "_" not in text else None


def _image(text: str) -> Image | None:
    try:
        return Image.parse(text)
    except ValueError:
        return None


def _url(*schemes: str) -> Callable[[str], str | None]:
    def parse(text: str) -> str | None:
        if not re.fullmatch(r"[!-~]+", text):
            return None
        try:
            parts = urlsplit(text)
            return text if parts.scheme in schemes and parts.hostname and parts.port != 0 else None
        except ValueError:
            return None

    return parse


_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@" + rf"{_LABEL}(?:\.{_LABEL})*"
_MAILBOX = rf"(?:{_EMAIL}|[^<>\x00-\x1f\x7f,]{{1,100}} <{_EMAIL}>)"

HIGHEST_STABLE_PORT = 65535 - max(PORT_OFFSET.values())

TEXT = matching("text without line breaks or control characters", r"[^\x00-\x08\x0a-\x1f\x7f]*")
BOOLEAN = Form("true or false", _boolean)
PORT = whole(1, 65535, "a port")
STABLE_PORT = whole(1, HIGHEST_STABLE_PORT, "a port (the colors publish 10000 and 20000 above it)")
APP_NAME = matching("a lower-case letter, then up to 30 of a-z, 0-9 and -", r"[a-z][a-z0-9-]{0,30}")
SERVICE_NAME = matching("a lower-case letter, then up to 30 of a-z, 0-9 and -", r"[a-z][a-z0-9-]{0,30}")
ENVIRONMENT_NAME = matching("a letter, then up to 30 of a-z, A-Z, 0-9, _ and -", r"[A-Za-z][A-Za-z0-9_-]{0,30}")
WORD = matching("a letter or digit, then up to 62 of a-z, A-Z, 0-9, . _ -", r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
ENV_KEY = matching("the name of an env key, such as BACKEND_IMAGE", r"[A-Za-z_][A-Za-z0-9_]*")
TAG = matching(
    "a tag of up to 128 of a-z, A-Z, 0-9, _ . - that starts with none of . -",
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}",
)
IMAGE = Form("an image reference: repository[:tag][@sha256:…], lower-case repository", _image)
DOMAIN = matching("a domain name such as files.example.org", rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
ADDRESS = Form("an IP address, a host name or an alias of ssh_config", _address)
IP_ADDRESS = Form("an IP address", _ip_address)
USER = matching("a login name: a-z, 0-9, _ and -, at most 32", r"[a-z_][a-z0-9_-]{0,31}")
JUMP = Form("[user@]host[:port], or none", _jump)
SERVER = Form("an IP address or a host name", _server)
REGISTRY = matching(
    "a registry: host name or address, with a port where it has one", r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?"
)
HOST_PATH = Form("an absolute path of letters, digits and . _ - + = @, without ..", _below_root)
PATH_OR_NONE = Form("none, or an absolute path of letters, digits and . _ - + = @, without ..", _path_or_none)
FILE_PATH = Form("an absolute path of a file, of letters, digits and . _ - + = @, without ..", _file)
FILE_IN_DIRECTORY = Form("an absolute path of a file in a directory (its directory is mounted)", _file_in_directory)
URL_PATH = matching(
    "a path such as /health, of letters, digits and . _ ~ -", r"/(?:[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*/?)?"
)
LOCAL_FILE = matching("the path of a file here (~/ is the home directory)", r"(?!~[^/])[^\x00-\x1f\x7f]+")
SYSCTL_NAME = matching("the name of a kernel setting such as vm.swappiness", r"[a-z0-9_]+(?:\.[a-z0-9_-]+)+")
SYSCTL_VALUE = matching("whole numbers", r"[0-9]{1,19}(?: [0-9]{1,19}){0,3}")
MEMORY = size(6 * 1024**2)
SIZE = size(1)
CPUS = number(0.01, 1024, "a number of CPUs")
BATCH = matching("a number of hosts or a percentage: 1, 2, 25%, 100%", r"[1-9][0-9]{0,4}|(?:[1-9][0-9]?|100)%")
RESTART_POLICY = matching(
    "no, on-failure, on-failure:N, always or unless-stopped",
    r"no|on-failure(?::[0-9]{1,3})?|always|unless-stopped",
)
WEB_URL = Form("a URL that starts with https:// or http://", _url("https", "http"))
REDIS_URL = Form("a URL that starts with redis:// or rediss://", _url("redis", "rediss"))
EMAIL = matching("a mail address", _EMAIL)
SENDER = matching("a mail address, or Name <address>", _MAILBOX)
RECIPIENTS = matching("mail addresses, separated by commas", rf"{_MAILBOX}(?:\s*,\s*{_MAILBOX})*")
SCHEDULE = Form(schedule.EXPECTED, lambda text: text if schedule.on_calendar(text) else None)
WORKERS = matching("auto or a whole number from 1 to 999", r"auto|[1-9][0-9]{0,2}")
LOG_LEVEL = matching("a level such as debug, info, warn or error", r"[A-Za-z]{2,16}")
LANGUAGE = one_of("en", "zh-TW")
SEVERITY = one_of("info", "warning", "critical", "off")
