"""Validators of configuration values: each parses a text or raises ValueError with a phrase of what is expected.

Every value that becomes part of Nginx text, a Podman flag or a name has a strict validator here.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, Union, get_args, get_origin
from urllib.parse import urlsplit

from rolling_upgrade.config import schedule
from rolling_upgrade.engine.model import PORT_OFFSET, Image

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

T = TypeVar("T")

#: The word that disables a path with a default.
NONE = "none"


class Validator(Generic[T]):
    """A callable that parses a text; its ValueError carries the phrase `expected`.

    In the annotation of a pydantic field (`Annotated[int, PORT]`) it parses the value before pydantic validates it.

    Args:
        expected: The phrase.
        parse: Returns the value, or None for an invalid text.
        schema: What an editor can check, as JSON Schema. Without types, `parse` decides them: an editor reads `8080`
            as a number and `true` as a boolean.
    """

    def __init__(
        self, expected: str, parse: Callable[[str], T | None], schema: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.expected = expected
        self._parse = parse
        self._schema = schema

    def __call__(self, text: object) -> T:
        value = self._parse(text) if isinstance(text, str) else None
        if value is None:
            raise ValueError(self.expected)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core.core_schema import no_info_before_validator_function

        return no_info_before_validator_function(self, handler(source))

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: object) -> dict[str, Any]:
        types = {} if {"anyOf", "enum"} & self._schema.keys() else {"type": self._scalar_types()}
        return {**types, **self._schema, "errorMessage": f"expected {self.expected}"}

    def _scalar_types(self) -> list[str] | str:
        samples = {"number": ("1.5", "0.5"), "integer": ("1", "25", "1024"), "boolean": ("true", "false")}
        types = ["string", *(name for name, texts in samples.items() if any(map(self._accepts, texts)))]
        if "number" in types and "integer" in types:
            types.remove("integer")  # every integer is a number
        return types if len(types) > 1 else types[0]

    def _accepts(self, text: str) -> bool:
        try:
            return self._parse(text) is not None
        except ValueError:
            return False


class CommandLine(Validator[tuple[str, ...]]):
    """Validates a command: a list of arguments, or a text, which becomes the arguments of `sh -c`."""

    def __init__(self, *, may_be_empty: bool = False) -> None:
        self._may_be_empty = may_be_empty
        least = 0 if may_be_empty else 1
        super().__init__(
            "a command: a list of arguments, or a string for sh" + ("; [] for none" if may_be_empty else ""),
            lambda text: ("sh", "-c", text) if text.strip() else None,
            {"anyOf": [{"type": "string", "pattern": r"\S"}, {"type": "array", "minItems": least, "items": _SCALAR}]},
        )

    def __call__(self, value: object) -> tuple[str, ...]:
        if self._may_be_empty and value in ([], ()):
            return ()
        words = value if isinstance(value, list | tuple) else super().__call__(value)
        if not words or not all(isinstance(word, str) for word in words) or not words[0] or "\0" in "".join(words):
            raise ValueError(self.expected)
        return tuple(words)


def validator_of(annotation: object, metadata: Iterable[object]) -> Validator[Any] | None:
    """Return the validator of a model field, which may be optional."""
    for part in metadata:
        if isinstance(part, Validator):
            return part
    inner = [argument for argument in get_args(annotation) if get_origin(argument) is Annotated]
    return validator_of(None, inner[0].__metadata__) if inner and get_origin(annotation) in (Union, UnionType) else None


def text_matching(expected: str, pattern: str) -> Validator[str]:
    """Validate text that fully matches a pattern."""
    compiled = re.compile(pattern)
    schema = {"pattern": f"^(?:{pattern})$"}
    return Validator(expected, lambda text: text if compiled.fullmatch(text) else None, schema)


def is_key(text: str) -> bool:
    """Return whether a text of services.yaml is the name of an env key; any other text is a literal."""
    return re.fullmatch(r"[A-Z][A-Z0-9_]*", text) is not None


def or_key(validator: Validator[Any]) -> Validator[str]:
    """Validate the name of an env key, or a literal. A literal with a reference is validated when it is resolved."""

    def parse(text: str) -> str | None:
        if is_key(text):
            return text
        if "${" in text:
            return TEXT(text)
        try:
            validator(text)
        except ValueError:
            return None
        return text

    return Validator(f"{validator.expected}; or an env key", parse)


def one_of(*words: str) -> Validator[str]:
    """Validate one of several words in any case; the value is the word as listed."""
    by_folded = {word.casefold(): word for word in words}
    expected = " or ".join((", ".join(words[:-1]), words[-1]))
    return Validator(expected, lambda text: by_folded.get(text.casefold()), {"enum": [*words]})


def _number_schema(kind: str, low: float, high: float, text: str) -> dict[str, Any]:
    """Return the schema of a number between two bounds, or of a text of that form."""
    return {"anyOf": [{"type": kind, "minimum": low, "maximum": high}, {"type": "string", "pattern": f"^(?:{text})$"}]}


def integer(low: int, high: int, what: str = "a whole number", *, note: str = "") -> Validator[int]:
    """Validate an integer between two inclusive bounds."""

    def parse(text: str) -> int | None:
        value = int(text) if re.fullmatch(r"[0-9]{1,12}", text) else -1
        return value if low <= value <= high else None

    schema = _number_schema("integer", low, high, "[0-9]{1,12}")
    return Validator(f"{what} from {low} to {high}{note}", parse, schema)


def number(low: float, high: float, what: str = "a number") -> Validator[float]:
    """Validate a decimal number between two inclusive bounds."""

    def parse(text: str) -> float | None:
        value = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}", text) else math.nan
        return value if low <= value <= high else None

    schema = _number_schema("number", low, high, r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}")
    return Validator(f"{what} from {low:g} to {high:g}", parse, schema)


_SCALAR = {"type": ["string", "number", "boolean"]}
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(low: float, high: float) -> Validator[float]:
    """Validate a duration such as `30s`, `1m30s` or `500ms`; a plain number is seconds. The value is in seconds."""

    def parse(text: str) -> float | None:
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
            value = float(text)
        elif re.fullmatch(r"([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d))+", text):
            parts = re.findall(r"([0-9.]+)(ms|s|m|h|d)", text)
            value = sum(float(count) * _DURATION_UNITS[unit] for count, unit in parts)
        else:
            return None
        return value if low <= value <= high else None

    schema = _number_schema("number", low, high, r"([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d))+|[0-9]{1,9}(\.[0-9]{1,9})?")
    return Validator(f"a duration such as 30s or 500ms, from {low:g} to {high:.0f} seconds", parse, schema)


#: The interval between two checks, in the env file and on the command line.
INTERVAL = duration(1, 86_400)


_SIZE_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def size(low: int, high: int = 2**50) -> Validator[int]:
    """Validate a size such as `1GB`, `512MB` or `1.5GiB`; units are powers of 1024. The value is in bytes."""

    def parse(text: str) -> int | None:
        match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)\s?([kmgt]?)(?:i?b)?", text, re.IGNORECASE)
        if match is None:
            return None
        value = round(float(match[1]) * 1024 ** _SIZE_UNITS[match[2].lower()])
        return value if low <= value <= high else None

    least = f", at least {low // 1024**2}MB" if low >= 1024**2 else ""
    if high < 2**50:
        least = f", from {low // 1024}KB to {high // 1024}KB"
    schema = _number_schema("number", low, high, r"[0-9]{1,12}(\.[0-9]{1,3})?\s?[kmgtKMGT]?([iI]?[bB])?")
    return Validator(f"a size such as 512MB or 1GB{least}", parse, schema)


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
    """Return whether the text is an IP address."""
    return _ip_address(text) is not None


def is_loopback(host: str) -> bool:
    """Return whether the host name or address is a loopback."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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


#: Source: capabilities(7).
_CAPABILITY = (
    r"AUDIT_(?:CONTROL|READ|WRITE)|BLOCK_SUSPEND|BPF|CHECKPOINT_RESTORE|CHOWN|DAC_OVERRIDE|DAC_READ_SEARCH|FOWNER|FSETID|"
    r"IPC_LOCK|IPC_OWNER|KILL|LEASE|LINUX_IMMUTABLE|MAC_ADMIN|MAC_OVERRIDE|MKNOD|NET_(?:ADMIN|BIND_SERVICE|BROADCAST|RAW)|"
    r"PERFMON|SETFCAP|SETGID|SETPCAP|SETUID|SYSLOG|SYS_(?:ADMIN|BOOT|CHROOT|MODULE|NICE|PACCT|PTRACE|RAWIO|RESOURCE|TIME|"
    r"TTY_CONFIG)|WAKE_ALARM"
)


def _capability(text: str, pattern: str = _CAPABILITY) -> str | None:
    match = re.fullmatch(rf"(?:CAP_)?({pattern})", text.upper())
    return match[1] if match else None


_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@" + rf"{_LABEL}(?:\.{_LABEL})*"
#: The class of control characters, C0 except the tab, and C1; of line separators; and of characters that YAML refuses.
UNPRINTABLE = r"\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff"
_MAILBOX = rf"(?:{_EMAIL}|[^<>,\t{UNPRINTABLE}]{{1,100}} <{_EMAIL}>)"

HIGHEST_SERVICE_PORT = 65535 - max(PORT_OFFSET.values())

_BOOLEANS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)

COMMAND = CommandLine()
#: An entrypoint; an empty one runs the command itself.
ENTRYPOINT = CommandLine(may_be_empty=True)
TEXT = text_matching("text without line breaks or control characters", rf"[^{UNPRINTABLE}]*")
BOOLEAN = Validator(
    "true or false",
    lambda text: _BOOLEANS.get(text.casefold()),
    {"anyOf": [{"type": "boolean"}, {"enum": [*_BOOLEANS, 0, 1]}]},
)
PORT = integer(1, 65535, "a port")
SERVICE_PORT = integer(1024, HIGHEST_SERVICE_PORT, "a port", note=" (candidates use it plus 10000 and 20000)")
APP_NAME = text_matching("a lower-case letter, then up to 30 of a-z, 0-9 and -", r"[a-z][a-z0-9-]{0,30}")
SERVICE_NAME = text_matching("a lower-case letter, then up to 30 of a-z, 0-9 and -", r"[a-z][a-z0-9-]{0,30}")
ENVIRONMENT_NAME = text_matching("a letter, then up to 30 of a-z, A-Z, 0-9, _ and -", r"[A-Za-z][A-Za-z0-9_-]{0,30}")
WORD = text_matching("a letter or digit, then up to 62 of a-z, A-Z, 0-9, . _ -", r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
ENV_KEY = text_matching("the name of an env key, such as BACKEND_IMAGE", r"[A-Za-z_][A-Za-z0-9_]*")
TAG = text_matching(
    "a tag of up to 128 of a-z, A-Z, 0-9, _ . - that does not start with . or -",
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}",
)
IMAGE = Validator("an image reference: repository[:tag][@sha256:…], lower-case repository", _image)
DOMAIN = text_matching("a domain name such as files.example.org", rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
ADDRESS = Validator("an IP address, a host name or an ssh_config alias", _address)
IP_ADDRESS = Validator("an IP address", _ip_address)
USER = text_matching("a login name: a-z, 0-9, _ and -, at most 32", r"[a-z_][a-z0-9_-]{0,31}")
JUMP = Validator("[user@]host[:port], or none", _jump)
SERVER = Validator("an IP address or a host name", _server)
REGISTRY = text_matching(
    "a registry: a host name or IP address, with an optional port", r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?"
)
HOST_PATH = Validator(
    "an absolute path with letters, digits and . _ - + = @, without ..", _below_root, {"pattern": r"^/[^\s:]"}
)
PATH_OR_NONE = Validator("none, or an absolute path with letters, digits and . _ - + = @, without ..", _path_or_none)
FILE_PATH = Validator("an absolute path of a file, with letters, digits and . _ - + = @, without ..", _file)
FILE_IN_DIRECTORY = Validator("an absolute path of a file in a directory, which is mounted", _file_in_directory)
URL_PATH = text_matching(
    "a path such as /health, with letters, digits and . _ ~ -", r"/(?:[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*/?)?"
)
HOST_HEADER = text_matching(
    "a domain name or an IPv4 address, with an optional port",
    rf"(?=[^:]{{1,253}}(?::|$)){_LABEL}(?:\.{_LABEL})*(?::[1-9][0-9]{{0,4}})?",
)
#: Headers that frame a request, or that the checks set themselves.
_OWN_HEADERS = "Host|User-Agent|X-Forwarded-Proto|Connection|Content-Length|Expect|TE|Trailer|Transfer-Encoding|Upgrade"
HEADER_NAME = text_matching(
    "the name of a header other than Host (`host`), X-Forwarded-Proto (`scheme`), User-Agent and those of a connection",
    rf"(?!(?i:{_OWN_HEADERS})$)[A-Za-z0-9][A-Za-z0-9_-]{{0,63}}",
)
HEADER_VALUE = text_matching("printable ASCII without spaces at its ends", r"[!-~](?:[ -~]{0,2046}[!-~])?")
LOCAL_FILE = text_matching("a path on this machine (~/ is your home directory)", rf"(?!~[^/])[^\t{UNPRINTABLE}]+")
SYSCTL_NAME = text_matching("the name of a kernel setting such as vm.swappiness", r"[a-z0-9_]+(?:\.[a-z0-9_-]+)+")
SYSCTL_VALUE = text_matching("whole numbers", r"[0-9]{1,19}(?: [0-9]{1,19}){0,3}")
MEMORY = size(6 * 1024**2)
SIZE = size(1)
CPUS = number(0.01, 1024, "a number of CPUs")
BATCH = text_matching("a number of hosts or a percentage: 1, 2, 25%, 100%", r"[1-9][0-9]{0,4}|(?:[1-9][0-9]?|100)%")
RESTART_POLICY = text_matching(
    "no, on-failure, on-failure:N, always or unless-stopped",
    r"no|on-failure(?::[0-9]{1,3})?|always|unless-stopped",
)
CAPABILITY = Validator("a Linux capability such as NET_RAW: see capabilities(7)", _capability)
DROPPED_CAPABILITY = Validator(
    "a Linux capability such as NET_RAW, or ALL", lambda text: _capability(text, f"{_CAPABILITY}|ALL")
)
PIDS_LIMIT = integer(16, 4_194_304)
LOG_DRIVER = one_of("k8s-file", "journald")
LOG_SIZE = size(1024**2)
WEB_URL = Validator("a URL that starts with https:// or http://", _url("https", "http"))
HTTPS_URL = Validator("a URL that starts with https://", _url("https"))
EMAIL = text_matching("a mail address", _EMAIL)
SENDER = text_matching("a mail address, or Name <address>", _MAILBOX)
RECIPIENTS = text_matching("mail addresses, separated by commas", rf"{_MAILBOX}(?:\s*,\s*{_MAILBOX})*")
SCHEDULE = Validator(schedule.EXPECTED, lambda text: text if schedule.on_calendar(text) else None)
LANGUAGE = one_of("en", "zh-TW")
SEVERITY = one_of("info", "warning", "critical", "off")
