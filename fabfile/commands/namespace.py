"""The namespace in which the containers' files have the ids that their owners have inside. Pure text; runs nothing.

Source: podman-unshare(1); root's Podman has no such namespace, it sees the files so already.
"""

from __future__ import annotations

_END = "END-OF-THE-PROGRAM"

#: Sets `$rootless`, for ENTER.
FIND_NAMESPACE = "rootless=yes\nif [ \"$(id -u)\" -eq 0 ]; then rootless=''; fi"
#: What comes before a command that is to run in the namespace.
ENTER = "${rootless:+podman} ${rootless:+unshare}"
#: Runs `$program` there; see `in_namespace`.
IN_NAMESPACE = f'{ENTER} sh -c "$program"'


def in_namespace(text: str) -> str:
    """Put a program into `$program`, for IN_NAMESPACE."""
    return f"program=$(cat <<'{_END}'\n{text}\n{_END}\n)\n{FIND_NAMESPACE}"
