"""Load an environment: read the three files, check them together, build the model.

Every step adds its errors to one `Issues`, so that an operator sees all of them at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rolling_upgrade.config import checks, commands, validators
from rolling_upgrade.config.accessories import check_ports, resolve_accessories
from rolling_upgrade.config.databases import with_databases
from rolling_upgrade.config.env_command import CommandFailed, output_of
from rolling_upgrade.config.files import EnvFile, decoded, parse_env, parse_output, read_env, read_yaml
from rolling_upgrade.config.inventory import EnvironmentEntry, Host
from rolling_upgrade.config.issues import Issues, secret_values, validate
from rolling_upgrade.config.jobs import place_jobs
from rolling_upgrade.config.locate import Located, expanded, locate
from rolling_upgrade.config.resolution import resolve
from rolling_upgrade.config.secrets_file import keyring
from rolling_upgrade.config.services import Services, pipeline
from rolling_upgrade.config.settings import KEYS
from rolling_upgrade.config.site import check_routed, check_site
from rolling_upgrade.config.values import Values
from rolling_upgrade.engine import masking, model
from rolling_upgrade.engine.accessory import unreachable_urls
from rolling_upgrade.engine.git import is_tracked
from rolling_upgrade.engine.local_file import read_small
from rolling_upgrade.errors import ConfigError, ConfigIssue

_SERVICES_REMEDY = "a file that describes the services"


def load_environment(
    environment: str | None, *, root: Path, hosts: Sequence[str], tag: str, strict: bool, prompt: bool
) -> model.Environment:
    """Read and check the three files. Raises ConfigError with every error."""
    root = root.resolve()
    issues = Issues(root)
    located = locate(environment, root, issues)
    env = read_env_file(located, issues, prompt=prompt)
    return load_located(located, env, issues, hosts=hosts, tag=tag, strict=strict)


def load_suites(root: Path) -> tuple[model.Suite, ...]:
    """Read the test suites of deploy/services.yaml. Raises ConfigError."""
    issues = Issues(root.resolve())
    path = root.resolve() / "deploy/services.yaml"
    content = read_yaml(path, issues, remedy=_SERVICES_REMEDY)
    services = validate(Services, content, issues.name(path), issues) if content is not None else None
    if services is None or issues.errors:
        raise config_error(issues.name(path), issues)
    return pipeline(services, lambda name: Path(os.path.normpath(root.resolve() / expanded(name)))).suites


def issues_of_env_text(environment: str, text: str, *, root: Path) -> tuple[ConfigIssue, ...]:
    """Return the errors that the environment would have with this text as its env file."""
    issues = Issues(root.resolve())
    located = locate(environment, root.resolve(), issues)
    env = parse_env(text, located.values_name(issues), issues)
    try:
        load_located(located, env, issues, hosts=(), tag="", strict=False)
    except ConfigError as error:
        return error.issues
    return ()


def read_env_file(located: Located, issues: Issues, *, prompt: bool) -> EnvFile | None:
    """Read the env file and decrypt it when needed, or run the command in its place.

    `prompt` allows prompting for a password; without it no command is run, because a command may prompt too.
    """
    if located.entry.env_command:
        return _read_command(located, issues) if prompt else None
    env = read_env(located.env_file, issues, keyring(located, prompt=prompt))
    if env is not None and env.encryption is None:
        file, tracked = issues.name(located.env_file), is_tracked(located.env_file)
        if tracked:
            checks.report_tracked(located.name, file, issues)
        if tracked is None:
            issues.warn(f"{file} is plain text, and git cannot tell whether it would be committed.")
    return env


def _read_command(located: Located, issues: Issues) -> EnvFile | None:
    entry, name = located.entry, located.values_name(issues)
    try:
        data = output_of(entry.env_command, located.file.parent, entry.env_command_timeout_seconds)
    except CommandFailed as error:
        issues.add(name, "", found=error.found, expected=error.expected)
        return None
    text = decoded(data, name, issues)
    return None if text is None else parse_output(text, name, issues)


def load_located(
    located: Located, env: EnvFile | None, issues: Issues, *, hosts: Sequence[str], tag: str, strict: bool
) -> model.Environment:
    """Read the services and check them with the env file. Raises ConfigError with every error."""
    if tag:
        _check_tag(tag, issues)
    services, services_complete = _read_services(located, issues)
    base = env.values if env is not None else None
    applications, values = _resolve_hosts(located, base, services, services_complete, tag, issues)
    secrets = _secrets(values, applications.values())
    masking.remember(secrets)
    if base is not None and services is not None and services_complete:
        _check_keys(located, base, services, strict, issues)
        checks.check_secrets(services, values, strict, issues)
        checks.check_shared_keys(services, values, issues)
    if env is not None:
        checks.check_placeholders(values, _is_production(located, values), issues)
    checks.check_plaintext_urls(values, strict, issues)
    if services is not None:
        services_file = issues.name(located.resolve(located.entry.services_file))
        checks.check_placement(located.entry, services, services_file, services_complete, issues)
    checks.check_setup(located.entry, issues.name(located.file), f"environments.{located.name}.setup", values, issues)
    selected = _select_hosts(located.entry, hosts, issues)
    identity = _identity_file(located, issues)
    rollout = _rollout(located, applications.values(), issues)
    hooks = _hooks(located, services, issues)
    if issues.errors or base is None or services is None:
        raise config_error(located.name, issues)
    if located.entry.setup.certificate is model.Certificate.ACME:
        applications = {
            name: replace(app, tls=app.tls and replace(app.tls, acme=True)) for name, app in applications.items()
        }
    applications = place_jobs(services.jobs, applications)
    return model.Environment(
        name=located.name,
        targets=tuple(_target(located.entry, name, applications[name], identity) for name in selected),
        rollout=rollout,
        preparation=_preparation(located),
        monitoring=_monitoring(located.entry),
        pipeline=pipeline(services, located.resolve),
        hooks=hooks,
        known_hosts=_known_hosts(located),
        trust_file=str(located.resolve(located.entry.known_hosts or "known_hosts")),
        access_directory=str(located.resolve(f"deploy/authorized_keys/{located.name}")),
        warnings=issues.warnings,
        secrets=secrets,
    )


def _secrets(values: Iterable[Values], applications: Iterable[model.Application]) -> tuple[str, ...]:
    """Return the strings to mask in all output, longest first, so that masking one leaves no fragment of another."""
    named = secret_values(item for merged in values for item in merged.merged.items())
    applications = tuple(applications)
    parts = [secret for application in applications for secret in application.channels.secrets]
    parts += [password_hash for application in applications for _, password_hash in application.site.password_hashes]
    services = [service for application in applications for service in application.services]
    named |= secret_values(variable for service in services for variable in service.env)
    named |= {secret.value for service in services for secret in service.secret_files}
    return tuple(sorted({*named, *parts}, key=lambda value: (-len(value), value)))


def _hooks(located: Located, services: Services | None, issues: Issues) -> tuple[model.HookCommand, ...]:
    place = f"{issues.name(located.file)} environments.{located.name}.hooks"
    layers = [(place, located.entry.hooks)]
    if services is not None:
        layers.append((f"{issues.name(located.resolve(located.entry.services_file))} hooks", services.hooks))
    return commands.hooks(located.file.parent, layers, issues)


def _is_production(located: Located, values: Iterable[Values]) -> bool:
    return "production" in {located.name, *(merged.get("ENVIRONMENT") for merged in values)}


def config_error(name: str, issues: Issues) -> ConfigError:
    """Build the error with all issues of an environment."""
    count = len(issues.errors)
    errors = "1 error" if count == 1 else f"{count} errors"
    return ConfigError(
        f"The configuration of {name} has {errors}. Nothing was contacted.",
        issues.errors,
        next_step="correct the lines above and run the same command again",
    )


def _check_tag(tag: str, issues: Issues) -> None:
    try:
        validators.TAG(tag)
    except ValueError as error:
        issues.add("--tag", "", found=repr(tag), expected=str(error))


def _read_services(located: Located, issues: Issues) -> tuple[Services | None, bool]:
    """Read the services; the second value is true when the file has no errors."""
    path = located.resolve(located.entry.services_file)
    before = len(issues.errors)
    content = read_yaml(path, issues, remedy=_SERVICES_REMEDY)
    if content is None:
        return None, False
    services = validate(Services, content, issues.name(path), issues)
    complete = len(issues.errors) == before
    if services is not None:
        checks.check_services(services, issues.name(path), complete, issues)
    return services, complete


def _resolve_hosts(
    located: Located,
    base: dict[str, str] | None,
    services: Services | None,
    complete: bool,
    tag: str,
    issues: Issues,
) -> tuple[dict[str, model.Application], list[Values]]:
    """Resolve the application of each host; a host with invalid values is missing from the result."""
    applications: dict[str, model.Application] = {}
    hosts: list[Values] = []
    if base is None:
        return applications, hosts
    if not base.get("ENVIRONMENT"):
        base = base | {"ENVIRONMENT": located.name}
    env_file = located.values_name(issues)
    services_file = issues.name(located.resolve(located.entry.services_file))
    roles = {name: host.roles for name, host in located.entry.hosts.items()} or {"": ()}
    for name, host in (located.entry.hosts or {"": Host()}).items():
        path = f"environments.{located.name}.hosts.{name}.env"
        values = Values(env_file, base, issues.name(located.file), path, host.env, services_file, complete, issues)
        hosts.append(values)
        application = resolve(values, services, tag, host.roles)
        accessories = resolve_accessories(services.accessories if services else (), roles, name, values)
        if application is not None and services is not None:
            user = host.user or located.entry.user
            checks.check_certificate_paths(application, user, values)
            checks.check_mounts(application, user, services, values)
            checks.check_mount_owners(application, values)
            if not issues.errors:
                check_site(application, values)
            here = {accessory.name for accessory in accessories}
            elsewhere = tuple(one.name for one in services.accessories if one.name not in here)
            applications[name] = replace(application, accessories=accessories, accessories_elsewhere=elsewhere)
            check_ports(services.accessories, applications[name], services_file, issues)
            for service, key, accessory in unreachable_urls(applications[name]):
                issues.warn(
                    f"{name}: {key} of {service} names the accessory {accessory}, which runs only on other hosts"
                )
    check_routed(applications.values(), services_file, issues)
    unsaved = [accessory.name for accessory in services.accessories if not accessory.backup] if services else []
    return with_databases(applications, unsaved, issues), hosts


def _check_keys(located: Located, base: dict[str, str], services: Services, strict: bool, issues: Issues) -> None:
    env_file = located.values_name(issues)
    known = {*KEYS, *(key for service in services.services for key in service.named_keys())}
    known |= {key for accessory in services.accessories for key in accessory.named_keys()}
    known |= set(services.site.named_keys())
    known |= {key for job in services.jobs for key in job.named_keys()}
    checks.check_known_keys(base, known, env_file, strict, issues)
    checks.check_overrides(located.name, located.entry, known, issues.name(located.file), issues)


def _select_hosts(entry: EnvironmentEntry, words: Sequence[str], issues: Issues) -> list[str]:
    """Return the selected hosts in the order of the inventory; no word selects all."""
    matches = {word: [n for n, host in entry.hosts.items() if word in (n, *host.groups, *host.roles)] for word in words}
    known = dict.fromkeys(entry.hosts)
    for host in entry.hosts.values():
        known.update(dict.fromkeys((*host.groups, *host.roles)))
    for word, names in matches.items():
        if not names:
            issues.add("--hosts", "", found=repr(word), expected=f"a host, group or role: {', '.join(known)}")
    picked = {name for names in matches.values() for name in names}
    return [name for name in entry.hosts if not words or name in picked]


def _identity_file(located: Located, issues: Issues) -> str:
    if not located.entry.identity_file:
        return ""
    path = located.resolve(located.entry.identity_file)
    if not path.is_file():
        place = f"environments.{located.name}.identity_file"
        issues.add(
            issues.name(located.file), place, found=f"{str(path)!r}, which does not exist", expected="a private key"
        )
    return str(path)


def _known_hosts(located: Located) -> tuple[str, ...]:
    own = [located.resolve(located.entry.known_hosts)] if located.entry.known_hosts else []
    paths = [*own, located.file.parent / "known_hosts", expanded("~/.ssh/known_hosts")]
    return tuple(dict.fromkeys(str(path) for path in paths if path.is_file()))


def _rollout(located: Located, applications: Iterable[model.Application], issues: Issues) -> model.RolloutPolicy:
    declared: dict[str, Any] = located.entry.rollout.model_dump()
    if declared["signed_by"]:
        path = located.resolve(declared["signed_by"])
        try:
            declared["signed_by"] = read_signing_key(path)
        except ValueError as error:
            place = f"environments.{located.name}.rollout.signed_by"
            issues.add(issues.name(located.file), place, found=str(path), expected=str(error))
    if declared["confirm"] is None:
        named = {located.name, *(application.environment for application in applications)}
        declared["confirm"] = "production" in named
    return model.RolloutPolicy(**declared)


def _monitoring(entry: EnvironmentEntry) -> model.Monitoring:
    declared: dict[str, Any] = entry.monitoring.model_dump()
    return model.Monitoring(**declared | {"jump": "" if entry.monitoring.jump == "none" else entry.monitoring.jump})


def _preparation(located: Located) -> model.Preparation:
    """Build setup's options. node-exporter's port is open to the monitoring host unless another address is set."""
    declared: dict[str, Any] = located.entry.setup.model_dump()
    address = located.entry.monitoring.address
    if not declared["monitoring_host"] and validators.is_ip_address(address):
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


_EXPECTED = "a public key by `cosign generate-key-pair` or `skopeo generate-sigstore-key`"


def read_signing_key(path: Path) -> str:
    """Read a public key as PEM text. Raises ValueError for other than ECDSA keys: cosign and Skopeo make no others."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        data = read_small(path)
        if isinstance(load_pem_public_key(data), EllipticCurvePublicKey):
            return data.decode("ascii")
    except OSError as error:
        raise ValueError(f"{error.strerror or type(error).__name__}; {_EXPECTED}") from error
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise ValueError(f"{_EXPECTED}, in PEM format")
