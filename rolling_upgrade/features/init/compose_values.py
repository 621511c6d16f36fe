"""The values of a Compose file: its interpolation, its environments, and the keys of our env file that take them.

A secret goes to the env file, any other value stays beside its service. A key that this program or another service
uses with another value gets the name of its service in front.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from rolling_upgrade.config.checks import is_placeholder
from rolling_upgrade.config.issues import conceals, is_secret
from rolling_upgrade.config.settings import KEYS
from rolling_upgrade.config.validators import is_key

#: `$$`, `$NAME`, or `${NAME}` with a default (`:-`, `-`) or a message (`:?`, `?`).
_REFERENCE = re.compile(
    r"\$(?:\$|(?P<bare>[A-Za-z_]\w*)|\{(?P<key>[A-Za-z_]\w*)(?:(?P<kind>:?[-?+])(?P<rest>(?:[^{}]|\$\{[^{}]*\})*))?\})"
)


class ComposeValues:
    """Collect the values of a Compose file for our env file."""

    def __init__(
        self, names: Mapping[str, str], dotenv: Callable[[str], Mapping[str, str]], note: Callable[[str], None]
    ) -> None:
        self._names, self._dotenv, self._note = names, dotenv, note
        try:
            self._known = dict(dotenv(".env"))
        except OSError:
            self._known = {}
        self._lines: dict[str, str] = {}
        self._replaced: dict[str, str] = {}

    def lines(self) -> dict[str, str]:
        """Return the keys and values of the env file."""
        return self._lines

    def plain(self, text: str) -> str:
        """Replace every reference with its value or default, as Compose does, but a secret with nothing.

        The result is for services.yaml, which everybody may read, and for command lines.
        """
        for key in self.secrets_in(text):
            self._note(f"{key}: a secret, which can only be in `env`; it was replaced with nothing elsewhere")
        return self._replaced_in(text, secrets=False)

    def secrets_in(self, text: str) -> list[str]:
        """Return the keys of the secrets that `plain` leaves out of a text."""
        found = []
        for match in _REFERENCE.finditer(text):
            key = match["bare"] or match["key"] or ""
            rest = (match["rest"] or "") if (match["kind"] or "").endswith("-") else ""
            value = self._known.get(key)
            used = value or self._value_of(rest)
            if used and conceals(key, used):
                found.append(key)
            elif not value:
                found += self.secrets_in(rest)
        return found

    def _value_of(self, text: str) -> str:
        """Replace every reference with its value or default; the result may be a secret."""
        return self._replaced_in(text, secrets=True)

    def _replaced_in(self, text: str, *, secrets: bool) -> str:
        def value(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            key = match["bare"] or match["key"]
            has_default = (match["kind"] or "").endswith("-")
            found = self._known.get(key) or self._value_of((match["rest"] or "") if has_default else "")
            if not found and not has_default:
                self._note(f"{key}: has no value, and was replaced with nothing in {text!r}")
            return "" if not secrets and self.secrets_in(match[0]) else found

        return _REFERENCE.sub(value, text)

    def reference(self, text: str) -> str:
        """Convert the references in a literal: `${KEY}` of ours, with a default unless the value is known."""

        def convert(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            key = match["bare"] or match["key"]
            default = self._value_of(match["rest"] or "") if (match["kind"] or "").endswith("-") else ""
            value = self._known.get(key) or (default if is_secret(key) else "")
            if value and not is_placeholder(key, value):
                return f"${{{self._keep(key, value)}}}"
            if is_secret(key) and key in self._lines:
                return f"${{{key}}}"
            if is_secret(key):
                self._note(f"{key}: write its value into the env file")
                return f"${{{self._free(key)}:-}}"
            return default if default or match["kind"] else f"${{{self._free(key)}:-}}"

        return _REFERENCE.sub(convert, text)

    def number(self, name: str, entry: Mapping[str, Any], key: str) -> int:
        """Return a number in the environment of a service, 0 for none."""
        text = self.plain(dict(self._written(name, entry)).get(key) or "")
        return int(text) if text.isdecimal() and 0 < int(text) < 65536 else 0

    def variables(self, name: str, entry: Mapping[str, Any], *, accessory: bool) -> list[Any]:
        """Return the `env` of a service, and keep its secrets for the env file."""
        found: list[Any] = []
        for variable, text in self._written(name, entry):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
                self._note(f"{name}: the variable {variable!r} has no counterpart")
            elif (form := self._variable(self._names[name], variable, text, accessory=accessory)) is not None:
                found.append(form)
        return found

    def _written(self, name: str, entry: Mapping[str, Any]) -> list[tuple[str, str | None]]:
        """Return the variables of the env files and the environment, the latter with precedence. None: passed on."""
        found: dict[str, str | None] = {}
        files = entry.get("env_file")
        for file in files if isinstance(files, list) else [files] if files else []:
            path = str(file.get("path", "")) if isinstance(file, dict) else file
            try:
                found |= {key: value.replace("$", "$$") for key, value in self._dotenv(self.plain(path)).items()}
            except OSError:
                if isinstance(file, dict) and file.get("required") == "false":
                    continue
                self._note(f"{name}: the env file {path} cannot be read; list its keys under `env`")
        environment = entry.get("environment")
        if isinstance(environment, dict):
            found |= {key: (value if isinstance(value, str) and value else None) for key, value in environment.items()}
        elif isinstance(environment, list):
            for item in environment:
                key, equals, value = str(item).partition("=")
                found[key] = value if equals else None
        return list(found.items())

    def _variable(self, service: str, name: str, text: str | None, *, accessory: bool) -> Any:
        """Return the form of one variable under `env`, None to leave it out."""
        whole = _REFERENCE.fullmatch(text) if text else None
        if text is None or (whole and whole[0] != "$$" and not (whole["kind"] or "").endswith("+")):
            key = name if text is None else (whole["bare"] or whole["key"] if whole else name)
            default = self._value_of(whole["rest"] or "") if whole and (whole["kind"] or "").endswith("-") else ""
            return self._key(service, name, key, self._known.get(key) or default, accessory=accessory)
        literal = self.reference(self._host_names(text))
        for old, new in self._replaced.items():
            literal = literal.replace(f":{old}@", f":{new}@")
        if "${" not in literal and conceals(name, literal):
            return self._key(service, name, name, literal, accessory=accessory)
        if "\n" in literal:
            return self._key(service, name, name, literal, accessory=accessory)
        written = literal if "${" in literal and "$${" not in literal else literal.replace("${", "$${")
        if is_key(written) or not written:
            return {name: {"value": written}}
        return {name: written}

    def _key(self, service: str, name: str, key: str, value: str, *, accessory: bool) -> Any:
        """Return the form of a variable whose value is in the env file."""
        if not is_secret(key) and not conceals(key, value) and value and "\n" not in value and key not in self._known:
            return {name: {"value": value.replace("${", "$${")}} if is_key(value) else {name: value}
        if value and is_placeholder(key, value) and not (accessory and is_secret(key)):
            self._note(f"{key}: the value in the Compose file is a placeholder; write your own into the env file")
            value = ""
        if accessory and is_secret(key) and key not in self._lines and (not value or is_placeholder(key, value)):
            self._note(f"{key}: a random value was written into the env file")
            old, value = value, secrets.token_urlsafe(24)
            self._replaced |= {old: value} if old else {}
        if accessory and not value and key not in self._lines:
            self._note(f"{service}: {name} has no value; add it")
            return None
        own = self._keep(key, value, service)
        return name if own == name else {name: own}

    def _free(self, key: str, service: str = "") -> str:
        """Return a key for the env file that this program does not use itself."""
        upper = re.sub(r"[^A-Z0-9_]", "_", key.upper())
        prefix = re.sub(r"[^A-Z0-9]", "_", service.upper()) or "APP"
        return f"{prefix}_{upper}" if upper in KEYS or not upper[0].isalpha() else upper

    def _keep(self, key: str, value: str, service: str = "") -> str:
        """Keep a value for the env file, and return its key."""
        own = self._free(key, service)
        if self._lines.get(own, value) not in ("", value) and value:
            own = f"{re.sub(r'[^A-Z0-9]', '_', service.upper())}_{own}" if service else own
        self._lines[own] = self._lines.get(own) or value
        return own

    def _host_names(self, text: str) -> str:
        """Replace the names of services that had to change, where a value uses them as host names."""
        for old, new in self._names.items():
            if old != new:
                text = re.sub(rf"(^|[@/,]){re.escape(old)}(?=[:/,]|$)", rf"\g<1>{new}", text)
        return text


def dotenv_text(value: str) -> str:
    """Quote a value for an env file unless it needs no quotes."""
    if re.fullmatch(r"[\w./:@+,=%-]*", value, re.ASCII):
        return value
    return "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"
