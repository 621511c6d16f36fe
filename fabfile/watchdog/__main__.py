"""The program's command line: `watch HOME`, `recover HOME ACT SERVICE SECONDS REASON`, `tell HOME`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from fabfile.errors import ConfigError, RollingError
from fabfile.model.watch import Act


def main(words: list[str]) -> int:
    """Do what the command line says; its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        if words[:1] == ["watch"] and len(words) == 2:
            from fabfile.watchdog.watching import watch

            return watch(Path(words[1]))
        if words[:1] == ["recover"] and len(words) == 6:
            from fabfile.watchdog.recovering import recover

            return recover(Path(words[1]), Act(words[2]), words[3], float(words[4]), words[5])
        if words[:1] == ["tell"] and len(words) == 2:
            from fabfile.watchdog.outbox import tell

            return tell(Path(words[1]))
        raise ConfigError("usage: watch HOME | recover HOME ACT SERVICE SECONDS REASON | tell HOME")
    except RollingError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
