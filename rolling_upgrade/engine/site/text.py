"""The text of a site, rendered from root's template, and the header that identifies it.

The first lines of the text contain its hash, the loopback port that answers with that hash once Nginx serves it, and
the site as data.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rolling_upgrade.engine.site.schema import OWN_PATHS, Rules, Site, check, dump, parse_site

if TYPE_CHECKING:
    from jinja2 import Template

#: The path at which Nginx answers with the hash of its site, on the service port of each service.
HASH_PATH = f"{OWN_PATHS}/site"
#: The path of Nginx's own metrics (stub_status), on the first service port.
STATUS_PATH = f"{OWN_PATHS}/nginx"
#: The loopback port of certbot for the certificate authority; only root can listen on it.
ACME_PORT = 402
#: The User-Agent of this product's checks, which are not counted as visitors.
PROBE_AGENT = "rolling-upgrade-probe"
#: The value of Retry-After during maintenance, in seconds; the page reloads itself after the same time.
RETRY_AFTER = 120
_HASH = re.compile(r"# rolling-site: ([0-9a-f]{16})")
_PORT = re.compile(r"# rolling-port: ([0-9]{1,5})")
_DATA = "# rolling-data: "
_UNKNOWN = "0" * 16


def render(site: Site, rules: Rules, source: str) -> str:
    """Render the Nginx text of a site from the template `source`. Raises SiteError if the rules forbid the site."""
    check(site, rules)
    unhashed = _render(site, rules, source, _UNKNOWN)
    return _render(site, rules, source, hashlib.sha256(unhashed.encode()).hexdigest()[:16])


def text_hash(text: str) -> str:
    """The hash in the first line of a text; '' without one."""
    return _marked(_HASH, text, 0)


def text_port(text: str) -> int:
    """The loopback port that answers with the hash, from the second line; 0 without one."""
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
        "probe_agent": PROBE_AGENT,
        "request_log": f"/var/log/{rules.app}-requests/requests.log",
    }
    return _template(source).render(values)


@lru_cache(maxsize=2)
def _template(source: str) -> Template:
    """Compile the template once: that takes twenty times as long as to render it."""
    from jinja2 import Environment, StrictUndefined

    # Nginx text needs no escaping: the schema restricts every value.
    environment = Environment(  # noqa: S701
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(source)
