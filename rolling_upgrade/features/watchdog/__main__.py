"""The program's command line: `watch HOME`, `recover HOME ACTION SERVICE SECONDS REASON`, `tell HOME`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from rolling_upgrade.engine.masking import clean
from rolling_upgrade.errors import ConfigError, RollingError
from rolling_upgrade.features.watchdog.policy import RecoveryAction


def main(words: list[str]) -> int:
    """Run one command; return its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        if words[:1] == ["watch"] and len(words) == 2:
            from rolling_upgrade.features.watchdog.loop import watch

            return watch(Path(words[1]))
        if words[:1] == ["recover"] and len(words) == 6:
            from rolling_upgrade.features.watchdog.recovery import recover

            return recover(Path(words[1]), RecoveryAction(words[2]), words[3], float(words[4]), words[5])
        if words[:1] == ["tell"] and len(words) == 2:
            from rolling_upgrade.features.watchdog.outbox import deliver

            return deliver(Path(words[1]))
        raise ConfigError("usage: watch HOME | recover HOME ACTION SERVICE SECONDS REASON | tell HOME")
    except RollingError as error:
        print(clean(str(error)), file=sys.stderr)
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
