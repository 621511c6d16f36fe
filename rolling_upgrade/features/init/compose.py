"""Convert a Compose file into services and accessories, and list everything that has no counterpart.

The result is data for the templates. Whether it is valid is decided by the loader, see `workflow.py`.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rolling_upgrade.config.issues import is_secret
from rolling_upgrade.errors import ConfigIssue
from rolling_upgrade.features.init.compose_values import ComposeValues

#: Programs that keep data and are no part of a release: the start of the last part of an image's repository.
_STATEFUL = re.compile(
    r"postgres|postgis|pgvector|timescale|mariadb|mysql|percona|redis|valkey|keydb|dragonfly|memcached|mongo|rabbitmq"
    r"|clickhouse|elasticsearch|opensearch|minio|meilisearch|typesense|qdrant|nats|etcd|influxdb|neo4j|couchdb"
    r"|cassandra|kafka|zookeeper|cockroach|mssql|solr|beanstalkd"
)
#: Proxies in front of an application. Nginx on the host takes their place.
_PROXIES = re.compile(r"traefik|nginx-proxy|caddy|haproxy|envoy|certbot|acme-companion|letsencrypt|swag$")
#: Keys without effect on the result, because the configuration expresses them elsewhere or needs none.
_IGNORED = frozenset(
    {"container_name", "networks", "restart", "logging", "platform", "stdin_open", "tty", "pull_policy", "links"}
    | {"expose", "depends_on", "image", "name", "env_file", "environment", "ports", "volumes", "healthcheck", "build"}
    | {"command", "entrypoint", "deploy", "mem_limit", "cpus", "stop_grace_period", "extra_hosts", "labels"}
    | {"mem_reservation", "memswap_limit", "attach", "external_links"}
)
#: Keys with the same name and form here.
_SAME = ("user", "cap_add", "cap_drop", "tmpfs", "read_only", "shm_size", "devices", "init")
_LOCAL_URL = re.compile(
    r"(?:https?://)?(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\])(?::([0-9]{1,5}))?((?:/[A-Za-z0-9._~-]+)*/?)"
)


@dataclass
class Converted:
    """The result: the content of services.yaml, the lines of the env file, and notes for the operator."""

    services: list[dict[str, Any]] = field(default_factory=list)
    accessories: list[dict[str, Any]] = field(default_factory=list)
    release: dict[str, Any] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, issues: Sequence[ConfigIssue]) -> bool:
        """Drop the entry of the first error that is about one, and note it. Return whether there was one."""
        for issue in issues:
            match = re.match(r"(services|accessories)\[(\d+)\]\.(\w+)(?:\[(\d+)\])?", issue.path)
            listed = getattr(self, match[1]) if match else []
            if match is None or match[3] in ("name", "image") or int(match[2]) >= len(listed):
                continue
            entry, item = listed[int(match[2])], int(match[4] or 0)
            if match[3] not in entry:
                continue
            written = entry[match[3]]
            if isinstance(written, list) and match[4] and item < len(written) > 1:
                written = written.pop(item)
            else:
                del entry[match[3]]
            self.notes.append(f"{entry['name']}: {match[3]} {written} was left out: expected {issue.expected}")
            return True
        return False

    @property
    def document(self) -> dict[str, Any]:
        """The content of services.yaml."""
        listed = {"services": self.services, "accessories": self.accessories, "release": self.release}
        return {name: value for name, value in listed.items() if value}


def convert(
    content: Mapping[str, Any], app: str, host: str, folder: str, dotenv: Callable[[str], Mapping[str, str]]
) -> Converted:
    """Convert the content of a Compose file. Raises ValueError when it has no services.

    Args:
        content: The file, whose scalars are texts.
        app: The name of the application.
        host: The host of the accessories, empty when there is only one host.
        folder: The directory of the file, relative to hosts.yaml.
        dotenv: Returns the values of an env file beside the Compose file. Raises OSError.
    """
    declared = content.get("services")
    if not isinstance(declared, dict) or not all(isinstance(entry, dict) for entry in declared.values()):
        raise ValueError("a Compose file with `services`, each with keys such as `image`")
    return _Conversion(declared, app, host, folder, dotenv).run(content)


class _Conversion:
    def __init__(
        self,
        declared: Mapping[str, dict[str, Any]],
        app: str,
        host: str,
        folder: str,
        dotenv: Callable[[str], Mapping[str, str]],
    ) -> None:
        self._app, self._host, self._folder = app, host, folder
        self._names = {name: _service_name(name) for name in declared}
        self._built: dict[str, str] = {}
        self.result = Converted()
        self._declared = {name: self._readable(name, entry) for name, entry in declared.items()}
        self._values = ComposeValues(self._names, dotenv, self._note)

    def _readable(self, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keys of a service that have a form of Compose."""
        found = {key: value for key, value in entry.items() if _FORMS.get(key, _any)(value) or value == ""}
        for key in entry:
            if key not in found:
                self._note(f"{name}: {key} was left out: Compose does not have this form")
        return {key: value for key, value in found.items() if value != ""}

    def run(self, content: Mapping[str, Any]) -> Converted:
        for key in ("configs", "secrets", "include"):
            if content.get(key):
                self._note(
                    f"{key}: no counterpart; put secrets into the env file and name them in `secrets` of a service, and files into images or mounts"
                )
        proxies = [name for name, entry in self._declared.items() if self._is_proxy(entry)]
        kept = [name for name in self._declared if name not in proxies]
        for name in proxies:
            self._note(f"{name}: left out, because Nginx on the host is the proxy; build an image if it serves files")
        stateful = [name for name in kept if _STATEFUL.match(self._repository(self._declared[name]))]
        finished = self._finished(kept)
        for name in stateful:  # first, because services refer to their passwords
            self.result.accessories.append(self._accessory(name))
        for name in self._ordered([name for name in kept if name not in stateful]):
            if name in finished:
                self._add_release(name, finished[name])
            else:
                self.result.services.append(self._service(name))
        self._add_route()
        self.result.values = self._values.lines()
        for key, value in self.result.values.items():
            if is_secret(key) and not value and not any(note.startswith(f"{key}: ") for note in self.result.notes):
                self._note(f"{key}: has no value in the Compose file; write it into the env file")
        return self.result

    def _note(self, text: str) -> None:
        if text not in self.result.notes:
            self.result.notes.append(text)

    def _repository(self, entry: Mapping[str, Any]) -> str:
        """Return the last part of the repository of an image, without the tag."""
        image = self._values.plain(_text(entry.get("image"))).partition("@")[0]
        return image.rpartition("/")[2].partition(":")[0].lower()

    def _is_proxy(self, entry: Mapping[str, Any]) -> bool:
        """Return whether a service is a reverse proxy: one by its image, or an Nginx that is not built."""
        repository = self._repository(entry)
        return "build" not in entry and (
            bool(_PROXIES.match(repository)) or repository in ("nginx", "nginx-unprivileged")
        )

    def _finished(self, names: Sequence[str]) -> dict[str, str]:
        """Return the services that must end before another one starts, and that other one."""
        found: dict[str, str] = {}
        for name in names:
            needed = self._declared[name].get("depends_on")
            for other, condition in needed.items() if isinstance(needed, dict) else ():
                if isinstance(condition, dict) and condition.get("condition") == "service_completed_successfully":
                    found.setdefault(other, name)
        return {name: other for name, other in found.items() if name in names}

    def _ordered(self, names: Sequence[str]) -> list[str]:
        """Sort services behind those that they need, otherwise in the order of the file."""
        ordered: list[str] = []

        def add(name: str, path: tuple[str, ...]) -> None:
            if name in ordered or name in path or name not in names:
                return
            entry = self._declared[name]
            for other in (*_listed(entry.get("depends_on")), *_listed(entry.get("links"))):
                add(other.partition(":")[0], (*path, name))
            ordered.append(name)

        for name in names:
            add(name, ())
        return ordered

    def _add_release(self, name: str, other: str) -> None:
        command = self._command(name, "command")
        if command is None or self._declared[name].get("image") != self._declared[other].get("image"):
            self._note(f"{name}: runs before {other}; write it as `release` with a command of a service's own image")
        elif self.result.release:
            self._note(f"{name}: runs before {other}; only one command can be `release`: join them in a script")
        else:
            self.result.release = {"service": self._names[other], "command": command}

    def _service(self, name: str) -> dict[str, Any]:
        entry = self._declared[name]
        port, path = self._port(name)
        build = self._build(name) if "build" in entry else {}
        known = self._built.get(repr(build)) if build else None
        service: dict[str, Any] = {"name": self._names[name], "image": known or self._image(name)}
        if port:
            service["container_port"] = port
            service["health"] = path or "/"
            if not path:
                self._note(f"{name}: `health: /` is a guess; name the path that answers 2xx when it is healthy")
        else:
            self._note(f"{name}: without a port it is a worker; add `container_port` if it serves HTTP")
            if test := self._check(name):
                service["ready"] = {"command": test}
        if build and not known:
            service["build"] = build
            self._built[repr(build)] = service["image"]
        service |= self._common(name)
        grace = _seconds(entry.get("stop_grace_period"))
        return service | ({"drain": {"stop_seconds": grace}} if grace else {})

    def _accessory(self, name: str) -> dict[str, Any]:
        entry = self._declared[name]
        image = self._image(name, pinned=True)
        accessory: dict[str, Any] = {"name": self._names[name], "image": image}
        accessory |= {"host": self._host} if self._host else {}
        if test := self._check(name):
            accessory["health"] = test
        if entry.get("ports"):
            self._note(f"{name}: its port is not published; services reach it under the name {self._names[name]}")
        if entry.get("build"):
            self._note(f"{name}: accessories are not built; push the image yourself")
        common = self._common(name, accessory=True)
        if common.pop("entrypoint", None):
            self._note(f"{name}: entrypoint has no counterpart")
        return accessory | common

    def _image(self, name: str, *, pinned: bool = False) -> str:
        image = self._values.reference(_text(self._declared[name].get("image")))
        if not image:
            self._note(f"{name}: the image {self._app}-{self._names[name]} is a guess; name the one in your registry")
            return f"{self._app}-{self._names[name]}"
        if (
            pinned
            and "@" not in image
            and ":" not in re.sub(r"\$\{[^}]*\}", "", image).rpartition("/")[2] + (":" if image.endswith("}") else "")
        ):
            self._note(f"{name}: the tag `latest` is a guess; name the version whose data you have")
            return f"{image}:latest"
        return image

    def _common(self, name: str, *, accessory: bool = False) -> dict[str, Any]:
        """Convert what services and accessories share."""
        entry = self._declared[name]
        found: dict[str, Any] = {}
        for key in ("command", "entrypoint"):
            words = self._command(name, key)
            found |= {key: words} if words is not None else {}
        found |= {key: self._plain(entry[key]) for key in _SAME if entry.get(key)}
        found |= {"add_host": self._plain(entry["extra_hosts"])} if entry.get("extra_hosts") else {}
        if env := self._values.variables(name, entry, accessory=accessory):
            found["env"] = env
        deploy = entry.get("deploy")
        replicas = self._plain(_text(deploy.get("replicas"))) if isinstance(deploy, dict) else ""
        if replicas not in ("", "1"):
            self._note(
                f"{name}: deploy.replicas {replicas} has no counterpart: a service has one container on each host"
            )
        if limits := dict(self._limits(entry)):
            found["limits"] = limits
        for key, text in self._mounted(name):
            found.setdefault(key, []).append(text)
        written = (label for label in _assignments(entry.get("labels")) if not label.startswith(("traefik.", "caddy")))
        labels = self._plain(list(written))
        found |= {"labels": labels} if labels else {}
        if ulimits := entry.get("ulimits"):
            found["ulimits"] = [f"{key}={_limit(value)}" for key, value in dict(ulimits).items()]
        for key in entry:
            if key == "profiles":
                self._note(f"{name}: has profiles, but every service is deployed; delete it if it is for development")
            elif key not in (*_IGNORED, *_SAME, "ulimits") and not key.startswith("x-"):
                self._note(f"{name}: {key} has no counterpart")
        return found

    def _plain(self, value: Any) -> Any:
        """Replace the references in a value with texts."""
        if isinstance(value, list):
            return [self._plain(item) for item in value]
        if isinstance(value, dict):
            return {key: self._plain(item) for key, item in value.items()}
        return self._values.plain(_text(value))

    def _command(self, name: str, key: str) -> list[str] | None:
        """Return the words of a command; a text is split as Compose does, without a shell."""
        written = self._declared[name].get(key)
        if written is None or (written == "" and key == "command"):
            return None
        if self._has_secrets(name, key, written):
            return None
        try:
            words = self._plain(written) if isinstance(written, list) else shlex.split(self._plain(written))
        except ValueError:
            self._note(f"{name}: {key} has an open quote")
            return None
        return list(words)

    def _has_secrets(self, name: str, key: str, written: Any) -> bool:
        """Note the secrets in a command, which is in services.yaml and in process lists; return whether it has any."""
        found = [secret for text in _items(written) for secret in self._values.secrets_in(_text(text))]
        if found:
            self._note(
                f"{name}: {key} was left out, because it contains {', '.join(dict.fromkeys(found))}: services.yaml and"
                " process lists are not secret. Put the key into `env`, and let a shell or the program read it there"
            )
        return bool(found)

    def _check(self, name: str) -> list[str]:
        """Return the command of a health check, empty for none, and for one that contains secrets."""
        check = self._declared[name].get("healthcheck")
        test = check.get("test") if isinstance(check, dict) else None
        return [] if self._has_secrets(name, "healthcheck", test) else self._test(self._declared[name])

    def _test(self, entry: Mapping[str, Any]) -> list[str]:
        """Return the command of a health check, empty for none."""
        check = entry.get("healthcheck")
        test = check.get("test") if isinstance(check, dict) else None
        if isinstance(test, str):
            return ["sh", "-c", self._plain(test)] if test else []
        words = self._plain(test) if isinstance(test, list) else []
        if words[:1] == ["CMD-SHELL"]:
            return ["sh", "-c", " ".join(words[1:])]
        return words[1:] if words[:1] == ["CMD"] else []

    def _port(self, name: str) -> tuple[int, str]:
        """Return the port and the health path of a service; 0 and an empty text if the file does not tell them."""
        entry = self._declared[name]
        urls = list(_LOCAL_URL.finditer(" ".join(self._test(entry))))
        url = max(urls, key=lambda match: (bool(match[1]), len(match[2])), default=None)
        ports = [port for port, _ in self._published(name)] or [
            int(text) for text in map(self._plain, _listed(entry.get("expose"))) if text.isdecimal()
        ]
        asked = int(url[1] or 80) if url else 0
        labels = " ".join(self._plain(label) for label in _assignments(entry.get("labels")))
        hint = re.search(r"loadbalancer\.server\.port=([0-9]+)", labels)
        port = asked if asked in ports or not ports else ports[0]
        port = port or (int(hint[1]) if hint else 0) or self._values.number(name, entry, "PORT")
        if len(ports) > 1:
            others = ", ".join(str(other) for other in ports if other != port)
            self._note(f"{name}: {others} beside {port}: a service has one port")
        return port, (url[2] if url and asked == port else "")

    def _published(self, name: str) -> Iterator[tuple[int, int]]:
        """Yield the container's port and the host's port of each published TCP port; the latter may be 0."""
        for written in _items(self._declared[name].get("ports")):
            if isinstance(written, dict):
                inside, outside = (self._plain(_text(written.get(key))) for key in ("target", "published"))
                protocol = _text(written.get("protocol")) or "tcp"
            else:
                text, _, protocol = self._plain(written).partition("/")
                *before, inside = re.sub(r"\[[^]]*\]:", "", text).split(":")
                outside = before[-1] if before else ""
            if protocol not in ("", "tcp") or not inside.isdecimal():
                shown = written if isinstance(written, str) else f"{inside}/{protocol}"
                self._note(f"{name}: the port {shown} has no counterpart: the site serves HTTP")
            else:
                yield int(inside), int(outside) if outside.isdecimal() else 0

    def _add_route(self) -> None:
        """Route `/` to the first service with a port, preferring published web ports and then published ports."""
        ranks = {}
        for name, own in self._names.items():
            outside = [port for _, port in self._published(name)]
            ranks[own] = 0 if {80, 443} & set(outside) else 1 if outside else 2
        serving = [service for service in self.result.services if "container_port" in service]
        first = min(serving, key=lambda service: ranks[service["name"]], default=None)
        if first is None:
            self._note("no service has a port, so there is no site")
            return
        first["routes"] = ["/"]
        for service in serving:
            if service is not first and ranks[service["name"]] < 2:
                self._note(
                    f"{service['name']}: has no public path; add `routes: [/{service['name']}/]` if it needs one"
                )

    def _build(self, name: str) -> dict[str, Any]:
        written = self._declared[name]["build"]
        build = {"context": written} if isinstance(written, str) else dict(written)
        context = posixpath.normpath(posixpath.join(self._folder, self._plain(_text(build.pop("context", ".")))))
        found: dict[str, Any] = {"context": context}
        for key, ours in (("dockerfile", "file"), ("target", "target")):
            if key in build:
                found[ours] = self._plain(_text(build.pop(key)))
        if args := build.pop("args", None):
            pairs = (self._plain(pair).partition("=") for pair in _assignments(args))
            found["args"] = {key: value for key, _, value in pairs}
        for key in build:
            self._note(f"{name}: build.{key} has no counterpart")
        return found

    def _sources(self, name: str) -> tuple[str, ...]:
        """Return the build context of a service as a prefix, nothing if it is not built."""
        build = self._declared[name].get("build")
        if build is None:
            return ()
        context = build if isinstance(build, str) else build.get("context", ".")
        path = posixpath.normpath(self._plain(_text(context)))
        return ("",) if path == "." else (f"{path}/",)

    def _limits(self, entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        nested: Any = entry.get("deploy")
        for key in ("resources", "limits"):
            nested = nested.get(key) if isinstance(nested, dict) else None
        limits = nested if isinstance(nested, dict) else {}
        memory = self._plain(_text(limits.get("memory")) or _text(entry.get("mem_limit")))
        cpus = self._plain(_text(limits.get("cpus")) or _text(entry.get("cpus")))
        yield from [("memory", memory)] if memory.strip("0") else []
        yield from [("cpus", cpus)] if cpus.strip("0.") else []

    def _mounted(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield the key and the text of each volume. Sources that replace the built files are for development."""
        sources = self._sources(name)
        replaced: list[str] = []
        for written in _items(self._declared[name].get("volumes")):
            if isinstance(written, dict):
                kind, source, target = (self._plain(_text(written.get(key))) for key in ("type", "source", "target"))
                mode = "ro" if self._plain(_text(written.get("read_only"))) == "true" else ""
                if kind == "tmpfs":
                    yield "tmpfs", target
                    continue
            else:
                source, target, mode = _volume_parts(self._plain(written))
            suffix = ":ro" if "ro" in mode.split(",") else ""
            if not source:
                if any(target.startswith(f"{other.rstrip('/')}/") for other in replaced):
                    continue
                if isinstance(written, str) and ":" in written:
                    self._note(f"{name}: the source of {target} has no value; it becomes a volume")
                source = _volume_name(f"{self._names[name]}-{target}")
            if source.startswith((".", "~")):
                if sources and posixpath.join(posixpath.normpath(source), "").startswith(sources):
                    replaced.append(target)
                    self._note(f"{name}: {source} at {target} is left out: the image contains what is built from it")
                    continue
                if suffix or "." in posixpath.basename(target):
                    self._note(
                        f"{name}: {source} has no counterpart; put the file into the image, or mount an absolute path"
                    )
                    continue
                self._note(f"{name}: {source} becomes a volume; copy its content if it has data")
                source = _volume_name(source)
            if source.startswith("/"):
                yield "mounts", f"{source}:{target}{suffix}"
            else:
                yield "volumes", f"{_volume_name(source)}:{target}{suffix}"


def _any(value: object) -> bool:
    return value is not None


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(map(_is_text, value)))


def _is_text_map(value: object) -> bool:
    return _is_texts(value) or (isinstance(value, dict) and all(map(_is_text, value.values())))


def _is_list(value: object) -> bool:
    """Return whether the items of a list are texts or mappings; so may be a single text."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str | dict) for item in value))


def _is_ulimits(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text_map, value.values()))


def _is_check(value: object) -> bool:
    return isinstance(value, dict) and _is_texts(value.get("test", ""))


def _is_build(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and _is_text_map(value.get("args", "")))


#: What the value of a key may be.
_FORMS: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(
        ("image", "mem_limit", "cpus", "stop_grace_period", "user", "shm_size", "read_only", "init"), _is_text
    ),
    **dict.fromkeys(("command", "entrypoint", "tmpfs", "cap_add", "cap_drop", "devices", "expose", "links"), _is_texts),
    **dict.fromkeys(("labels", "extra_hosts"), _is_text_map),
    "environment": lambda value: not isinstance(value, str) and _is_text_map(value),
    **dict.fromkeys(("env_file", "ports", "volumes"), _is_list),
    "depends_on": lambda value: isinstance(value, dict) or (isinstance(value, list) and all(map(_is_text, value))),
    "ulimits": _is_ulimits,
    "healthcheck": _is_check,
    "build": _is_build,
}


def _service_name(text: str) -> str:
    name = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:31] or "service"
    return name if name[0].isalpha() else f"s-{name}"[:31]


def _volume_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", text).strip("-") or "data"


def _volume_parts(text: str) -> tuple[str, str, str]:
    """Split `[SOURCE:]TARGET[:MODE]`."""
    words = text.split(":")
    if len(words) == 1:
        return "", words[0], ""
    return words[0], words[1], words[2] if len(words) > 2 else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _listed(value: Any) -> list[str]:
    """Return the names in a list or a mapping."""
    return [str(item) for item in (value if isinstance(value, list) else list(value or ()))]


def _assignments(value: Any) -> list[str]:
    """Return a list of NAME=VALUE from either form."""
    if isinstance(value, dict):
        return [f"{key}={_text(item)}" for key, item in value.items()]
    return [item for item in _items(value) if isinstance(item, str)]


def _limit(value: Any) -> str:
    return f"{value.get('soft')}:{value.get('hard')}" if isinstance(value, dict) else str(value)


def _seconds(value: Any) -> str:
    """Return a duration that is not zero, empty for none."""
    text = _text(value)
    return text if re.search(r"[1-9]", text) else ""
