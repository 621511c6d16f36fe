"""Confirmations on the terminal."""

from __future__ import annotations

import sys

from rolling_upgrade.engine.masking import remembered, safe
from rolling_upgrade.errors import ConfigError, Interrupted


def confirm(question: str, *, force: bool, hint: str) -> None:
    """Prompt for yes or no. Raises ConfigError without a terminal, Interrupted for any other answer than yes."""
    if not force and _prompt(f"{question} [y/N]", hint).lower() not in {"y", "yes"}:
        raise Interrupted("not confirmed; nothing was touched.")


def confirm_by_name(question: str, name: str, typed: str, *, hint: str) -> None:
    """Prompt for a name unless `typed` has it, before data is deleted. Raises as `confirm` does."""
    answer = typed or _prompt(question, hint)
    if answer != name:
        raise Interrupted(f"{answer!r} is not {name!r}; nothing was touched.")


def _prompt(question: str, hint: str) -> str:
    if not sys.stdin.isatty():
        raise ConfigError("confirmation required, but stdin is not a terminal.", next_step=hint)
    print(safe(question, remembered()), end=" ", file=sys.stderr, flush=True)
    try:
        return sys.stdin.readline().strip()
    except KeyboardInterrupt:
        return ""
