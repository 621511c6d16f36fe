"""The Nginx site of one application, as data: what a deploy may ask for, what root allows, and the text made of both.

The workstation and the root-owned program on the host run this same code: a plan shows the very text that the host
will install, and the host takes no Nginx text, path or program from anybody. Standard library and Jinja2 only.
"""

from __future__ import annotations

from rolling_upgrade.engine.site.schema import (
    HealthPath,
    Route,
    Rules,
    Site,
    SiteError,
    SiteService,
    Tls,
    check,
    parse_rules,
    parse_site,
)

__all__ = [
    "HealthPath",
    "Route",
    "Rules",
    "Site",
    "SiteError",
    "SiteService",
    "Tls",
    "check",
    "parse_rules",
    "parse_site",
]
