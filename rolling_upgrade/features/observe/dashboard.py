"""The Grafana dashboard of one application in one environment, rendered from templates/observe/dashboard.json.j2."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from rolling_upgrade.engine.model import Application
from rolling_upgrade.rendering import TEMPLATES, template

_COLUMNS = 24


def dashboard(app: Application, environment: str) -> str:
    """Render the dashboard as JSON, in the language of the application's messages; equal input gives equal bytes.

    Source: Grafana, the Prometheus data source's annotations: `useValueForTime` takes a value as milliseconds, and
    `{{label}}` in `titleFormat` and `textFormat` is the value of a label.
    """
    text = template("observe/dashboard.json.j2").render(
        app=app,
        environment=environment,
        uid=_uid(app, environment),
        _=_translation(app.channels.language),
    )
    document = json.loads(text)
    _place(document["panels"])
    return json.dumps(document, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def _uid(app: Application, environment: str) -> str:
    """Source: Grafana takes at most 40 characters."""
    return "rolling-" + hashlib.sha256(f"{app.name}\0{environment}".encode()).hexdigest()[:24]


def _translation(language: str) -> Callable[[str], str]:
    """Translate the English texts of the template. A text without a translation raises KeyError."""
    if language == "en":
        return str
    texts: dict[str, str] = json.loads((TEMPLATES / f"observe/dashboard.{language}.json").read_text(encoding="utf-8"))
    return texts.__getitem__


def _place(panels: list[dict[str, Any]]) -> None:
    """Number the panels, and lay them out from left to right on lines of 24 columns."""
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        position = panel["gridPos"]
        if x + position["w"] > _COLUMNS:
            x, y, height = 0, y + height, 0
        panel["id"] = number
        position.update(x=x, y=y)
        x, height = x + position["w"], max(height, position["h"])
