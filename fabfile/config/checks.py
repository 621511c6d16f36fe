"""Checks that need more than one value: duplicates, names that must exist, unknown keys. It reads no file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from fabfile.config.findings import Findings, conceals, nearest
from fabfile.config.inventory import EnvironmentEntry, Inventory
from fabfile.config.resolution import Values
from fabfile.config.services import Services
from fabfile.model import MONITORING_HOST, Certificate

#: One application stands under one name in one environment: hosts cannot differ in these.
FIXED_KEYS = ("APP_NAME", "ENVIRONMENT", "SLACK_WEBHOOK", "WEBHOOK_URL")
#: The same for all keys that begin so: a run over many hosts tells one set of channels.
FIXED_PREFIXES = ("SMTP_", "NOTIFY_")

#: What stands in examples where a secret belongs, in whole or in part.
_PLACEHOLDER = re.compile(
    r"change[-_ ]?(?:me|this|it\b|in[-_])|replace[-_ ]?(?:me|this|with)|place-?holder|super[-_]secret"
    r"|(?:^|[/:@=])your[-_/ ]|^(?:insert|enter|example|sample|dummy|todo|fixme)(?:[-_/ ]|$)"
    r"|^(?:secret|password|passwd|default|example|sample|dummy|test|none|null|token|key|x{3,}|\*{3,}|\.{3,}|<.*>)$",
    re.IGNORECASE,
)


#: What belongs in the place of a placeholder.
OWN_VALUE = "a secret of your own, for example what `openssl rand -base64 48` prints"


def check_inventory(inventory: Inventory, file: str, whole: bool, findings: Findings) -> None:
    """Every environment has hosts, and each host stands in it once.

    `whole` is false when something faulty was left out: then what seems to be missing may only be left out.
    """
    for name, entry in inventory.environments.items():
        place = f"environments.{name}.hosts"
        if whole and not entry.hosts:
            findings.add(file, place, found="no host", expected="at least one host")
        _check_addresses(entry, place, file, findings)
        _check_words(entry, place, file, findings)
        if entry.monitoring.address and MONITORING_HOST in entry.hosts:
            found = "a host of this name beside the monitoring host"
            findings.add(file, f"{place}.{MONITORING_HOST}", found=found, expected="another name")


def _check_addresses(entry: EnvironmentEntry, place: str, file: str, findings: Findings) -> None:
    seen: dict[tuple[str, int], str] = {}
    for name, host in entry.hosts.items():
        address, port = host.address or name, host.port or entry.port
        other = seen.setdefault((address.casefold(), port), name)
        if other != name:
            found = f"{address} port {port}, which is {other} already"
            findings.add(file, f"{place}.{name}", found=found, expected="each host once")


def _check_words(entry: EnvironmentEntry, place: str, file: str, findings: Findings) -> None:
    for name, host in entry.hosts.items():
        for word in dict.fromkeys((*host.roles, *host.groups)):
            if word in entry.hosts and word != name:
                found = f"the group or role {word}, which is a host too"
                findings.add(file, f"{place}.{name}", found=found, expected="another name")


def check_setup(entry: EnvironmentEntry, file: str, place: str, values: Iterable[Values], findings: Findings) -> None:
    """A certificate is made only for a site that has one, and an authority is told whom to write to."""
    setup = entry.setup
    if setup.certificate is Certificate.ACME and not setup.acme_email:
        findings.add(file, f"{place}.acme_email", found="nothing", expected="a mail address (required by acme)")
    for one in values:
        if setup.certificate is Certificate.ACME and one.get("SSL_CERT_PATH").startswith("/etc/letsencrypt/"):
            one.add("SSL_CERT_PATH", expected="a path outside of certbot's own: acme copies the certificate there")
    plain = [one for one in values if one.get("PROTOCOL") != "https"]
    if setup.certificate is not Certificate.FILES and plain:
        found = f"{setup.certificate.value}, while the site is served over http"
        findings.add(file, f"{place}.certificate", found=found, expected="PROTOCOL=https in the env file, or `files`")


def check_services(services: Services, file: str, whole: bool, findings: Findings) -> None:
    """Names, aliases, routes and targets stand once, and the full chain's service exists.

    `whole` is false when a faulty service was left out: then what seems not to exist may only be left out.
    """
    listed = list(enumerate(services.services))
    names = [(f"services[{index}].name", service.name) for index, service in listed]
    aliases = [(f"services[{index}].alias", service.alias or service.name) for index, service in listed]
    routes = [
        (f"services[{index}].routes[{number}].prefix", route.prefix)
        for index, service in listed
        for number, route in enumerate(service.routes)
    ]
    groups = [names, aliases, routes]
    for index, service in listed:
        groups.append(
            [(f"services[{index}].mounts[{n}].target", mount.target) for n, mount in enumerate(service.mounts)]
        )
    for group in groups:
        _check_distinct(group, file, findings)
    chain = services.full_chain
    known = [service.name for service in services.services]
    if whole and chain is not None and chain.service not in known:
        findings.add(file, "full_chain.service", found=repr(chain.service), expected=f"one of {', '.join(known)}")


def _check_distinct(group: Iterable[tuple[str, str]], file: str, findings: Findings) -> None:
    seen: dict[str, str] = {}
    for place, value in group:
        if value in seen:
            findings.add(file, place, found=f"{value!r}, which {seen[value]} has", expected="each once")
        seen.setdefault(value, place)


def check_known_keys(values: Mapping[str, str], known: set[str], file: str, strict: bool, findings: Findings) -> None:
    """A key that neither the suite nor a service names is a warning, and a mistake when strict."""
    for key in values:
        if key in known:
            continue
        near = nearest(key, sorted(known))
        if strict:
            expected = f"a known key; the nearest is {near}" if near else "a known key"
            findings.add(file, key, found="an unknown key", expected=expected)
        else:
            hint = f"; the nearest known key is {near}" if near else ""
            findings.warn(f"{file}: nothing uses the key {key}{hint}")


def check_overrides(environment: str, entry: EnvironmentEntry, known: set[str], file: str, findings: Findings) -> None:
    """A host overrides known keys only, and none that must be the same everywhere."""
    for name, host in entry.hosts.items():
        for key in host.env:
            place = f"environments.{environment}.hosts.{name}.env.{key}"
            if key in FIXED_KEYS or (key in known and key.startswith(FIXED_PREFIXES)):
                findings.add(file, place, found="an override", expected=f"one {key} for all hosts")
            elif key not in known:
                near = nearest(key, sorted(known))
                expected = f"a known key; the nearest is {near}" if near else "a known key"
                findings.add(file, place, found="an unknown key", expected=expected)


def is_placeholder(key: str, text: str) -> bool:
    """Whether a secret holds what stands in examples."""
    return conceals(key, text) and bool(_PLACEHOLDER.search(text))


def check_placeholders(every: Iterable[Values], lines: Mapping[str, int], production: bool, findings: Findings) -> None:
    """A secret that still holds what an example says is a mistake in production and a warning elsewhere."""
    for values in every:
        for key in values.merged:
            if not is_placeholder(key, values.get(key)):
                continue
            if not production:
                findings.warn(f"{values.env_file}: {key} still holds a placeholder; give it a secret of your own")
            elif key in values.overrides:
                values.add(key, found="a placeholder", expected=OWN_VALUE)
            else:
                place = f"line {lines[key]}: {key}"
                findings.add(values.env_file, place, found="a placeholder", expected=OWN_VALUE)


def refuse_tracked(environment: str, file: str, findings: Findings) -> None:
    """An env file in plain text that Git tracks is a mistake: whoever has the repository has its secrets."""
    findings.add(
        file,
        "",
        found="secrets in plain text in a file that Git tracks",
        expected=f"an encrypted file (inv secrets.encrypt --env {environment}) or an untracked one "
        f"(git rm --cached {file}); what was committed stays in the history: give its secrets new values",
    )
