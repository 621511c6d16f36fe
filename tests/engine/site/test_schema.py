"""The schema of the site against hostile documents: every malformed or ungranted document raises SiteError."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolling_upgrade import rendering
from rolling_upgrade.engine.model import Assets, Hsts, Route, SiteOptions, Tls
from rolling_upgrade.engine.site import client as commands
from rolling_upgrade.engine.site import schema, text
from rolling_upgrade.engine.site.document import LARGEST, SiteError
from rolling_upgrade.engine.site.schema import (
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
TEMPLATE = (rendering.TEMPLATES / "nginx/site.conf.j2").read_text("utf-8")
#: An application that uses every option of the site.
FULL = application(
    backend(
        routes=(
            Route("/api/", stream=True),
            Route(
                "/v1/",
                domains=("api.shop.test",),
                timeout_seconds=90,
                max_body_bytes=1024,
                strip_prefix=True,
                users=("ann", "bob"),
                request_headers=(("X-Tenant", 'a "b"; {c}'), ("Cookie", "")),
                response_headers=(("Content-Security-Policy", "default-src 'self'"),),
            ),
        )
    ),
    frontend(assets=Assets("/app/public/assets", "/assets")),
    tls=Tls("/etc/ssl/certs/shop.crt", "/etc/ssl/private/shop.key"),
    site=SiteOptions(
        domains=("api.shop.test", "www.shop.test"),
        redirects=(("www.shop.test", "shop.test"),),
        trusted_proxies=("10.0.0.0/8", "2400:cb00::/32"),
        gzip=True,
        hsts=Hsts(3600, include_subdomains=True, preload=True),
        header_bytes=65_536,
        password_hashes=(("ann", "$6$salt$" + "a" * 86), ("bob", "$y$j9T$salt$" + "b" * 43)),
    ),
)
FULL_RULES = commands.rules(FULL)

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


#: The fields that an earlier version lacks, in the document of FULL.
OPTIONAL_TEXT_PLACES: dict[str, tuple[object, ...]] = {
    "domain": ("domains", 0),
    "redirect source": ("redirects", 0, "source"),
    "redirect target": ("redirects", 0, "target"),
    "route domain": ("services", 0, "routes", 1, "domains", 0),
    "health domain": ("health", 2, "domains", 0),
    "assets": ("services", 1, "assets"),
    "users": ("services", 0, "routes", 1, "users"),
    "request header": ("services", 0, "routes", 1, "request_headers", 0, "name"),
    "request header value": ("services", 0, "routes", 1, "request_headers", 0, "value"),
    "response header": ("services", 0, "routes", 1, "response_headers", 0, "name"),
    "response header value": ("services", 0, "routes", 1, "response_headers", 0, "value"),
}
OPTIONAL_PLACES: dict[str, tuple[object, ...]] = {
    **OPTIONAL_TEXT_PLACES,
    "domains": ("domains",),
    "redirects": ("redirects",),
    "a redirect": ("redirects", 0),
    "route domains": ("services", 0, "routes", 1, "domains"),
    "timeout": ("services", 0, "routes", 1, "timeout_seconds"),
    "max body": ("services", 0, "routes", 1, "max_body_bytes"),
    "strip prefix": ("services", 0, "routes", 1, "strip_prefix"),
    "request headers": ("services", 0, "routes", 1, "request_headers"),
    "a request header": ("services", 0, "routes", 1, "request_headers", 0),
    "response headers": ("services", 0, "routes", 1, "response_headers"),
    "http2": ("http2",),
    "gzip": ("gzip",),
    "hsts": ("hsts",),
    "hsts age": ("hsts", "max_age_seconds"),
    "hsts subdomains": ("hsts", "include_subdomains"),
    "hsts preload": ("hsts", "preload"),
    "header bytes": ("header_bytes",),
}
FINE |= {("users", ""), ("assets", "")}
#: Values of a header that are valid although they are hostile elsewhere: Nginx gets them in quotes.
FINE_HEADERS = {
    *("", "a;b", "a{b", "a}b", "a'b", 'a"b', "a#b", "a b", "x; access_log /etc/sudoers.d/x format", "= /x", "^~ /"),
    *("x;} include /etc/shadow;", "unix:/run/podman/podman.sock", "http://169.254.169.254", "169.254.169.254"),
    *("../../etc/passwd", "/../etc/passwd", "~* .*", "@named", "engine:/var/lib/shop/live/x.so:k", "{{ 7 * 7 }}"),
    *("{% include 'x' %}", "%00", "a" * 300),
}
#: Values of the wrong type that are valid in that field.
FINE_OPTIONS = {
    *(("domains", "[]"), ("redirects", "[]"), ("route domains", "[]"), ("request headers", "[]")),
    *(("response headers", "[]"), ("timeout", "0"), ("timeout", "65536"), ("max body", "0"), ("max body", "-1")),
    *(("max body", "65536"), ("header bytes", "65536"), ("hsts", "null"), ("hsts age", "0"), ("hsts age", "65536")),
    *((name, word) for name in ("strip prefix", "http2", "gzip") for word in ("true", "false")),
    *((name, word) for name in ("hsts subdomains", "hsts preload") for word in ("true", "false")),
    *(("request header value", '"8080"'), ("request header value", '"true"')),
    *(("response header value", '"8080"'), ("response header value", '"true"'), ("request header", '"true"')),
    *(("response header", '"true"'), ("request header value", '"/"')),
}


def changed(document: dict[str, Any], place: tuple[object, ...], value: object) -> dict[str, Any]:
    """Return the document with a changed value at a path."""
    found = copy.deepcopy(document)
    inner: Any = found
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return found


def accepted(data: bytes, rules: schema.Rules = RULES) -> None:
    """Validate a document as the program does before it renders the site. Raises SiteError."""
    check(parse_site(data), rules)


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
    ("place", "text"),
    [
        (place, text)
        for place in OPTIONAL_TEXT_PLACES
        for text in TEXTS
        if not (place.endswith("value") and text in FINE_HEADERS) and (place, text) not in FINE
    ],
)
def test_hostile_text_is_refused_in_every_option(place: str, text: str) -> None:
    with pytest.raises(SiteError):
        accepted(encoded(changed(site_document(FULL), OPTIONAL_PLACES[place], text)), FULL_RULES)


@pytest.mark.parametrize(
    ("place", "value"),
    [(place, value) for place in OPTIONAL_PLACES for value in VALUES if (place, json.dumps(value)) not in FINE_OPTIONS],
)
def test_value_of_a_wrong_type_is_refused_in_every_option(place: str, value: object) -> None:
    with pytest.raises(SiteError):
        accepted(encoded(changed(site_document(FULL), OPTIONAL_PLACES[place], value)), FULL_RULES)


def test_site_with_every_option_is_accepted_and_read_back() -> None:
    site = commands.site(FULL)

    accepted(encoded(site_document(FULL)), FULL_RULES)
    assert parse_site(dump(site).encode()) == site
    assert parse_rules(dump(FULL_RULES).encode()) == FULL_RULES


def test_documents_of_an_earlier_version_are_read_with_defaults() -> None:
    """A site and rules as version 0.2 wrote them."""
    site = (
        b'{"full_chain":"","health":[],"max_upload_bytes":1,"request_metrics":false,"services":[{"blue":18080,'
        b'"green":28080,"name":"backend","port":8080,"routes":[{"prefix":"/","stream":false}]}]}'
    )
    rules = b'{"app":"shop","domain":"shop.test","http_port":80,"https_port":443,"ports":[8080,18080,28080],"tls":null}'

    check(parse_site(site), parse_rules(rules))
    assert parse_site(site).routes == (schema.Route("/", stream=False),)
    assert (dump(parse_site(site)).encode(), dump(parse_rules(rules)).encode()) == (site, rules)


@given(st.text(max_size=40))
def test_any_accepted_header_value_is_one_quoted_word_of_nginx(value: str) -> None:
    """Nginx ends a quoted word at a quote without a backslash, and expands `$`."""
    document = changed(site_document(FULL), OPTIONAL_PLACES["request header value"], value)
    try:
        accepted(encoded(document), FULL_RULES)
    except SiteError:
        return
    rendered = text.render(parse_site(encoded(document)), FULL_RULES, TEMPLATE)
    rows = {row.strip() for row in rendered.split("\n") if row.strip().startswith("proxy_set_header X-Tenant ")}
    (word,) = (row.removeprefix("proxy_set_header X-Tenant ").removesuffix(";") for row in rows)

    assert re.fullmatch(r'"(?:[^"\\$]|\\")*"', word)
    assert word[1:-1].replace(r"\"", '"') == value


@pytest.mark.parametrize(
    "password_hash",
    [
        *("", "secret", "{PLAIN}secret", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "$1$salt$" + "a" * 22, "*", "!"),
        *("$6$salt$" + "a" * 85, "$6$salt$" + "a" * 86 + "\nroot:x", "$6$" + "a" * 17 + "$" + "a" * 86),
        # These would keep a worker of Nginx busy for every request.
        *("$6$rounds=999999999$salt$" + "a" * 86, "$2y$31$" + "a" * 53, "$2y$13$" + "a" * 53),
        *("$y$jFT$salt$" + "a" * 43, "$7$CU..../....salt$" + "a" * 43, "$gy$j9T$salt$" + "a" * 43),
        *TEXTS,
    ],
)
def test_text_that_is_no_affordable_password_hash_is_refused(password_hash: str) -> None:
    document = json.loads(dump_request(commands.request(FULL, "0" * 16)))
    parse_request(encoded(document))
    document["users"][0]["users"][0]["password_hash"] = password_hash

    with pytest.raises(SiteError):
        parse_request(encoded(document))


@pytest.mark.parametrize("name", ["a:b", "", "-x", "a b", "a\nb", "ö", "a" * 65])
def test_user_name_that_would_change_the_file_is_refused(name: str) -> None:
    document = json.loads(dump_request(commands.request(FULL, "0" * 16)))
    document["users"][0]["users"][0]["name"] = name

    with pytest.raises(SiteError):
        parse_request(encoded(document))


def test_no_representation_of_users_shows_a_hash() -> None:
    request = commands.request(FULL, "0" * 16)

    assert "a" * 86 not in repr(request) + repr(FULL) + text.render(request.site, FULL_RULES, TEMPLATE)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"domains": ["api.shop.test", "www.shop.test", "evil.test"]}, "evil.test does not belong"),
        ({"domains": ["api.shop.test", "www.shop.test", "API.shop.test"]}, "occurs twice"),
        ({"redirects": [{"source": "shop.test", "target": "www.shop.test"}]}, "cannot redirect"),
        ({"redirects": [{"source": "www.shop.test", "target": "evil.test"}]}, "evil.test does not belong"),
        ({"redirects": [{"source": "www.shop.test", "target": "www.shop.test"}]}, "serves nothing"),
        ({"redirects": 2 * [{"source": "www.shop.test", "target": "shop.test"}]}, "occurs twice"),
        ({"redirects": [{"source": "api.shop.test", "target": "shop.test"}]}, "no site at api.shop.test"),
    ],
)
def test_inconsistent_domains_are_refused(data: dict[str, object], why: str) -> None:
    with pytest.raises(SiteError, match=why):
        accepted(encoded(site_document(FULL) | data), FULL_RULES)


@pytest.mark.parametrize(
    ("route", "why"),
    [
        ({"domains": ["api.shop.test", "api.shop.test"]}, "occurs twice"),
        ({"domains": ["www.shop.test"]}, "no site at www.shop.test"),
        ({"prefix": "/", "domains": []}, "the route on shop.test / occurs twice"),
        ({"prefix": "/", "domains": ["api.shop.test"]}, "the route on api.shop.test / occurs twice"),
        ({"prefix": "/_rolling/x"}, "reserved"),
        ({"request_headers": [{"name": "HOST", "value": "x"}]}, "cannot set the header host"),
        ({"request_headers": [{"name": "X-Forwarded-For", "value": "x"}]}, "cannot set the header"),
        ({"request_headers": [{"name": "A", "value": "x"}, {"name": "a", "value": "y"}]}, "occurs twice"),
        ({"response_headers": [{"name": "X-Accel-Redirect", "value": "/_rolling/"}]}, "cannot set the header"),
        ({"response_headers": [{"name": "Set-Cookie", "value": "a=b"}]}, "cannot set the header"),
        ({"response_headers": [{"name": "Transfer-Encoding", "value": "chunked"}]}, "cannot set the header"),
    ],
)
def test_contradictory_or_reserved_options_of_a_route_are_refused(route: dict[str, object], why: str) -> None:
    document = site_document(FULL)
    document["services"][0]["routes"][1] |= route

    with pytest.raises(SiteError, match=why):
        accepted(encoded(document), FULL_RULES)


@pytest.mark.parametrize(
    ("prefix", "why"),
    [("/", "without a slash"), ("/a/", "without a slash"), ("/_rolling", "reserved"), ("/a/..", "reserved")],
)
def test_assets_below_an_unsuitable_prefix_are_refused(prefix: str, why: str) -> None:
    document = site_document(FULL)
    document["services"][1]["assets"] = prefix

    with pytest.raises(SiteError, match=why):
        accepted(encoded(document), FULL_RULES)


def test_assets_that_no_route_of_their_service_leads_to_are_refused() -> None:
    document = site_document(FULL)
    document["services"][0]["assets"] = "/assets"

    with pytest.raises(SiteError, match="no route of backend leads to its assets at /assets"):
        accepted(encoded(document), FULL_RULES)


def test_prefix_of_the_root_cannot_be_stripped() -> None:
    document = site_document(FULL)
    document["services"][1]["routes"][0]["strip_prefix"] = True

    with pytest.raises(SiteError, match="no prefix to strip"):
        accepted(encoded(document), FULL_RULES)


def test_domain_without_a_route_serves_nothing() -> None:
    """The services of a domain may run on other hosts."""
    document = site_document(FULL)
    document["services"][0]["routes"] = [{"prefix": "/api/", "stream": True, "domains": ["shop.test"]}]
    document["services"][1]["routes"][0]["domains"] = ["shop.test"]
    document["health"] = []

    rendered = text.render(parse_site(encoded(document)), FULL_RULES, TEMPLATE)

    assert "location / { return 404; }" in rendered.partition("# The public server of api.shop.test.")[2]


@pytest.mark.parametrize(
    "network",
    [
        *("0.0.0.0/0", "::/0", "10.0.0.1/8", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "fe80::1%eth0/64", "all", ""),
        *("cloudflare", "unix:", "10.0.0.0/255.0.0.0", "2400:CB00::/32", "10.0.0.0/8;", "10.0.0.0/8\n", 10, None),
    ],
)
def test_trusted_proxy_that_is_no_canonical_network_is_refused(network: object) -> None:
    with pytest.raises(SiteError):
        parse_rules(encoded(rules_document(FULL) | {"trusted": [network]}))


def test_domains_of_the_rules_are_distinct() -> None:
    with pytest.raises(SiteError, match="occurs twice"):
        parse_rules(encoded(rules_document(FULL) | {"domains": ["SHOP.test"]}))


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"domains": ("api.shop.test",)}, "the domain www.shop.test"),
        ({"domains": ("api.shop.test", "www.shop.test", "more.test")}, ""),
        ({"trusted": ()}, "the trusted proxies 10.0.0.0/8, 2400:cb00::/32"),
    ],
)
def test_missing_grant_of_an_option_is_named(changes: dict[str, Any], missing: str) -> None:
    assert replace(FULL_RULES, **changes).missing(FULL_RULES) == missing


def test_trusted_proxies_must_be_the_granted_ones() -> None:
    assert FULL_RULES.missing(replace(FULL_RULES, trusted=())) == "a site without trusted proxies"


def test_every_domain_conflicts_with_that_of_another_application() -> None:
    other = replace(RULES, app="notes", domain="notes.test", ports=(9000,), domains=("WWW.shop.test",))

    assert FULL_RULES.conflict(other) == "the domain www.shop.test"
    assert FULL_RULES.conflict(replace(other, http_port=8081, https_port=8444)) == ""


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
    request = commands.request(FULL, "0" * 16)
    assert parse_request(dump_request(request).encode()) == request


@pytest.mark.parametrize("text", [text for text in TEXTS if text not in {"", "169.254.169.254"}], ids=repr)
@pytest.mark.parametrize(
    "place",
    [("app",), ("domain",), ("domains", 0), ("trusted", 0), ("tls", "certificate"), ("tls", "key"), ("tls", "chain")],
)
def test_rules_with_hostile_text_are_refused(place: tuple[object, ...], text: str) -> None:
    tls = {"certificate": "/etc/ssl/certs/shop.crt", "key": "/etc/ssl/private/shop.key", "chain": "", "acme": False}
    document = rules_document(FULL) | {"tls": tls}
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
