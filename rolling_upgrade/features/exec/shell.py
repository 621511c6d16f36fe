"""A command or a shell inside a service's active container. It runs nothing.

Podman leaves a command running in the container when its own `podman exec` is ended. So each one carries a mark in its
environment, by which it is found and ended when the workstation lets go; one that Podman has not begun yet is waited
for. Source: measured with Podman 4.3 and 5.4.
"""

from __future__ import annotations

from collections.abc import Sequence

from fabfile.commands import journal
from fabfile.commands.nginx import flag
from fabfile.commands.shell import Script, quote, words
from fabfile.model import Application

#: Exit status when there is no running container to go into. Source: podman-exec(1), an error of Podman itself.
NO_CONTAINER_STATUS = 125
_MARK = "ROLLING_EXEC"
_SHELL = "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi"


def execute(app: Application, service: str, argv: Sequence[str]) -> Script:
    """Run the words in the active container, with an empty standard input, and exit with its status.

    The command is ended with SIGTERM, five seconds later with SIGKILL, when descriptor 3 ends.
    """
    return journal.direct(
        _active(app, service),
        f"""\
podman exec --env "{_MARK}=$mark" "$name" {words(*argv)} &
command=$!
{{ cat <&3; end_marked; }} >/dev/null 2>&1 &
watch=$!
if wait "$command"; then status=0; else status=$?; fi
kill "$watch" 2>/dev/null || :
exit "$status\"""",
    )


def shell(app: Application, service: str) -> str:
    """A command line that opens a shell in the active container on a terminal: Bash where the image has it."""
    text = journal.direct(
        _active(app, service),
        f"""\
trap 'end_marked >/dev/null 2>&1' EXIT
trap 'exit 129' HUP TERM
podman exec --interactive --tty --env "{_MARK}=$mark" --env "TERM=${{TERM:-dumb}}" "$name" sh -c {quote(_SHELL)}""",
    ).text
    return f"exec sh -c {quote(text)}"


def _active(app: Application, service: str) -> str:
    """Set `name` to the active container, which runs, and `mark` to what nothing else carries."""
    return f"""\
if [ -e {quote(flag(app, service))} ]; then color=green; else color=blue; fi
name={quote(f"{app.name}-{service}")}-$color
mark=$$-$(date +%s%N)
command=
if [ "$(podman container inspect --format '{{{{.State.Running}}}}' "$name" 2>/dev/null)" != true ]; then
  echo "$name, the active container, does not run. Next: inv status" >&2
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
