"""`docs/settings.md`, written from the models: `python -m fabfile.config.reference > docs/settings.md`.

It owns the wording around the tables; every key, form, default and meaning comes from the models themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fabfile.config import forms
from fabfile.config.building import Build, Building, Suite
from fabfile.config.findings import Findings
from fabfile.config.inventory import EnvironmentEntry, Host, Monitoring, Rollout, Setup
from fabfile.config.resolution import LONGEST_GATE_SECONDS
from fabfile.config.services import Drain, FullChain, Gate, Limits, Mount, Route, Service, Services
from fabfile.config.settings import Settings
from fabfile.config.validation import validate
from fabfile.config.yamlfile import read_yaml

_REQUIRED = "**required**"

_INTRODUCTION = """\
# Settings

Three files say what runs where. They are checked whole before any host is contacted; all mistakes are
reported at once, each with its file, its place, what was found and what is expected, and the exit code is 2.

This page is written by `python -m fabfile.config.reference > docs/settings.md`.

| file | says |
|---|---|
| `hosts.yaml` | which environments there are, their hosts, and how a run treats them |
| `deploy/services.yaml` | what runs: the services in upgrade order |
| `deploy/ENVIRONMENT.env` | the values, secrets included; never committed in plain text |
"""

_ENV_FILE = """\
## The env file

One `KEY=value` a line. Comments, quotes, `export` and Windows line ends work. Nothing is interpolated: a `$`
in a secret stays a `$`. An empty value counts as not set. A key that stands twice is a mistake. A key that
nothing uses is a warning, and a mistake with `--strict`. Durations take units (`500ms`, `30s`, `1m30s`,
`1h`; a plain number is seconds), and so do sizes (`512MB`, `1G`, `1.5GiB`, in steps of 1024).

- **Secrets.** Values of keys whose names say so (SECRET, PASSWORD, TOKEN, WEBHOOK, KEY, DATABASE_URL) and of
  addresses that hold a password are hidden wherever the suite prints. Paths of key files are not secrets.
- **At rest.** The file may be encrypted by age, ansible-vault or gpg; every task reads it as it is. Plain text
  that Git tracks is a mistake.
- **Placeholders.** A secret that holds what examples hold (`change-me…`, `your-super-secret…`) is a mistake in
  production and a warning elsewhere.
- **Tag.** `--tag` wins over everything; then the tag or the `@sha256:` digest in the image's own key; then
  APP_VERSION. A container that receives APP_VERSION gets the tag that was asked for.
- **Containers.** A container receives the keys that its service lists, with values of one line.
"""

_SERVICE_KEYS = """\
### Keys of the services as shipped

`deploy/services.yaml` names these keys; another file names others.
"""

_INVENTORY = """\
## hosts.yaml

`environments` holds the environments by name; there is no default one. `hosts.yaml` stands at the root of the
project. `.lab/*/hosts.yaml` has the same form and is written by the lab. A relative path is relative to the
folder of the file that names it. `--hosts` takes words, and a word is the name of a host, of a group or of a
role: all hosts that bear it are picked. An unknown key is a mistake; tabs and keys that stand twice are too.
Every value is taken as it is written: `no` and `08` need no quotes.
"""

_SERVICES = f"""\
## deploy/services.yaml

The services are upgraded in the order of the list. A value in capitals is the name of an env key. Another
service is another entry: it needs no code, and the keys it names are known from then on.

- **Ports.** Nginx listens on the stable port; the colors publish on the loopback ports 10000 (blue) and 20000
  (green) above it. No two uses of a port may meet.
- **Mounts.** A mount's key in `env` arrives as the path *inside* the container: DATABASE_PATH becomes
  `/app/data/` and the name of the file.
- **Gate.** HEALTH_CHECK_TIMEOUT, HEALTH_CHECK_START_PERIOD and HEALTH_CHECK_RETRIES of the env file complete
  it. Its deadline is at least `start period + (retries + passes) × (interval + timeout)`, so that a slow
  start is not cut short, but these keys make it no longer than {LONGEST_GATE_SECONDS:g} seconds.
"""


def text(root: Path) -> str:
    """The whole page. Raises ValueError when the shipped services cannot be read."""
    parts = [_INTRODUCTION, _ENV_FILE, _table(Settings), _SERVICE_KEYS, _service_keys(root), _INVENTORY]
    parts += _sections(
        ("environments.NAME", EnvironmentEntry),
        ("rollout", Rollout),
        ("setup", Setup),
        ("monitoring", Monitoring),
        ("hosts.NAME", Host),
    )
    parts += [_SERVICES, _table(Services)]
    parts += _sections(("services[]", Service), ("gate", Gate), ("drain", Drain), ("routes[]", Route))
    parts += _sections(("mounts[]", Mount), ("limits", Limits), ("full_chain", FullChain))
    parts += _sections(("build", Build), ("building", Building), ("suites[]", Suite))
    return "\n".join(parts)


def _sections(*named: tuple[str, type[BaseModel]]) -> list[str]:
    return [f"### `{name}`\n\n{model.__doc__}\n\n{_table(model)}" for name, model in named]


def _table(model: type[BaseModel]) -> str:
    rows = [_row(field.alias or name, field) for name, field in model.model_fields.items()]
    return "\n".join(["| key | form | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _row(name: str, field: FieldInfo) -> str:
    return _line(name, _form(field), _default(field), field.description or "")


def _line(key: str, form: str, default: str, meaning: str) -> str:
    return f"| `{key}` | {_cell(form)} | {default} | {_cell(meaning)} |"


def _form(field: FieldInfo) -> str:
    """What the form of a field expects, or the kind of structure that it is."""
    form = forms.of(field.annotation, field.metadata)
    if form is not None:
        return form.expected
    kind = str(field.annotation)
    if "tuple[" in kind:
        return "a list"
    return "text" if field.annotation is str else "keys and values"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return _REQUIRED
    value, expected = field.default, _form(field)
    if isinstance(value, Enum):
        return f"`{value.value}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value in ("", None, (), {}, 0) or isinstance(value, BaseModel):
        return ""
    if expected.startswith("a duration"):
        return f"`{value:g}s`"
    return f"`{value // 1024**2}MB`" if expected.startswith("a size") else f"`{value}`"


def _cell(content: str) -> str:
    return content.replace("|", "\\|").replace("<", "&lt;")


def _service_keys(root: Path) -> str:
    findings = Findings(root)
    content = read_yaml(root / "deploy/services.yaml", findings, remedy="the services as shipped")
    services = validate(Services, content or {}, "deploy/services.yaml", findings)
    if services is None or findings.mistakes:
        raise ValueError(f"the shipped services have mistakes: {findings.mistakes}")
    rows = [row for service in services.services for row in _keys_of(service)]
    return "\n".join(["| key | form | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _keys_of(service: Service) -> Iterator[str]:
    name, default = service.name, f"`{service.default_port}`" if service.default_port else _REQUIRED
    yield _line(service.image, forms.IMAGE.expected, _REQUIRED, f"Image of the {name}.")
    yield _line(service.port, forms.STABLE_PORT.expected, default, f"Stable port of the {name}.")
    if service.limits.memory:
        yield _line(service.limits.memory, forms.MEMORY.expected, "", f"Memory of the {name} at most.")
    if service.limits.cpus:
        yield _line(service.limits.cpus, forms.CPUS.expected, "", f"CPUs of the {name} at most.")
    for mount in service.mounts:
        need = "" if mount.optional else _REQUIRED
        what = "its directory is mounted" if mount.parent else "mounted"
        yield _line(mount.source, forms.HOST_PATH.expected, need, f"In the {name} {what} at {mount.target}.")
    for key in service.required:
        yield _line(key, "text", _REQUIRED, f"The {name} needs it.")


if __name__ == "__main__":
    sys.stdout.write(text(Path.cwd()))
