"""The environment of programs that this process starts: an allow list without secrets.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

#: Credentials for hosts, env files and registries, and the addresses of agents. A configuration cannot pass them on.
SECRETS = frozenset(
    {
        "ANSIBLE_VAULT_PASSWORD_FILE",
        "DEPLOY_SSH_KEY",
        "GPG_AGENT_INFO",
        "REGISTRY_PASSWORD",
        "ROLLING_AGE_KEY",
        "ROLLING_AGE_KEY_FILE",
        "SSH_AGENT_PID",
        "SSH_AUTH_SOCK",
    }
)
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
_ALLOWED = (
    frozenset(
        {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "NO_COLOR"}
        | {"TMPDIR", "TMP", "TEMP", "CI", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    )
    | _PROXIES
    | {name.lower() for name in _PROXIES}
)
_ALLOWED_PREFIXES = ("LC_",)
#: The variables of Podman, Buildah and Docker. Source: podman(1), buildah(1), containers.conf(5), Docker's "CLI reference".
_ENGINE_PREFIXES = (
    *("BUILDAH_", "BUILDKIT_", "BUILDX_", "CONTAINER_", "CONTAINERS_", "DBUS_", "DOCKER_", "PODMAN_", "REGISTRY_AUTH_"),
    *("STORAGE_", "XDG_"),
)
#: The address of a remote engine; `ssh://` needs the agent.
_REMOTE_ENGINE = ("CONTAINER_HOST", "DOCKER_HOST")
_GIT_PREFIXES = ("GIT_CONFIG", "GIT_CEILING_", "GIT_DISCOVERY_", "XDG_CONFIG_HOME")


def for_application(environ: Mapping[str, str], passed: Iterable[str] = ()) -> dict[str, str]:
    """The environment of application code and configured commands: the allow list, and the names in `passed`."""
    names = frozenset(passed)
    return _select(environ, lambda name: name in names or _is_allowed(name))


def for_engine(environ: Mapping[str, str], passed: Iterable[str] = ()) -> dict[str, str]:
    """The environment of the container engine: also its own variables, and the SSH agent for a remote engine."""
    selected = for_application(environ, passed) | _select(environ, lambda name: name.startswith(_ENGINE_PREFIXES))
    if any(selected.get(name, "").startswith("ssh://") for name in _REMOTE_ENGINE) and "SSH_AUTH_SOCK" in environ:
        selected["SSH_AUTH_SOCK"] = environ["SSH_AUTH_SOCK"]
    return selected


def for_git(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of Git in a work tree of the application: also the location of its configuration."""
    return for_application(environ) | _select(environ, lambda name: name.startswith(_GIT_PREFIXES))


def _is_allowed(name: str) -> bool:
    return name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)


def _select(environ: Mapping[str, str], is_selected: Callable[[str], bool]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in SECRETS and is_selected(name)}
