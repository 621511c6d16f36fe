"""The message templates inside the program that runs on hosts."""

from __future__ import annotations

import pkgutil


def template(name: str) -> str:
    """Return a template of `templates/notify/`, such as `en/done.txt`. Raises FileNotFoundError."""
    content = pkgutil.get_data("rolling_upgrade", f"templates/notify/{name}")
    if content is None:
        raise FileNotFoundError(name)
    return content.decode()
