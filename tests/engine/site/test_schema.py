"""The schema of the site against hostile documents: every malformed or ungranted document raises SiteError."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolling_upgrade.engine.site import client as commands
from rolling_upgrade.engine.site.schema import (
    LARGEST,
    SiteError,
    check,
    dump,
    dump_request,
    parse_request,
    parse_rules,
    parse_site,
)
from tests.support.sample import application, backend, frontend
from tests.support.site_sample import APP, encoded, rules_document, site_document

RULES = commands.rules(APP)

#: Texts that would end a directive, open a block, name a file, an address or a variable, or confuse a parser.
TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "a;b",
    "a{b",
    "a}b",
    "a'b",
    'a"b',
    "a\\b",
    "a#b",
    "a\nb",
    "a\rb",
    "a\tb",
    "a b",
    "$arg_h",
    "${host}",
    "a$uri",
    "a\n'' z.example",
    "app.lab.test\n'' z.example",
    "x; access_log /etc/sudoers.d/x format",
    "x;} include /etc/shadow;",
    "unix:/run/podman/podman.sock",
    "http://169.254.169.254",
    "169.254.169.254",
    "127.0.0.1:80\ndefault",
    "../../etc/passwd",
    "/../etc/passwd",
    "~* .*",
    "= /x",
    "^~ /",
    "@named",
    "engine:/var/lib/shop/live/x.so:k",
    "{{ 7 * 7 }}",
    "{% include 'x' %}",
    "%00",
    "\u2028",
    "ünïcödé",
    "²",
    "１",
    "\x1b[31m",
    "\ud800",
    "a" * 300,
    "A" * 70_000,
)
#: Values of the wrong kind, for any field.
VALUES: tuple[object, ...] = (
    None, True, False, 0, -1, 65_536, 10**19, 1.5, -0.0, 1e308, [], {}, [[]], [None], {"x": 1}, ["/"], "8080", "true",
)  # fmt: skip

TEXT_PLACES: dict[str, tuple[object, ...]] = {
    "service name": ("services", 0, "name"),
    "route": ("services", 0, "routes", 0, "prefix"),
    "health path": ("health", 0, "path"),
    "health service": ("health", 0, "service"),
    "full chain": ("full_chain",),
}
PLACES: dict[str, tuple[object, ...]] = {
    **TEXT_PLACES,
    "port": ("services", 0, "port"),
    "blue": ("services", 0, "blue"),
    "green": ("services", 0, "green"),
    "routes": ("services", 0, "routes"),
    "a route": ("services", 0, "routes", 0),
    "stream": ("services", 0, "routes", 0, "stream"),
    "services": ("services",),
    "a service": ("services", 0),
    "health": ("health",),
    "a health path": ("health", 0),
    "max_upload_bytes": ("max_upload_bytes",),
    "request_metrics": ("request_metrics",),
}
#: Exceptions: values that are valid in that field.
FINE = {
    ("full chain", ""),
    ("routes", "[]"),
    ("health", "[]"),
    ("max_upload_bytes", "0"),
    ("max_upload_bytes", "65536"),
    ("stream", "true"),
    ("stream", "false"),
    ("request_metrics", "true"),
    ("request_metrics", "false"),
}


def changed(document: dict[str, Any], place: tuple[object, ...], value: object) -> dict[str, Any]:
    """Return the document with a changed value at a path."""
    found = copy.deepcopy(document)
    inner: Any = found
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return found


def accepted(data: bytes) -> None:
    """Validate a document as the program does before it renders the site. Raises SiteError."""
    check(parse_site(data), RULES)


def test_site_of_an_application_is_accepted_under_its_rules() -> None:
    accepted(encoded(site_document()))


@pytest.mark.parametrize(
    ("place", "text"), [(place, text) for place in TEXT_PLACES for text in TEXTS if (place, text) not in FINE]
)
def test_hostile_text_is_refused_in_every_field(place: str, text: str) -> None:
    with pytest.raises(SiteError):
        accepted(encoded(changed(site_document(), PLACES[place], text)))


@pytest.mark.parametrize(
    ("place", "value"),
    [(place, value) for place in PLACES for value in VALUES if (place, json.dumps(value)) not in FINE],
)
def test_value_of_a_wrong_type_is_refused_in_every_field(place: str, value: object) -> None:
    with pytest.raises(SiteError):
        accepted(encoded(changed(site_document(), PLACES[place], value)))


@pytest.mark.parametrize("place", [place for place, steps in PLACES.items() if isinstance(steps[-1], str)])
def test_missing_field_and_unknown_field_are_refused(place: str) -> None:
    document = site_document()
    inner: Any = document
    for step in PLACES[place][:-1]:
        inner = inner[step]
    value = inner.pop(PLACES[place][-1])
    with pytest.raises(SiteError, match="missing"):
        accepted(encoded(document))
    inner |= {PLACES[place][-1]: value, "include": "/etc/shadow"}
    with pytest.raises(SiteError, match="unknown field"):
        accepted(encoded(document))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"1",
        b"{",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"{}\x00",
        b'{"services":1e999}',
        b'{"services":NaN}',
        b'{"services":Infinity}',
        b'{"services":[],"services":[]}',
        b'{"services":' + b"9" * 5_000 + b"}",
        b"[" * 200_000,
        b'{"services":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b" " * (LARGEST + 1),
        b'{"x":"' + b"a" * LARGEST + b'"}',
    ],
    ids=lambda data: repr(data[:30]),
)
def test_malformed_or_unbounded_document_is_refused(data: bytes) -> None:
    for parse in (parse_site, parse_rules, parse_request):
        with pytest.raises(SiteError):
            parse(data)


def _other_ports(document: dict[str, Any]) -> None:
    document["services"][0]["port"] = 9_999


def _neighbours_port(document: dict[str, Any]) -> None:
    document["services"][1]["blue"] = 18_090


def _one_port_twice(document: dict[str, Any]) -> None:
    document["services"][0]["green"] = document["services"][0]["blue"]


def _port_of_another_service(document: dict[str, Any]) -> None:
    document["services"][0]["blue"] = document["services"][1]["blue"]


def _one_name_twice(document: dict[str, Any]) -> None:
    document["services"][1]["name"] = document["services"][0]["name"]


def _one_route_twice(document: dict[str, Any]) -> None:
    document["services"][1]["routes"] = document["services"][0]["routes"]


def _own_path(document: dict[str, Any]) -> None:
    document["services"][0]["routes"][0]["prefix"] = "/_rolling/site"


def _path_upwards(document: dict[str, Any]) -> None:
    document["services"][0]["routes"][0]["prefix"] = "/a/../b"


def _unknown_chain(document: dict[str, Any]) -> None:
    document["full_chain"] = "nobody"


def _unknown_health(document: dict[str, Any]) -> None:
    document["health"][0]["service"] = "nobody"


def _one_health_path_twice(document: dict[str, Any]) -> None:
    document["health"][1]["path"] = document["health"][0]["path"]


@pytest.mark.parametrize(
    "change",
    [
        _other_ports,
        _neighbours_port,
        _one_port_twice,
        _port_of_another_service,
        _one_name_twice,
        _one_route_twice,
        _own_path,
        _path_upwards,
        _unknown_chain,
        _unknown_health,
        _one_health_path_twice,
    ],
)
def test_site_that_violates_its_rules_or_is_inconsistent_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    document = site_document()
    change(document)

    with pytest.raises(SiteError):
        accepted(encoded(document))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip  # noqa: E501
def test_arbitrary_json_document_raises_site_error(value: object) -> None:
    for parse in (parse_site, parse_rules, parse_request):
        with pytest.raises(SiteError):
            parse(json.dumps(value).encode())


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_site_error(data: bytes) -> None:
    for parse in (parse_site, parse_rules, parse_request):
        with pytest.raises(SiteError):
            parse(data)


def test_site_and_rules_are_read_back_as_they_were_written() -> None:
    site = commands.site(APP)

    assert parse_site(dump(site).encode()) == site
    assert parse_rules(dump(RULES).encode()) == RULES
    assert parse_request(dump_request(site, "0" * 16).encode()) == (site, "0" * 16)


@pytest.mark.parametrize("text", [text for text in TEXTS if text not in {"", "169.254.169.254"}], ids=repr)
@pytest.mark.parametrize("place", [("app",), ("domain",), ("tls", "certificate"), ("tls", "key"), ("tls", "chain")])
def test_rules_with_hostile_text_are_refused(place: tuple[object, ...], text: str) -> None:
    tls = {"certificate": "/etc/ssl/certs/shop.crt", "key": "/etc/ssl/private/shop.key", "chain": "", "acme": False}
    document = rules_document() | {"tls": tls}
    parse_rules(encoded(document))

    with pytest.raises(SiteError):
        parse_rules(encoded(changed(document, place, text)))


def test_rules_of_a_host_of_an_earlier_version_keep_the_ports_of_what_it_runs() -> None:
    live = application(backend(), frontend(), frontend(name="left", service_port=7003, routes=()))

    assert set(commands.rules(APP, live).ports) - set(RULES.ports) == {7003, 17003, 27003}
    assert RULES.missing(commands.rules(APP, live)) == "the loopback ports 7003, 17003, 27003"
    assert commands.rules(APP, live).missing(RULES) == ""


@pytest.mark.parametrize("port", [1, 25, 1023])
def test_privileged_ports_are_refused(port: int) -> None:
    with pytest.raises(SiteError, match="ports"):
        parse_rules(encoded(rules_document() | {"ports": [port]}))
    for name in ("port", "blue", "green"):
        document = json.loads(dump(commands.site(APP)))
        document["services"][0][name] = port
        with pytest.raises(SiteError, match=name):
            parse_site(encoded(document))
