"""`load` step by step: read the three files, check them together, build the environment.

It contacts nothing. Every reader adds to one list of findings, and only the end raises.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fabfile import model
from fabfile.config import checks, forms
from fabfile.config.at_rest import keyring
from fabfile.config.building import pipeline
from fabfile.config.envfile import EnvFile, parse_env, read_env
from fabfile.config.findings import Findings, secret_values
from fabfile.config.inventory import EnvironmentEntry, Host
from fabfile.config.locating import Located, expanded, locate
from fabfile.config.resolution import Values, resolve
from fabfile.config.services import Services
from fabfile.config.settings import KEYS
from fabfile.config.signing_key import read_signing_key
from fabfile.config.tracking import is_tracked
from fabfile.config.validation import validate
from fabfile.config.yamlfile import read_yaml
from fabfile.errors import ConfigError, Mistake

_SERVICES_REMEDY = "the file that describes the services"


def load_environment(
    environment: str | None, *, root: Path, hosts: Sequence[str], tag: str, strict: bool, prompt: bool
) -> model.Environment:
    """Read and check the three files. Raises ConfigError with every mistake."""
    root = root.resolve()
    findings = Findings(root)
    found = locate(environment, root, findings)
    env = read_base(found, findings, prompt=prompt)
    return load_located(found, env, findings, hosts=hosts, tag=tag, strict=strict)


def load_suites(root: Path) -> tuple[model.Suite, ...]:
    """The suites of the services file as it lies in every clone. Raises ConfigError."""
    findings = Findings(root.resolve())
    path = root.resolve() / "deploy/services.yaml"
    content = read_yaml(path, findings, remedy=_SERVICES_REMEDY)
    services = validate(Services, content, findings.name(path), findings) if content is not None else None
    if services is None or findings.mistakes:
        raise refusal(findings.name(path), findings)
    return pipeline(services, lambda name: Path(os.path.normpath(root.resolve() / expanded(name)))).suites


def mistakes_with(environment: str, text: str, *, root: Path) -> tuple[Mistake, ...]:
    """What `load_environment` would refuse if this text were the env file."""
    findings = Findings(root.resolve())
    found = locate(environment, root.resolve(), findings)
    env = parse_env(text, findings.name(found.env_file), findings)
    try:
        load_located(found, env, findings, hosts=(), tag="", strict=False)
    except ConfigError as error:
        return error.mistakes
    return ()


def read_base(found: Located, findings: Findings, *, prompt: bool) -> EnvFile | None:
    """The env file, opened where it is encrypted; `prompt` says whether a person may be asked for a password."""
    env = read_env(found.env_file, findings, keyring(found, prompt=prompt))
    if env is not None and env.form is None:
        file, tracked = findings.name(found.env_file), is_tracked(found.env_file)
        if tracked:
            checks.refuse_tracked(found.name, file, findings)
        if tracked is None:
            findings.warn(f"{file} is plain text, and git cannot tell here whether it would be committed.")
    return env


def load_located(
    found: Located, env: EnvFile | None, findings: Findings, *, hosts: Sequence[str], tag: str, strict: bool
) -> model.Environment:
    """Read the other files and check them with the env file. Raises ConfigError with every mistake."""
    if tag:
        _check_tag(tag, findings)
    services, services_whole = _read_services(found, findings)
    base = env.values if env is not None else None
    applications, values = _resolve_hosts(found, base, services, services_whole, tag, findings)
    if base is not None and services is not None and services_whole:
        _check_keys(found, base, services, strict, findings)
    if env is not None:
        checks.check_placeholders(values, env.lines, _is_production(found, values), findings)
    checks.check_setup(found.entry, findings.name(found.file), f"environments.{found.name}.setup", values, findings)
    chosen = _choose(found.entry, hosts, findings)
    identity = _identity_file(found, findings)
    rollout = _rollout(found, applications.values(), findings)
    if findings.mistakes or base is None or services is None:
        raise refusal(found.name, findings)
    if found.entry.setup.certificate is model.Certificate.ACME:
        applications = {name: _with_acme(application) for name, application in applications.items()}
    return model.Environment(
        name=found.name,
        targets=tuple(_target(found.entry, name, applications[name], identity) for name in chosen),
        rollout=rollout,
        preparation=_preparation(found),
        monitoring=_monitoring(found.entry),
        pipeline=pipeline(services, found.beside),
        known_hosts=_known_hosts(found),
        trust_file=str(found.beside(found.entry.known_hosts or "known_hosts")),
        access_folder=str(found.beside(f"deploy/authorized_keys/{found.name}")),
        warnings=findings.warnings,
        secrets=_secrets(values, applications.values()),
    )


def _secrets(values: Iterable[Values], applications: Iterable[model.Application]) -> tuple[str, ...]:
    """The strings that must never be printed, longest first."""
    named = secret_values(item for merged in values for item in merged.merged.items())
    parts = [secret for application in applications for secret in application.channels.secrets]
    return tuple(sorted({*named, *parts}, key=lambda value: (-len(value), value)))


def _is_production(found: Located, values: Iterable[Values]) -> bool:
    return "production" in {found.name, *(merged.get("ENVIRONMENT") for merged in values)}


def refusal(name: str, findings: Findings) -> ConfigError:
    """The error that holds every mistake of an environment."""
    count = len(findings.mistakes)
    mistakes = "one mistake" if count == 1 else f"{count} mistakes"
    return ConfigError(
        f"The configuration of {name} has {mistakes}. Nothing was contacted.",
        findings.mistakes,
        next_step="correct the lines above and run the same command again",
    )


def _check_tag(tag: str, findings: Findings) -> None:
    try:
        forms.TAG(tag)
    except ValueError as error:
        findings.add("--tag", "", found=repr(tag), expected=str(error))


def _read_services(found: Located, findings: Findings) -> tuple[Services | None, bool]:
    """The services, and whether the file is without a mistake."""
    path = found.beside(found.entry.services_file)
    before = len(findings.mistakes)
    content = read_yaml(path, findings, remedy=_SERVICES_REMEDY)
    if content is None:
        return None, False
    services = validate(Services, content, findings.name(path), findings)
    whole = len(findings.mistakes) == before
    if services is not None:
        checks.check_services(services, findings.name(path), whole, findings)
    return services, whole


def _resolve_hosts(
    found: Located,
    base: dict[str, str] | None,
    services: Services | None,
    whole: bool,
    tag: str,
    findings: Findings,
) -> tuple[dict[str, model.Application], list[Values]]:
    """Each host's application, and the values of each; a host whose values are wrong is missing."""
    applications: dict[str, model.Application] = {}
    every: list[Values] = []
    if base is None:
        return applications, every
    env_file = findings.name(found.env_file)
    for name, host in (found.entry.hosts or {"": Host()}).items():
        path = f"environments.{found.name}.hosts.{name}.env"
        values = Values(env_file, base, findings.name(found.file), path, host.env, whole, findings)
        every.append(values)
        application = resolve(values, services, tag)
        if application is not None:
            applications[name] = application
    return applications, every


def _check_keys(found: Located, base: dict[str, str], services: Services, strict: bool, findings: Findings) -> None:
    env_file = findings.name(found.env_file)
    known = {*KEYS, *(key for service in services.services for key in service.named_keys())}
    checks.check_known_keys(base, known, env_file, strict, findings)
    checks.check_overrides(found.name, found.entry, known, findings.name(found.file), findings)


def _choose(entry: EnvironmentEntry, words: Sequence[str], findings: Findings) -> list[str]:
    """The names of the hosts that the words pick, in the order of the inventory; no word picks all."""
    matches = {word: [n for n, host in entry.hosts.items() if word in (n, *host.groups, *host.roles)] for word in words}
    known = dict.fromkeys(entry.hosts)
    for host in entry.hosts.values():
        known.update(dict.fromkeys((*host.groups, *host.roles)))
    for word, names in matches.items():
        if not names:
            findings.add("--hosts", "", found=repr(word), expected=f"hosts, groups or roles of: {', '.join(known)}")
    picked = {name for names in matches.values() for name in names}
    return [name for name in entry.hosts if not words or name in picked]


def _identity_file(found: Located, findings: Findings) -> str:
    if not found.entry.identity_file:
        return ""
    path = found.beside(found.entry.identity_file)
    if not path.is_file():
        place = f"environments.{found.name}.identity_file"
        findings.add(findings.name(found.file), place, found=f"{str(path)!r}: no such file", expected="a private key")
    return str(path)


def _known_hosts(found: Located) -> tuple[str, ...]:
    own = [found.beside(found.entry.known_hosts)] if found.entry.known_hosts else []
    paths = [*own, found.file.parent / "known_hosts", expanded("~/.ssh/known_hosts")]
    return tuple(dict.fromkeys(str(path) for path in paths if path.is_file()))


def _rollout(found: Located, applications: Iterable[model.Application], findings: Findings) -> model.Rollout:
    declared: dict[str, Any] = found.entry.rollout.model_dump()
    if declared["signed_by"]:
        path = found.beside(declared["signed_by"])
        try:
            declared["signed_by"] = read_signing_key(path)
        except ValueError as error:
            place = f"environments.{found.name}.rollout.signed_by"
            findings.add(findings.name(found.file), place, found=str(path), expected=str(error))
    if declared["confirm"] is None:
        named = {found.name, *(application.environment for application in applications)}
        declared["confirm"] = "production" in named
    return model.Rollout(**declared)


def _with_acme(application: model.Application) -> model.Application:
    return replace(application, tls=replace(application.tls, acme=True) if application.tls else None)


def _monitoring(entry: EnvironmentEntry) -> model.Monitoring:
    declared: dict[str, Any] = entry.monitoring.model_dump()
    return model.Monitoring(**declared | {"jump": "" if entry.monitoring.jump == "none" else entry.monitoring.jump})


def _preparation(found: Located) -> model.Preparation:
    """What setup makes; node-exporter's port is open to the monitoring host unless another address is named."""
    declared: dict[str, Any] = found.entry.setup.model_dump()
    address = found.entry.monitoring.address
    if not declared["monitoring_host"] and forms.is_ip_address(address):
        declared["monitoring_host"] = address
    return model.Preparation(**declared | {"sysctl": tuple(sorted(declared["sysctl"].items()))})


def _target(entry: EnvironmentEntry, name: str, application: model.Application, identity: str) -> model.Target:
    host = entry.hosts[name]
    jump = host.jump or entry.jump
    return model.Target(
        name=name,
        address=host.address or name,
        user=host.user or entry.user,
        application=application,
        port=host.port or entry.port,
        setup_user=entry.setup_user,
        roles=host.roles,
        groups=host.groups,
        jump="" if jump == "none" else jump,
        identity_file=identity,
        metrics_address=host.metrics_address or host.address or name,
    )
