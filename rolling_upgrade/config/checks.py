"""Checks of one environment that need more than one value: duplicates, references, unknown keys, mounts."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from rolling_upgrade.config import validators
from rolling_upgrade.config.accessories import check_accessories
from rolling_upgrade.config.inventory import EnvironmentEntry, Inventory
from rolling_upgrade.config.issues import Issues, conceals, is_secret, known_key, nearest
from rolling_upgrade.config.jobs import check_jobs
from rolling_upgrade.config.services import Services
from rolling_upgrade.config.settings import KEYS
from rolling_upgrade.config.site import Route
from rolling_upgrade.config.values import Values
from rolling_upgrade.config.workers import check_workers
from rolling_upgrade.engine.model import MONITORING_HOST, Accessory, Application, Certificate, Service
from rolling_upgrade.errors import PROGRAM

#: Keys that a host cannot override, because all hosts of an environment run one application.
FIXED_KEYS = ("APP_NAME", "ENVIRONMENT", "SLACK_WEBHOOK", "WEBHOOK_URL")
#: Prefixes of keys that a host cannot override, because a run notifies the same channels for all hosts.
FIXED_PREFIXES = ("SMTP_", "NOTIFY_")

#: Keys of log files, which setup rotates if `rotate_logs_days` is set.
LOG_KEYS = ("LOG_FILE", "ACCESS_LOG", "ERROR_LOG")

#: Placeholders that examples contain in place of a secret.
_PLACEHOLDER = re.compile(
    r"change[-_ ]?(?:me|this|it\b|in[-_])|replace[-_ ]?(?:me|this|with)|place-?holder|super[-_]secret"
    r"|(?:^|[/:@=])your[-_/ ]|^(?:insert|enter|example|sample|dummy|todo|fixme)(?:[-_/ ]|$)"
    r"|^(?:secret|password|passwd|default|example|sample|dummy|test|none|null|token|key|x{3,}|\*{3,}|\.{3,}|<.*>)$",
    re.IGNORECASE,
)

#: The remedy for a placeholder.
OWN_VALUE = "a secret of your own, for example from `openssl rand -base64 48`"


def check_inventory(inventory: Inventory, file: str, complete: bool, issues: Issues) -> None:
    """Check that every environment has hosts and lists each host once.

    `complete` is false when invalid parts were removed: a missing host may be one of them.
    """
    for name, entry in inventory.environments.items():
        place = f"environments.{name}.hosts"
        if complete and not entry.hosts:
            issues.add(file, place, found="", expected="at least one host")
        if entry.env_command and entry.env_file:
            found = "both a command and env_file"
            issues.add(
                file, f"environments.{name}.env_command", found=found, expected="one of env_command and env_file"
            )
        _check_addresses(entry, place, file, issues)
        _check_group_names(entry, place, file, issues)
        if entry.monitoring.address and MONITORING_HOST in entry.hosts:
            found = "the reserved name of the monitoring host"
            issues.add(file, f"{place}.{MONITORING_HOST}", found=found, expected="a different name")


def _check_addresses(entry: EnvironmentEntry, place: str, file: str, issues: Issues) -> None:
    seen: dict[tuple[str, int], str] = {}
    for name, host in entry.hosts.items():
        address, port = host.address or name, host.port or entry.port
        other = seen.setdefault((address.casefold(), port), name)
        if other != name:
            found = f"{address} port {port}, the address of {other}"
            issues.add(file, f"{place}.{name}", found=found, expected="a different address or port")


def _check_group_names(entry: EnvironmentEntry, place: str, file: str, issues: Issues) -> None:
    for name, host in entry.hosts.items():
        for word in dict.fromkeys((*host.roles, *host.groups)):
            if word in entry.hosts and word != name:
                found = f"the group or role {word}, which is the name of a host"
                issues.add(file, f"{place}.{name}", found=found, expected="a different name")


def check_setup(entry: EnvironmentEntry, file: str, place: str, values: Iterable[Values], issues: Issues) -> None:
    """Check that setup's certificate matches the site, and that ACME has a mail address."""
    setup = entry.setup
    if setup.certificate is Certificate.ACME and not setup.acme_email:
        issues.add(file, f"{place}.acme_email", found="", expected="a mail address, because certificate is acme")
    for host_values in values:
        for key in LOG_KEYS if setup.rotate_logs_days else ():
            host_values.read(key, validators.FILE_PATH)
        path = host_values.get("SSL_CERT_PATH")
        if setup.certificate is Certificate.ACME and path.startswith("/etc/letsencrypt/"):
            host_values.reject(
                "SSL_CERT_PATH",
                expected="a path outside /etc/letsencrypt: setup copies the ACME certificate to this path",
            )
    plain = [host_values for host_values in values if host_values.get("PROTOCOL") != "https"]
    if setup.certificate is not Certificate.FILES and plain:
        found = f"{setup.certificate.value}, but PROTOCOL is http"
        issues.add(file, f"{place}.certificate", found=found, expected="PROTOCOL=https in the env file, or `files`")


#: Directories in which any user can create files.
_WORLD_WRITABLE = ("/tmp", "/var/tmp", "/dev/shm", "/run/user", "/run/lock")  # noqa: S108 - not used as temporary files


def check_certificate_paths(app: Application, user: str, values: Values) -> None:
    """Check that only root can write the directories of the certificate and its key, which Nginx opens as root.

    Setup checks the directories on the host: see features/setup/certificate.py.
    """
    if app.tls is None:
        return
    data = (directory.path for directory in data_directories(app))
    writable = () if user == "root" else (app.home, home_of(user), *app.log_directories, *data)
    paths = {
        "SSL_CERT_PATH": app.tls.certificate,
        "SSL_KEY_PATH": app.tls.key,
        "SSL_CHAIN_PATH": app.tls.chain,
    }
    for key, path in paths.items():
        parent = next((parent for parent in (*_WORLD_WRITABLE, *writable) if path.startswith(f"{parent}/")), "")
        if parent:
            who = "any user" if parent in _WORLD_WRITABLE else user
            why = f"{who} could replace a path below {parent} with a link that root follows"
            values.reject(key, expected=f"a path in directories that only root can write, such as /etc/ssl: {why}")


def check_services(services: Services, file: str, complete: bool, issues: Issues) -> None:
    """Check that names, aliases, routes and mount targets are unique, and that services named elsewhere exist.

    `complete` is false when invalid services were removed: a missing service may be one of them.
    """
    listed = list(enumerate(services.services))
    names = [(f"services[{index}].name", service.name) for index, service in listed]
    aliases = [
        (f"services[{index}].alias", service.alias or service.name)
        for index, service in listed
        if service.alias or service.container_port is not None
    ]
    targets = [
        [
            *(
                (f"services[{index}].mounts[{number}].target", mount.target)
                for number, mount in enumerate(service.mounts)
            ),
            *((f"services[{index}].secrets[{number}]", secret.path) for number, secret in enumerate(service.secrets)),
            *((f"services[{index}].{place}", target) for place, target in service.targets),
        ]
        for index, service in listed
    ]
    for group in (names, aliases, *targets):
        _check_distinct(group, file, issues)
    check_workers(services, file, complete, issues)
    taken = [
        name for service in services.services for name in dict.fromkeys((service.name, service.alias or service.name))
    ]
    check_accessories(services.accessories, taken, file, issues)
    check_jobs(services, file, complete, issues)
    _check_routes(services, file, issues)
    known = [service.name for service in services.services]
    named = {"full_chain.service": services.full_chain, "release.service": services.release}
    for place, entry in named.items():
        if complete and entry is not None and entry.service and entry.service not in known:
            issues.add(file, place, found=repr(entry.service), expected=f"one of {', '.join(known)}")


def check_placement(entry: EnvironmentEntry, services: Services, file: str, complete: bool, issues: Issues) -> None:
    """Check that a host has each role of a service, and warn about hosts that run no service.

    `complete` is false when invalid services were removed: one of them may run there.
    """
    known = tuple(dict.fromkeys(role for host in entry.hosts.values() for role in host.roles))
    for index, service in enumerate(services.services):
        for number, role in enumerate(service.roles):
            if entry.hosts and role not in known:
                expected = f"a role of a host in hosts.yaml: {', '.join(known) or 'no host has one yet'}"
                issues.add(file, f"services[{index}].roles[{number}]", found=repr(role), expected=expected)
    for name, host in entry.hosts.items():
        if complete and not any(service.runs_on(host.roles) for service in services.services):
            roles = f"the roles {', '.join(host.roles)}" if host.roles else "no role"
            issues.warn(f"{file}: no service runs on {name}, which has {roles}")


def _check_routes(services: Services, file: str, issues: Issues) -> None:
    """Check that no two routes of one domain have the same prefix; a route without domains is one of all of them."""
    seen: list[tuple[str, Route]] = []
    for index, service in enumerate(services.services):
        for number, route in enumerate(service.routes):
            place = f"services[{index}].routes[{number}].prefix"
            for other, earlier in seen:
                alike = not route.domains or not earlier.domains or set(route.domains) & set(earlier.domains)
                if earlier.prefix == route.prefix and alike:
                    found = f"{route.prefix!r}, already used by {other}"
                    issues.add(file, place, found=found, expected="a unique value")
            seen.append((place, route))


def _check_distinct(group: Iterable[tuple[str, str]], file: str, issues: Issues) -> None:
    seen: dict[str, str] = {}
    for place, value in group:
        if value in seen:
            issues.add(file, place, found=f"{value!r}, already used by {seen[value]}", expected="a unique value")
        seen.setdefault(value, place)


def check_known_keys(values: Mapping[str, str], known: set[str], file: str, strict: bool, issues: Issues) -> None:
    """Report keys that no setting and no service uses: as warnings, or as errors when strict."""
    for key in values:
        if key in known:
            continue
        if strict:
            issues.add(file, key, found="an unknown key", expected=known_key(key, sorted(known)))
        else:
            near = nearest(key, sorted(known))
            hint = f" (did you mean {near}?)" if near else ""
            issues.warn_at(file, key, f"unknown, without effect{hint}")


def check_secrets(services: Services, hosts: Iterable[Values], strict: bool, issues: Issues) -> None:
    """Report secrets that a service lists and the env file lacks: as warnings, or as errors when strict.

    Other keys may be absent: the application has a default. An empty value states that a secret is absent.
    """
    for values in hosts:
        present = values.merged
        lacking: dict[str, list[str]] = {}
        for service in services.services:
            keys = [variable.key for variable in service.variables if variable.key not in (*present, *service.required)]
            for key in dict.fromkeys(filter(is_secret, keys)):
                if key != "DATABASE_URL" or not present.get("DATABASE_PATH"):
                    lacking.setdefault(key, []).append(service.name)
        for key, names in lacking.items():
            listed = f"service{'s' if len(names) > 1 else ''} {', '.join(names)}"
            if strict:
                values.reject(key, expected=f"a value for the {listed}, or {key}= for none")
            else:
                start, need = ("starts", "it needs") if len(names) == 1 else ("start", "they need")
                text = f"not set, so the {listed} {start} without it; write {key}= if {need} none"
                issues.warn_at(values.env_file, key, text)


def check_shared_keys(services: Services, hosts: Iterable[Values], issues: Issues) -> None:
    """Warn about keys of this program's notifications that a service also gets."""
    for values in hosts:
        for service in services.services:
            for variable in service.variables:
                key = variable.key
                is_ours = key in _SECRET_URLS or (key.startswith("SMTP_") and key in KEYS)
                if is_ours and values.get(key):
                    other = f"{variable.name}: {service.name.upper().replace('-', '_')}_{key}"
                    text = f"configures notifications of rolling-upgrade, and the service {service.name} gets it too"
                    issues.warn_at(values.env_file, key, f"{text}; for separate values, write `{other}` under `env`")


#: URLs that are secret, because anyone who knows one can post to it.
_SECRET_URLS = ("SLACK_WEBHOOK", "WEBHOOK_URL")


def check_plaintext_urls(values: Iterable[Values], strict: bool, issues: Issues) -> None:
    """Report secret http:// URLs of other machines: as warnings, or as errors when strict."""
    for merged in values:
        for key in _SECRET_URLS:
            try:
                url = urlsplit(merged.get(key))
            except ValueError:
                continue  # the validator of the key reports it
            if url.scheme != "http" or validators.is_loopback(url.hostname or ""):
                continue
            if strict:
                expected = "https://: anyone on the network path can read the URL and the messages over http"
                merged.reject(key, expected=expected)
            else:
                text = "http:// lets anyone on the network path read the URL and the messages; use https://"
                issues.warn_at(merged.env_file, key, text)


def check_overrides(environment: str, entry: EnvironmentEntry, known: set[str], file: str, issues: Issues) -> None:
    """Check that hosts override known keys only, and none that must be the same on all hosts."""
    for name, host in entry.hosts.items():
        for key in host.env:
            place = f"environments.{environment}.hosts.{name}.env.{key}"
            if key in FIXED_KEYS or (key in known and key.startswith(FIXED_PREFIXES)):
                issues.add(file, place, found="an override", expected=f"the same {key} on all hosts")
            elif key not in known:
                issues.add(file, place, found="an unknown key", expected=known_key(key, sorted(known)))


def is_placeholder(key: str, text: str) -> bool:
    """Return whether the value of a secret key is a placeholder from an example."""
    return conceals(key, text) and bool(_PLACEHOLDER.search(text))


def check_placeholders(hosts: Iterable[Values], production: bool, issues: Issues) -> None:
    """Report placeholders in place of secrets: as errors in production, as warnings elsewhere."""
    for values in hosts:
        for key in values.merged:
            if not is_placeholder(key, values.get(key)):
                continue
            if not production:
                issues.warn_at(values.env_file, key, "a placeholder; replace it with a secret of your own")
            elif key in values.overrides:
                values.reject(key, found="a placeholder", expected=OWN_VALUE)
            else:
                issues.add(values.env_file, key, found="a placeholder", expected=OWN_VALUE)


def report_tracked(environment: str, file: str, issues: Issues) -> None:
    """Report a plaintext env file that Git tracks: every clone of the repository would contain its secrets."""
    issues.add(
        file,
        "",
        found="plaintext secrets in a file that Git tracks",
        expected=f"an encrypted file ({PROGRAM} secrets.encrypt --env {environment}) or an untracked one "
        f"(git rm --cached {file}); committed values stay in the history, so replace the secrets",
    )


#: Names in the application's own directory that this project uses; other names are free for data.
_RESERVED = ("assets", "backups", "config", "jobs", "journal", "live", "lock", "watchdog")
#: Names in the deploy user's home directory that grant access or contain programs.
_PERSONAL = (".config", ".local", ".ssh")
#: Directories that cannot be mounted, and nothing below them.
_SYSTEM = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr"),
    *("/run/docker.sock", "/run/podman", "/run/systemd", "/run/user", "/var/lib/containers", "/var/spool"),
)
#: Directories that cannot be mounted as a whole.
_SHARED = ("/home", "/root", "/run", "/tmp", "/var", "/var/lib", "/var/log", "/var/run", "/var/tmp")  # noqa: S108


@dataclass(frozen=True)
class Directory:
    """A directory, or the directory of a file (`file`), that an env key or a literal of services.yaml names.

    `place` is the place of a mount in services.yaml.
    """

    name: str
    path: str
    file: bool = False
    read_only: bool = False
    place: str = ""


def contains(directory: str, path: str) -> bool:
    """Return whether the path is the directory or inside it, by name."""
    return f"{posixpath.normpath(path)}/".startswith(f"{posixpath.normpath(directory)}/")


def home_of(user: str) -> str:
    """Return the home directory of a deploy user."""
    return "/root" if user == "root" else f"/home/{user}"


def check_mounts(app: Application, user: str, declared: Services, values: Values) -> None:
    """Report writable mounts of directories that the host relies on, and any mount of private directories.

    A container can replace anything it can write with a link, so no such directory may be inside a writable mount.
    """
    data = tuple(data_directories(app))
    mounts = tuple(dict.fromkeys(_mounts(declared, values, data)))
    for mount in mounts:
        why = _private(mount, app, user)
        if not why and not mount.read_only:
            why = _overlap(mount, (*mounts, *data)) or _system_directory(mount)
        if why:
            what = "a file in a separate directory" if mount.file else "a separate directory"
            expected = f"{what}: the container gets all of {mount.path}, and {why}"
            values.reject_declared(mount.name, mount.place, expected=expected)


def check_mount_owners(app: Application, values: Values) -> None:
    """Report a directory to which two mounts give different owners."""
    owners: dict[str, str] = {}
    containers: tuple[Service | Accessory, ...] = (*app.services, *app.accessories)
    for container in containers:
        for mount in (mount for mount in container.mounts if mount.owner):
            owner = owners.setdefault(mount.source, mount.owner)
            if owner != mount.owner:
                found = f"owner {mount.owner} of {mount.source} in {container.name}, and {owner} in another mount"
                values.issues.add(values.services_file, "mounts", found=found, expected="one owner of a directory")


def _mounts(declared: Services, values: Values, data: tuple[Directory, ...]) -> Iterator[Directory]:
    """Yield the mounts. A literal that is the path of a key has the name of the key."""
    keys = {directory.path: directory.name for directory in data if directory.name not in BACKUP_KEYS}
    for number, service in enumerate(declared.services):
        for index, mount in enumerate(service.mounts):
            place = f"services[{number}].mounts[{index}].source"
            validator = validators.FILE_IN_DIRECTORY if mount.parent else validators.HOST_PATH
            path = values.resolve(mount.source, validator, place)
            if path:
                source = posixpath.normpath(posixpath.dirname(path) if mount.parent else path)
                name = mount.source if validators.is_key(mount.source) else keys.get(source, mount.source)
                yield Directory(name, source, mount.parent, mount.read_only, place)


#: The keys of directories with backups, which no container may write.
BACKUP_KEYS = ("DATABASE_BACKUP_PATH", "UPLOADS_BACKUP_PATH")


def data_directories(app: Application) -> Iterator[Directory]:
    """Yield the configured directories of the application's data."""
    named = (
        Directory("DATABASE_PATH", posixpath.dirname(app.database), file=True),
        Directory("DATABASE_BACKUP_PATH", app.database_backups),
        Directory("UPLOADS_PATH", app.uploads),
        Directory("UPLOADS_BACKUP_PATH", app.uploads_backups),
        Directory("CONFIG_PATH", app.config_path),
    )
    yield from (directory for directory in named if directory.path)


def _private(mount: Directory, app: Application, user: str) -> str:
    for directory, description, reserved in (
        (app.home, "which contains programs and secrets", _RESERVED),
        (home_of(user), f"the home directory of {user}", _PERSONAL),
    ):
        if contains(mount.path, directory):
            return f"it is or contains {directory}, {description}"
        for name in reserved:
            if contains(f"{directory}/{name}", mount.path):
                return f"it is inside {directory}/{name}, which no container may access"
    return ""


def _overlap(mount: Directory, others: tuple[Directory, ...]) -> str:
    """Explain an overlap with another directory. Two files may share a directory, services may share a mount."""
    for other in others:
        if other.name == mount.name or not contains(mount.path, other.path):
            continue
        if contains(other.path, mount.path) and other.file and mount.name != "UPLOADS_PATH":
            continue
        return f"it is or contains {other.path} of {other.name}, which the container could replace with a link"
    return ""


def _system_directory(mount: Directory) -> str:
    # On Debian, /var/run is a link to /run.
    path = re.sub(r"^/var/run(?=/)", "/run", mount.path)
    parent = next((directory for directory in _SYSTEM if contains(directory, path)), "")
    if parent or mount.path in _SHARED:
        return f"{parent or mount.path} belongs to the system"
    return ""
