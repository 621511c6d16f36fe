"""From a DATABASE_URL to the address and the password that PostgreSQL's own programs take. It contacts nothing.

Standard library only.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from fabfile.model import DatabaseServer

EXPECTED = "an address such as postgresql://user:password@host:5432/name, its special characters percent-encoded"

#: Parameters that the programs take over; those of an application's own library would be refused by them.
#: Source: PostgreSQL manual, libpq, Parameter Key Words.
_KNOWN = frozenset(
    {"host", "port", "user", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "options"}
    | {"target_session_attrs", "channel_binding", "gssencmode", "sslnegotiation", "require_auth"}
)
#: Names under which a container knows its host; on the host itself they mean nothing.
_OWN_HOST = frozenset({"host.containers.internal", "host.docker.internal"})


def database_server(url: str) -> DatabaseServer | None:
    """The PostgreSQL server of a DATABASE_URL; None for another kind. Raises ValueError for one that cannot be read."""
    if not re.match(r"postgres(?:ql)?(?:\+\w+)?://", url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(EXPECTED) from None
    query = parse_qsl(parts.query)
    password = unquote(parts.password or "") or dict(query).get("password", "")
    if re.search(r"[\x00-\x1f\x7f]", url + password) or not re.fullmatch(r"[!-~]+", url):
        raise ValueError(EXPECTED)
    user = f"{quote(unquote(parts.username), safe='')}@" if parts.username else ""
    place = "127.0.0.1" if host in _OWN_HOST else f"[{host}]" if ":" in host else host
    kept = urlencode([(key, value) for key, value in query if key in _KNOWN], quote_via=quote)
    address = f"postgresql://{user}{place}{f':{port}' if port else ''}{parts.path}{f'?{kept}' if kept else ''}"
    return DatabaseServer(address, password)
