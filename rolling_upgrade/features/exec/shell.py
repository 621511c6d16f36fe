"""The scripts that run a command or a shell in a service's active container.

When `podman exec` ends early, its command keeps running in the container. So every command has a mark in its
environment. When the workstation disconnects, the script waits until the command has started, finds it by the mark and
terminates it. Source: measured with Podman 4.3 and 5.4.
"""

from __future__ import annotations

from collections.abc import Sequence

from rolling_upgrade.engine.model import Application
from rolling_upgrade.engine.nginx import flag
from rolling_upgrade.engine.podman import accessory_container
from rolling_upgrade.engine.shell import Script, direct, quote, shell_join
from rolling_upgrade.errors import PROGRAM

#: Exit status without a running container. Source: podman-exec(1), an error of Podman itself.
NO_CONTAINER_STATUS = 125
_MARK = "ROLLING_EXEC"
_SHELL = "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi"


def execute(app: Application, service: str, argv: Sequence[str]) -> Script:
    """Run a command in the active container, with an empty standard input, and exit with its status.

    When descriptor 3 closes, the command gets SIGTERM, and SIGKILL five seconds later.
    """
    return _execute(_active(app, service), argv)


def execute_in_accessory(app: Application, name: str, argv: Sequence[str]) -> Script:
    """Run a command in the container of an accessory, like `execute`."""
    return _execute(_accessory(app, name), argv)


def _execute(container: str, argv: Sequence[str]) -> Script:
    return direct(
        container,
        f"""\
podman exec --env "{_MARK}=$mark" "$name" {shell_join(*argv)} &
command=$!
{{ cat <&3; end_marked; }} >/dev/null 2>&1 &
watch=$!
if wait "$command"; then status=0; else status=$?; fi
kill "$watch" 2>/dev/null || :
exit "$status\"""",
    )


def shell(app: Application, service: str) -> str:
    """Return the command line that opens a shell in the active container on a terminal: Bash if the image has it."""
    text = direct(
        _active(app, service),
        f"""\
trap 'end_marked >/dev/null 2>&1' EXIT
trap 'exit 129' HUP TERM
podman exec --interactive --tty --env "{_MARK}=$mark" --env "TERM=${{TERM:-dumb}}" "$name" sh -c {quote(_SHELL)}""",
    ).text
    return f"exec sh -c {quote(text)}"


def interactive_in_accessory(app: Application, name: str, argv: Sequence[str]) -> str:
    """Return the command line that runs a command in the container of an accessory on a terminal."""
    text = direct(
        _accessory(app, name),
        f"""\
trap 'end_marked >/dev/null 2>&1' EXIT
trap 'exit 129' HUP TERM
podman exec --interactive --tty --env "{_MARK}=$mark" --env "TERM=${{TERM:-dumb}}" "$name" {shell_join(*argv)}""",
    ).text
    return f"exec sh -c {quote(text)}"


def _active(app: Application, service: str) -> str:
    """Set `name` to the active container and `mark` to a unique word; exit if the container does not run."""
    return f"""\
if [ -e {quote(flag(app, service))} ]; then color=green; else color=blue; fi
name={quote(f"{app.name}-{service}")}-$color
{_marked("the active container")}"""


def _accessory(app: Application, name: str) -> str:
    """Set `name` and `mark` like `_active`, for the container of an accessory."""
    return f"name={quote(accessory_container(app.name, name))}\n{_marked('the accessory')}"


def _marked(what: str) -> str:
    return f"""\
mark=$$-$(date +%s%N)
command=
if [ "$(podman container inspect --format '{{{{.State.Running}}}}' "$name" 2>/dev/null)" != true ]; then
  echo "$name, {what}, is not running. Next: {PROGRAM} status" >&2
  exit {NO_CONTAINER_STATUS}
fi
marked() {{ grep -lsF "{_MARK}=$mark" /proc/[0-9]*/environ | cut -d / -f 3; }}
end_marked() {{
  waited=0
  while [ -n "$command" ] && kill -0 "$command" 2>/dev/null && [ -z "$(marked)" ] && [ "$waited" -lt 300 ]; do
    waited=$((waited + 1))
    sleep 0.1
  done
  marked | xargs -r kill -TERM || :
  waited=0
  while [ -n "$(marked)" ] && [ "$waited" -lt 50 ]; do
    waited=$((waited + 1))
    sleep 0.1
  done
  marked | xargs -r kill -KILL || :
}}"""
