"""The text of a site, rendered from root's template, and the marks that identify it.

The first lines of the text carry its hash, the loopback port that answers that hash once Nginx serves it, and the site
as data, so that one file describes itself.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rolling_upgrade.engine.site.schema import OWN_PATHS, Rules, Site, SiteError, check, dump, parse_site

if TYPE_CHECKING:
    from jinja2 import Template

#: Where Nginx answers the hash of the site that it runs, on every loopback port of a service.
HASH_PATH = f"{OWN_PATHS}/site"
#: Where Nginx answers its own figures (stub_status), on the first loopback port.
STATUS_PATH = f"{OWN_PATHS}/nginx"
#: Loopback port on which certbot answers the certificate authority; only root can take it.
ACME_PORT = 402
#: Seconds that a client is told to wait under maintenance.
RETRY_AFTER = 120
_HASH = re.compile(r"# rolling-site: ([0-9a-f]{16})")
_PORT = re.compile(r"# rolling-port: ([0-9]{1,5})")
_DATA = "# rolling-data: "
_UNKNOWN = "0" * 16


def render(site: Site, rules: Rules, source: str) -> str:
    """The Nginx text of a site by the template `source`. Raises SiteError where the rules do not allow the site."""
    check(site, rules)
    unhashed = _render(site, rules, source, _UNKNOWN)
    return _render(site, rules, source, hashlib.sha256(unhashed.encode()).hexdigest()[:16])


def text_hash(text: str) -> str:
    """The hash in a text's first line; '' where there is none."""
    return _marked(_HASH, text, 0)


def text_port(text: str) -> int:
    """The loopback port that answers the hash, from the second line; 0 where there is none."""
    return int(_marked(_PORT, text, 1) or 0)


def text_site(text: str) -> Site | None:
    """The site as data, from the third line; None for a text of an earlier version. Raises SiteError."""
    row = _row(text, 2)
    return parse_site(row[len(_DATA) :].encode()) if row.startswith(_DATA) else None


def _marked(mark: re.Pattern[str], text: str, number: int) -> str:
    match = mark.fullmatch(_row(text, number))
    return match[1] if match else ""


def _row(text: str, number: int) -> str:
    rows = text.split("\n", number + 1)
    return rows[number] if len(rows) > number else ""


def _render(site: Site, rules: Rules, source: str, digest: str) -> str:
    values: dict[str, Any] = {
        "site": site,
        "rules": rules,
        "hash": digest,
        "data": dump(site),
        "ident": rules.app.replace("-", "_"),
        "hash_path": HASH_PATH,
        "status_path": STATUS_PATH,
        "acme_port": ACME_PORT,
        "retry_after": RETRY_AFTER,
        "request_log": f"/var/log/{rules.app}-requests/requests.log",
    }
    return _template(source).render(values)


@lru_cache(maxsize=2)
def _template(source: str) -> Template:
    """The template of a text, kept: to read one takes twenty times as long as to fill it in."""
    from jinja2 import Environment, StrictUndefined

    # Nginx text needs no escaping: the schema gives every value a strict form.
    environment = Environment(  # noqa: S701
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(source)


__all__ = ["ACME_PORT", "HASH_PATH", "STATUS_PATH", "SiteError", "render", "text_hash", "text_port", "text_site"]
