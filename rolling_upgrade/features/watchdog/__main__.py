"""The program's command line: `watch HOME`, `recover HOME ACTION SERVICE SECONDS REASON`, `send HOME`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from rolling_upgrade.engine.masking import clean
from rolling_upgrade.errors import ConfigError, RollingError
from rolling_upgrade.features.watchdog.policy import RecoveryAction


def main(arguments: list[str]) -> int:
    """Run one command; return its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        if arguments[:1] == ["watch"] and len(arguments) == 2:
            from rolling_upgrade.features.watchdog.loop import watch

            return watch(Path(arguments[1]))
        if arguments[:1] == ["recover"] and len(arguments) == 6:
            from rolling_upgrade.features.watchdog.recovery import recover

            _, home, action, service, seconds, reason = arguments
            return recover(Path(home), RecoveryAction(action), service, float(seconds), reason)
        if arguments[:1] == ["send"] and len(arguments) == 2:
            from rolling_upgrade.features.watchdog.outbox import deliver

            return deliver(Path(arguments[1]))
        raise ConfigError("usage: watch HOME | recover HOME ACTION SERVICE SECONDS REASON | send HOME")
    except RollingError as error:
        print(clean(str(error)), file=sys.stderr)
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
