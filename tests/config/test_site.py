"""The site in services.yaml: domains, redirects, proxies and options of routes, and what the host would refuse."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml

from rolling_upgrade.config.site import CLOUDFLARE
from rolling_upgrade.engine.model import Application, Assets, Hsts, Route, SiteOptions
from rolling_upgrade.errors import ConfigError, ConfigIssue
from tests.support.project import Project

BACKEND, FRONTEND = 0, 1


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with the services of the example."""
    return Project(tmp_path)


def declare(project: Project, site: object = None, *, routes: object = None, service: int = FRONTEND) -> None:
    """Write a site, and the routes of one service."""
    path = project.root / "deploy/services.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    if site is not None:
        content["site"] = site
    if routes is not None:
        content["services"][service]["routes"] = routes
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def loaded(project: Project) -> Application:
    return project.load().targets[0].application


def issues(project: Project) -> list[ConfigIssue]:
    with pytest.raises(ConfigError) as caught:
        project.load()
    return list(caught.value.issues)


def test_site_of_the_example_has_the_defaults(project: Project) -> None:
    app = loaded(project)

    assert app.site == SiteOptions()
    assert (app.domains, app.served_domains) == (("files.example.org",), ("files.example.org",))


def test_domains_are_literals_or_keys_and_the_primary_one_stays_first(project: Project) -> None:
    project.env({"API_DOMAIN": "API.example.org", "BARE": "example.org"})
    domains = ["API_DOMAIN", "Files.Example.org", "more.${BARE}"]
    declare(project, {"domains": domains, "redirects": {"www.${BARE}": "DOMAIN_NAME"}})

    app = loaded(project)

    assert app.domains == ("files.example.org", "api.example.org", "more.example.org", "www.example.org")
    assert app.site.redirects == (("www.example.org", "files.example.org"),)
    assert app.served_domains == ("files.example.org", "api.example.org", "more.example.org")


def test_cloudflare_is_its_published_networks(project: Project) -> None:
    declare(project, {"trusted_proxies": ["Cloudflare", "192.0.2.7", "10.0.0.0/8", "10.0.0.0/8"]})

    assert loaded(project).site.trusted_proxies == (*CLOUDFLARE, "192.0.2.7/32", "10.0.0.0/8")
    assert len(CLOUDFLARE) == len({ipaddress.ip_network(network) for network in CLOUDFLARE}) == 22


def test_options_of_the_site_are_read(project: Project) -> None:
    hsts = {"max_age": "365d", "include_subdomains": "true"}
    declare(project, {"http2": "false", "gzip": "true", "hsts": hsts, "max_header_size": "64KB"})

    assert loaded(project).site == SiteOptions(
        http2=False, gzip=True, hsts=Hsts(31_536_000, include_subdomains=True), header_bytes=65_536
    )


def test_options_of_a_route_are_read(project: Project) -> None:
    project.env({"TENANT": "acme"})
    route = {
        "prefix": "/v1/",
        "domains": ["api.example.org"],
        "timeout": "2m",
        "max_body": "1GB",
        "strip_prefix": "true",
        "request_headers": {"X-Tenant": "${TENANT}", "Cookie": ""},
        "response_headers": {"X-Frame-Options": "DENY", "Content-Security-Policy": "default-src 'self'"},
    }
    declare(project, {"domains": ["api.example.org"]}, routes=[{"prefix": "/"}, route])

    assert loaded(project).services[FRONTEND].routes == (
        Route("/"),
        Route(
            "/v1/",
            domains=("api.example.org",),
            timeout_seconds=120,
            max_body_bytes=2**30,
            strip_prefix=True,
            request_headers=(("X-Tenant", "acme"), ("Cookie", "")),
            response_headers=(("X-Frame-Options", "DENY"), ("Content-Security-Policy", "default-src 'self'")),
        ),
    )


HASH = "$6$salt$" + "a" * 86


def test_users_of_a_route_have_the_hashes_of_their_keys(project: Project) -> None:
    project.env({"ANN": HASH, "BOB": "$2y$10$" + "b" * 53})
    declare(project, routes=[{"prefix": "/", "basic_auth": {"ann": "ANN", "bob": "BOB"}}])
    declare(project, routes=[{"prefix": "/api/", "basic_auth": {"ann": "ANN"}}], service=BACKEND)

    app, environment = loaded(project), project.load()

    assert app.services[FRONTEND].routes[0].users == ("ann", "bob")
    assert app.site.password_hashes == (("ann", HASH), ("bob", "$2y$10$" + "b" * 53))
    assert HASH in environment.secrets
    assert HASH not in repr(environment)


@pytest.mark.parametrize(
    ("value", "found"), [("correct horse", "not a password hash"), ("$2y$31$" + "b" * 53, "not a password hash")]
)
def test_password_in_place_of_its_hash_is_refused_and_not_shown(project: Project, value: str, found: str) -> None:
    project.env({"ANN": value})
    declare(project, routes=[{"prefix": "/", "basic_auth": {"ann": "ANN"}}])

    (issue,) = issues(project)

    assert (issue.path, issue.found, value in str(issue)) == ("ANN", found, False)


def test_missing_hash_and_a_second_password_of_a_user_are_refused(project: Project) -> None:
    project.env({"ANN": HASH, "ANOTHER": HASH})
    routes = [{"prefix": "/", "basic_auth": {"ann": "ANN"}}, {"prefix": "/x", "basic_auth": {"ann": "ANOTHER"}}]
    declare(project, routes=[*routes, {"prefix": "/y", "basic_auth": {"bob": "NOBODY"}}])

    assert [(issue.path, issue.found) for issue in issues(project)] == [
        ("ANOTHER", "another password of ann"),
        ("NOBODY", ""),
    ]


def test_header_in_capitals_is_a_literal_also_when_a_key_has_its_name(project: Project) -> None:
    project.env({"DENY": "another value"})
    declare(project, routes=[{"prefix": "/", "response_headers": {"X-Frame-Options": "DENY"}}])

    assert loaded(project).services[FRONTEND].routes[0].response_headers == (("X-Frame-Options", "DENY"),)


def test_routes_of_different_domains_may_have_one_prefix(project: Project) -> None:
    site = {"domains": ["api.example.org"]}
    declare(project, site, routes=[{"prefix": "/", "domains": ["api.example.org"]}], service=BACKEND)
    declare(project, routes=[{"prefix": "/", "domains": ["DOMAIN_NAME"]}])

    assert [service.routes[0].domains for service in loaded(project).services] == [
        ("api.example.org",),
        ("files.example.org",),
    ]


@pytest.mark.parametrize(
    ("site", "place", "expected"),
    [
        ({"domains": ["a b"]}, "site.domains[0]", "a domain name"),
        ({"domains": ["API_DOMAIN"]}, "API_DOMAIN", "a domain name"),
        ({"redirects": {"www.example.org": "exa mple.org"}}, "site.redirects.www.example.org", "a domain name"),
        ({"trusted_proxies": ["0.0.0.0/0"]}, "site.trusted_proxies[0]", "a network such as"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "site.trusted_proxies[0]", "a network such as"),
        ({"hsts": {"max_age": "5y"}}, "site.hsts.max_age", "a duration"),
        ({"max_header_size": "1KB"}, "site.max_header_size", "from 4KB to 256KB"),
        ({"http3": "true"}, "site.http3", "a known key"),
    ],
)
def test_invalid_value_of_the_site_is_refused(
    project: Project, site: dict[str, object], place: str, expected: str
) -> None:
    declare(project, site)

    found = issues(project)

    assert [(issue.path, expected in issue.expected) for issue in found] == [(place, True)]


@pytest.mark.parametrize(
    ("route", "place", "expected"),
    [
        ({"timeout": "25h"}, "timeout", "a duration"),
        ({"timeout": "0"}, "timeout", "a duration"),
        ({"max_body": "-1"}, "max_body", "a size"),
        ({"domains": ["nope.example.org;"]}, "domains[0]", "a domain name"),
        ({"request_headers": {"X Tenant": "a"}}, "request_headers.X Tenant", "the name of a header"),
        ({"request_headers": {"X-Tenant": "$host"}}, "request_headers.X-Tenant", "without `$`"),
        ({"request_headers": {"X-Tenant": "a\nb"}}, "request_headers.X-Tenant", "without `$`"),
        ({"request_headers": {"X-Tenant": "${NOTHING}"}}, "NOTHING", "a value, because"),
        ({"request_headers": {"X-Tenant": "${JWT_SECRET_KEY}"}}, "request_headers.X-Tenant", "without secrets"),
        ({"response_headers": {"X-Tenant": "${LINE}"}}, "response_headers.X-Tenant", "without `$`"),
    ],
)
def test_invalid_value_of_a_route_is_refused(
    project: Project, route: dict[str, object], place: str, expected: str
) -> None:
    project.env({"LINE": "a\\b"})
    declare(project, routes=[{"prefix": "/", **route}])

    (issue,) = issues(project)

    assert (issue.path.removeprefix("services[1].routes[0]."), expected in issue.expected) == (place, True)


@pytest.mark.parametrize(
    ("site", "routes", "why"),
    [
        ({"redirects": {"files.example.org": "www.example.org"}, "domains": ["www.example.org"]}, None, "redirect"),
        ({"redirects": {"www.example.org": "other.example.org"}}, None, "other.example.org"),
        ({}, [{"prefix": "/_rolling/x"}], "reserved"),
        ({}, [{"prefix": "/", "strip_prefix": "true"}], "no prefix to strip"),
        ({}, [{"prefix": "/", "request_headers": {"Host": "x"}}], "cannot set the header host"),
        ({}, [{"prefix": "/", "response_headers": {"Set-Cookie": "x=y"}}], "cannot set the header set-cookie"),
    ],
)
def test_site_that_the_host_would_refuse_is_refused(
    project: Project, site: dict[str, object], routes: object, why: str
) -> None:
    declare(project, site, routes=routes)

    (issue,) = issues(project)

    assert (issue.file, issue.path, why in issue.found) == ("deploy/services.yaml", "site", True), issue


def test_domain_without_a_route_on_any_host_is_refused(project: Project) -> None:
    declare(project, {"domains": ["api.example.org"]}, routes=[{"prefix": "/", "domains": ["DOMAIN_NAME"]}])
    declare(project, routes=[{"prefix": "/api/", "domains": ["DOMAIN_NAME"]}], service=BACKEND)

    (issue,) = issues(project)

    assert (issue.path, issue.found) == ("site.domains", "api.example.org without a route")


def test_assets_of_a_service_are_read(project: Project) -> None:
    path = project.root / "deploy/services.yaml"
    content = yaml.safe_load(path.read_text())
    content["services"][FRONTEND]["assets"] = {"path": "/app/public/assets", "prefix": "/assets/"}
    path.write_text(yaml.safe_dump(content))

    assert loaded(project).services[FRONTEND].assets == Assets("/app/public/assets", "/assets")


@pytest.mark.parametrize(
    ("assets", "place"),
    [
        ({"path": "public", "prefix": "/assets"}, "services[1].assets.path"),
        ({"path": "/app/../etc", "prefix": "/assets"}, "services[1].assets.path"),
        ({"path": "/app", "prefix": "assets"}, "services[1].assets.prefix"),
        ({"path": "/app", "prefix": "/"}, "site"),
        ({"path": "/app"}, "services[1].assets.prefix"),
    ],
)
def test_invalid_assets_are_refused(project: Project, assets: dict[str, str], place: str) -> None:
    path = project.root / "deploy/services.yaml"
    content = yaml.safe_load(path.read_text())
    content["services"][FRONTEND]["assets"] = assets
    path.write_text(yaml.safe_dump(content))

    assert [issue.path for issue in issues(project)] == [place]


def test_keys_that_only_the_site_names_are_known(project: Project) -> None:
    project.env({"WWW": "www.example.org", "PROXY": "192.0.2.1", "TENANT": "a"})
    route = {"prefix": "/", "request_headers": {"X-Tenant": "${TENANT}"}}
    declare(project, {"redirects": {"WWW": "DOMAIN_NAME"}, "trusted_proxies": ["PROXY"]}, routes=[route])

    assert not [warning for warning in project.load().warnings if "unknown" in warning]


def test_password_in_place_of_the_key_of_its_hash_is_refused_and_not_shown(project: Project) -> None:
    declare(project, routes=[{"prefix": "/", "basic_auth": {"ann": "correct-horse"}}])

    (issue,) = project.issues()

    assert (issue.path.endswith("basic_auth.ann"), issue.found) == (True, "a secret of 13 characters")
    assert issue.expected == "the env key with the hash of the password, such as ANN_HASH"


def test_domain_of_a_route_that_the_site_lacks_is_an_error_with_its_service(project: Project) -> None:
    declare(project, routes=[{"prefix": "/", "domains": ["other.example.org"]}])

    issue = project.issues()[0]

    assert (issue.path, issue.found) == ("site.domains", "other.example.org in a route of the service frontend")
    assert issue.expected.endswith("add others to `site.domains`")
