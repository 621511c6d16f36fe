"""The scripts that run a command or a shell in a service's active container, or a command in a new container.

When `podman exec` or `podman run` ends early, its command keeps running in the container. So every command in an active
container has a mark in its environment, by which the script finds and terminates it when the workstation disconnects;
it waits until the command has started. A new container has a name of its own. Source: measured with Podman 4.3 and 5.4.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from rolling_upgrade.engine import podman
from rolling_upgrade.engine.model import Application, Service
from rolling_upgrade.engine.nginx import flag
from rolling_upgrade.engine.podman import accessory_container
from rolling_upgrade.engine.shell import Script, direct, quote, shell_join
from rolling_upgrade.errors import PROGRAM
from rolling_upgrade.features.exec.input import READY

#: Exit status without a running container. Source: podman-exec(1), an error of Podman itself.
NO_CONTAINER_STATUS = 125
_MARK = "ROLLING_EXEC"
_SHELL = "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi"


def execute(app: Application, service: str, argv: Sequence[str], *, with_input: bool = False) -> Script:
    """Run a command in the active container, and exit with its status.

    Its standard input is empty, or has the chunks that arrive on descriptor 3; see features/exec/input.py. When the
    workstation disconnects, the command gets SIGTERM, and SIGKILL five seconds later.
    """
    return _execute(_active(app, service), argv, with_input=with_input)


def execute_in_accessory(app: Application, name: str, argv: Sequence[str], *, with_input: bool = False) -> Script:
    """Run a command in the container of an accessory, like `execute`."""
    return _execute(_accessory(app, name), argv, with_input=with_input)


def _execute(container: str, argv: Sequence[str], *, with_input: bool) -> Script:
    interactive = "--interactive " if with_input else ""
    start = f'podman exec {interactive}--env "{_MARK}=$mark" "$name" {shell_join(*argv)}'
    return direct(container, f"start() {{ {start}; }}", _attached("end_marked", with_input=with_input))


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


def run_once(
    app: Application,
    service: Service,
    argv: Sequence[str],
    *,
    release: str,
    entrypoint: Sequence[str] | None = None,
    with_input: bool = False,
) -> Script:
    """Run a command in a new container of a release, which is removed at the end; like `execute`."""
    options = ("--interactive",) if with_input else ()
    start, remove = _one_off(app, service, argv, release, entrypoint, options)
    return direct(
        podman.ensure_network(app.name),
        f"start() {{\n{start.text}\n}}\nremove() {{ {remove}; }}",
        _attached("remove", with_input=with_input),
    )


def run_on_terminal(
    app: Application,
    service: Service,
    argv: Sequence[str],
    *,
    release: str,
    entrypoint: Sequence[str] | None = None,
    term: str = "dumb",
) -> str:
    """Return the command line that runs a command in a new container on a terminal, and removes the container.

    Without its terminal, Podman may stay attached to a command that ignores SIGHUP. So a process in the background
    looks after the terminal.
    """
    options = ("--interactive", "--tty", "--env", f"TERM={term}")
    start, remove = _one_off(app, service, argv, release, entrypoint, options)
    text = direct(
        podman.ensure_network(app.name),
        f"""\
remove() {{ {remove}; }}
(
  trap '' HUP INT
  while kill -0 $$ && {{ stty -g </dev/tty; }}; do sleep 1; done
  remove
) >/dev/null 2>&1 &
watch=$!
trap 'kill "$watch"; remove' EXIT
trap 'exit 129' HUP TERM
{start.text}""",
    ).text
    return f"exec sh -c {quote(text)}"


def _one_off(
    app: Application,
    service: Service,
    argv: Sequence[str],
    release: str,
    entrypoint: Sequence[str] | None,
    options: Sequence[str],
) -> tuple[Script, str]:
    """Return the script of a new container with a name of its own, and the command that removes it."""
    name = podman.one_off_name(app.name, f"{service.name}-run-{os.urandom(3).hex()}")
    script = podman.one_off(app, service, argv, name=name, release=release, entrypoint=entrypoint, options=options)
    return script, podman.remove(name, seconds=service.drain.stop_seconds)


def _attached(end: str, *, with_input: bool) -> str:
    """Call the shell function `start`, and the function `end` when descriptor 3 closes; exit with the status of `start`.

    A shell waits for all processes of a pipeline, hence the FIFO: the command may end before its input does.
    """
    if not with_input:
        return f"""\
start &
command=$!
{{ cat <&3; {end}; }} >/dev/null 2>&1 &
watch=$!
{_WAIT}"""
    return f"""\
feed() {{
  while read -r size; do
    if [ "$size" = 0 ]; then exec >/dev/null; continue; fi
    # The command has ended: nobody reads the rest.
    head -c "$size" || {{ exec >/dev/null; cat; }}
  done
  {end} >/dev/null
}}
folder=$(mktemp -d -p "$XDG_RUNTIME_DIR")
mkfifo "$folder/input"
# Opened for both, a FIFO waits for no other side; the command must not have it for writing, or it would never end.
exec 5<>"$folder/input"
exec 6>"$folder/input"
exec 7<"$folder/input" 5>&-
rm -r "$folder"
# A shell that redirects a function keeps the former descriptors open, hence exec.
{{ exec <&7 3<&- 6>&- 7<&-; start; }} &
command=$!
{{ exec <&3 >&6 2>/dev/null 3<&- 6>&- 7<&-; feed; }} &
watch=$!
exec 6>&- 7<&-
echo {READY.decode().strip()}
{_WAIT}"""


_WAIT = """\
if wait "$command"; then status=0; else status=$?; fi
kill "$watch" 2>/dev/null || :
exit "$status\""""


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
