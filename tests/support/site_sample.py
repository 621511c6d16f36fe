"""Sample documents for the site program: the site and its rules."""

from __future__ import annotations

import json
from typing import Any

from rolling_upgrade.engine.model import Application
from rolling_upgrade.engine.site import client as commands
from rolling_upgrade.engine.site.schema import dump
from tests.support.sample import application

APP = application()


def site_document(app: Application = APP) -> dict[str, Any]:
    """Return the site of an application as JSON values."""
    return dict(json.loads(dump(commands.site(app))))


def rules_document(app: Application = APP) -> dict[str, Any]:
    """Return the rules of an application as JSON values."""
    return dict(json.loads(dump(commands.rules(app))))


def encoded(document: object) -> bytes:
    """Encode a document for transfer."""
    return json.dumps(document).encode()
