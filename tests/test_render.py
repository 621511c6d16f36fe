"""The rendered files of hosts: the Nginx site, the boot unit, the maintenance page and the installed programs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.engine import request
from rolling_upgrade.engine.model import Application, Assets, Hsts, Route, SiteOptions, Tls
from tests.support.sample import application, backend, frontend, image

APP = application()
WORKER = frontend(name="job-worker", image=image("worker"), service_port=7002, routes=())


def directives(text: str, name: str) -> list[str]:
    return re.findall(rf"^\s*{name}\s+(.*);$", text, re.MULTILINE)


@pytest.mark.parametrize(
    "app",
    [
        APP,
        replace(APP, tls=Tls("/c", "/k", "/chain")),
        application(backend(), WORKER, frontend()),
        replace(APP, full_chain=None),
    ],
)
def test_nginx_site_braces_close_and_no_template_syntax_remains(app: Application) -> None:
    site = rendering.nginx_site(app)

    assert site.count("{") == site.count("}")
    assert not re.search(r"\{\{|\}\}|\{%|%\}", site)
    assert site.endswith("}\n")


def test_nginx_site_rendered_twice_is_equal() -> None:
    assert rendering.nginx_site(APP) == rendering.nginx_site(APP)


def test_nginx_site_first_line_carries_the_hash_that_loopback_answers() -> None:
    site = rendering.nginx_site(APP)
    found = rendering.site_hash(site)

    assert re.fullmatch(r"[0-9a-f]{16}", found)
    assert directives(site, "return 200") == [f'"{found}"'] * 2
    assert site.splitlines()[1] == "# rolling-port: 8080"


@pytest.mark.parametrize(
    "changed",
    [
        replace(APP, domain="other.test"),
        replace(APP, max_upload_bytes=1),
        replace(APP, tls=Tls("/c", "/k")),
        replace(APP, site=SiteOptions(gzip=True)),
        replace(APP, site=SiteOptions(domains=("www.shop.test",))),
        replace(APP, site=SiteOptions(trusted_proxies=("192.0.2.0/24",))),
        application(backend(routes=(Route("/api/", timeout_seconds=90),)), frontend()),
        application(backend(), frontend(service_port=7009)),
        application(backend(), WORKER, frontend()),
    ],
)
def test_site_hash_changes_with_the_site(changed: Application) -> None:
    assert rendering.site_hash(rendering.nginx_site(changed)) != rendering.site_hash(rendering.nginx_site(APP))


def test_site_hash_does_not_change_with_an_image_or_a_secret() -> None:
    other = application(backend(image=image("backend", "v9", "sha256:" + "9" * 64), env=(("K", "v"),)), frontend())

    assert rendering.nginx_site(other) == rendering.nginx_site(APP)


def test_nginx_site_routes_visitors_never_to_the_idle_color() -> None:
    upstreams = {
        name: re.findall(r"server 127\.0\.0\.1:(\d+)( backup)? max_fails=0;", body)
        for name, body in re.findall(r"upstream (\S+) \{(.*?)\}", rendering.nginx_site(APP), re.DOTALL)
    }

    assert upstreams == {
        "shop_backend_blue": [("18080", ""), ("8080", " backup")],
        "shop_backend_blue_only": [("18080", "")],
        "shop_backend_blue_standby": [("18080", ""), ("28080", " backup")],
        "shop_backend_green": [("28080", ""), ("8080", " backup")],
        "shop_backend_green_only": [("28080", "")],
        "shop_backend_green_standby": [("28080", ""), ("18080", " backup")],
        "shop_frontend_blue": [("17001", ""), ("7001", " backup")],
        "shop_frontend_blue_only": [("17001", "")],
        "shop_frontend_blue_standby": [("17001", ""), ("27001", " backup")],
        "shop_frontend_green": [("27001", ""), ("7001", " backup")],
        "shop_frontend_green_only": [("27001", "")],
        "shop_frontend_green_standby": [("27001", ""), ("17001", " backup")],
    }


@pytest.mark.parametrize("tls", [None, Tls("/c", "/k", acme=True)])
def test_nginx_site_sends_requests_only_to_its_own_upstreams(tls: Tls | None) -> None:
    site = rendering.nginx_site(replace(APP, tls=tls))
    upstreams = set(re.findall(r"upstream (\S+) \{", site))
    colors = {name: {"blue", "green"} for name in ("$shop_1_color", "$shop_2_color")}
    targets = {"blue_only", "green_only", "blue_standby", "green_standby"}
    colors |= {name.replace("_color", "_target"): targets for name in colors}

    reached = directives(site, "proxy_pass")
    for target in set(reached) - {"http://127.0.0.1:402"}:
        prefix, _, variable = target.removeprefix("http://").partition("_$shop")
        assert {f"{prefix}_{value}" for value in colors[f"$shop{variable}"]} <= upstreams, target
    assert reached.count("http://127.0.0.1:402") == (1 if tls else 0)


def test_nginx_site_request_metrics_count_only_visitors_of_a_color() -> None:
    site = rendering.nginx_site(replace(APP, request_metrics=True))
    (pattern,) = re.findall(r"map \$proxy_host/\$shop_asking \$shop_counted \{ default 0; ~(\S+) 1; \}", site)
    (agent,) = re.findall(r"map \$http_user_agent \$shop_asking \{ default visitor; (\S+) probe; \}", site)
    upstreams = re.findall(r"upstream (\S+) \{", site)

    assert {name for name in upstreams if re.search(pattern, f"{name}/visitor")} == {
        f"shop_{service}_{color}" for service in ("backend", "frontend") for color in ("blue", "green")
    }
    assert not [name for name in upstreams if re.search(pattern, f"{name}/probe")]
    assert f"-A {agent} " in request.status(request.to_site(APP), 5, "")


def test_nginx_site_service_ports_listen_only_on_loopback() -> None:
    assert directives(rendering.nginx_site(APP), "listen") == ["127.0.0.1:8080", "127.0.0.1:7001", "80", "[::]:80"]


def test_nginx_site_with_a_certificate_redirects_plain_requests() -> None:
    site = rendering.nginx_site(replace(APP, tls=Tls("/c", "/k", "/chain"), https_port=8443))

    assert directives(site, "return 301") == ["https://$host:8443$request_uri"]
    assert directives(site, "ssl_certificate") == ["/usr/local/lib/shop/certificate.pem"]
    assert directives(site, "ssl_certificate_key") == ["/k"]


def test_nginx_site_without_a_chain_sends_the_certificate_of_the_operator() -> None:
    assert directives(rendering.nginx_site(replace(APP, tls=Tls("/c", "/k"))), "ssl_certificate") == ["/c"]


def test_nginx_site_redirect_omits_the_default_tls_port() -> None:
    assert "https://$host$request_uri" in rendering.nginx_site(replace(APP, tls=Tls("/c", "/k")))


#: A site with further domains, a redirect, and routes of one domain.
WIDE = replace(
    application(
        backend(routes=(Route("/api/", stream=True), Route("/", domains=("api.shop.test",), timeout_seconds=90))),
        frontend(routes=(Route("/", domains=("shop.test", "eu.shop.test")),)),
    ),
    tls=Tls("/c", "/k"),
    site=SiteOptions(
        domains=("api.shop.test", "eu.shop.test", "www.shop.test"),
        redirects=(("www.shop.test", "shop.test"),),
        hsts=Hsts(3600, include_subdomains=True),
    ),
)


def servers(site: str) -> dict[str, str]:
    """The text of each public TLS server, by its first domain."""
    blocks = re.findall(r"^server \{\n(.*?)^\}", site, re.MULTILINE | re.DOTALL)
    return {directives(block, "server_name")[0].split()[0]: block for block in blocks if "ssl_certificate " in block}


def test_nginx_site_has_a_server_for_each_set_of_routes() -> None:
    found = servers(rendering.nginx_site(WIDE))

    assert set(found) == {"shop.test", "api.shop.test", "www.shop.test"}
    assert directives(found["shop.test"], "server_name") == ["shop.test eu.shop.test"]
    routed = {name: re.findall(r"location / \{.*?proxy_pass (\S+);", text, re.DOTALL) for name, text in found.items()}
    assert routed == {
        "shop.test": ["http://shop_frontend_$shop_2_color"],
        "api.shop.test": ["http://shop_backend_$shop_1_color"],
        "www.shop.test": [],
    }


def test_nginx_site_redirects_keep_path_and_query_and_end_at_the_right_scheme() -> None:
    assert directives(servers(rendering.nginx_site(WIDE))["www.shop.test"], "return") == [
        "301 https://shop.test$request_uri"
    ]
    plain = replace(WIDE, tls=None, http_port=8080, services=(frontend(service_port=7001, routes=(Route("/"),)),))
    assert "return 301 http://shop.test:8080$request_uri;" in rendering.nginx_site(replace(plain, full_chain=None))
    behind = replace(plain.site, trusted_proxies=("192.0.2.0/24",))
    assert "return 301 $shop_visible_scheme://shop.test$request_uri;" in rendering.nginx_site(
        replace(plain, full_chain=None, site=behind)
    )


@pytest.mark.parametrize("acme", [True, False])
def test_nginx_site_every_domain_answers_the_certificate_authority(acme: bool) -> None:
    site = rendering.nginx_site(replace(WIDE, tls=Tls("/c", "/k", acme=acme)))

    blocks = [
        text for text in re.findall(r"^server \{\n(.*?)^\}", site, re.MULTILINE | re.DOTALL) if "listen 80;" in text
    ]
    names = {
        name for block in blocks if "acme-challenge" in block for name in directives(block, "server_name")[0].split()
    }
    assert names == (set(WIDE.domains) if acme else set())


def test_nginx_site_every_served_domain_shows_the_maintenance_page_and_hides_internal_paths() -> None:
    found = servers(rendering.nginx_site(WIDE))

    for name in ("shop.test", "api.shop.test"):
        assert "location ^~ /_rolling/ { return 404; }" in found[name]
        assert "error_page 503 /_rolling/maintenance;" in found[name]
        assert found[name].count("live/maintenance.html) { return 503; }") == 2
    assert "location = /health {" in found["shop.test"]
    assert (
        "proxy_pass http://shop_backend_$shop_1_color;" in found["api.shop.test"].partition("location = /health {")[2]
    )


def test_nginx_site_port_of_the_full_chain_has_only_routes_of_all_domains_of_its_service() -> None:
    site = rendering.nginx_site(WIDE)
    port = site.partition("# frontend on its service port")[2].partition("\n}\n")[0]

    assert re.findall(r"location (/\S*) \{", port) == ["/api/", "/"]
    limited = replace(WIDE.services[0], routes=(Route("/api/", domains=("api.shop.test",)),))
    site = rendering.nginx_site(replace(WIDE, services=(limited, WIDE.services[1])))
    port = site.partition("# frontend on its service port")[2].partition("\n}\n")[0]
    assert re.findall(r"location (/\S*) \{", port) == ["/"]


def test_nginx_site_takes_address_and_scheme_from_trusted_proxies_alone() -> None:
    site = rendering.nginx_site(replace(APP, site=SiteOptions(trusted_proxies=("192.0.2.0/24", "2400:cb00::/32"))))
    public = site.partition("# The public server.")[2]

    assert directives(public, "set_real_ip_from") == ["192.0.2.0/24", "2400:cb00::/32"]
    assert re.search(r"geo \$realip_remote_addr \$shop_trusted \{\s+default 0;\s+192.0.2.0/24 1;", site)
    assert set(directives(public, "proxy_set_header X-Forwarded-Proto")) == {"$shop_visible_scheme"}
    assert set(directives(public, "proxy_set_header X-Forwarded-For")) == {"$remote_addr"}


def test_nginx_site_without_trusted_proxies_believes_no_header_of_a_visitor() -> None:
    public = rendering.nginx_site(APP).partition("# The public server.")[2]

    assert "real_ip" not in public
    assert "$http_x_forwarded" not in public
    assert set(directives(public, "proxy_set_header X-Forwarded-Proto")) == {"$scheme"}
    assert set(directives(public, "proxy_set_header Forwarded")) == {'""'}


def test_nginx_site_sends_a_request_again_only_after_a_refused_connection() -> None:
    site = rendering.nginx_site(APP)

    assert set(directives(site, "proxy_next_upstream")) == {"error"}
    assert set(directives(site, "proxy_next_upstream_timeout")) == {"1s"}
    assert len(directives(site, "proxy_next_upstream")) == site.count("listen 127.0.0.1:") + 1


def test_nginx_site_service_port_waits_and_accepts_as_much_as_the_routes() -> None:
    routes = (Route("/a/", timeout_seconds=7200, max_body_bytes=2**40), Route("/b/", timeout_seconds=5))
    site = rendering.nginx_site(application(backend(routes=routes), full_chain=None))
    port, _, public = site.partition("# The public server.")

    assert (directives(port, "proxy_read_timeout"), directives(port, "client_max_body_size")) == (
        ["7200s"],
        [str(2**40)],
    )
    assert directives(public, "proxy_read_timeout") == ["7200s", "5s"]
    unlimited = rendering.nginx_site(application(backend(routes=(Route("/", max_body_bytes=0),)), full_chain=None))
    assert set(directives(unlimited.partition("# The public server.")[0], "client_max_body_size")) == {"0"}


def test_nginx_site_health_path_below_a_stripped_prefix_bypasses_the_page() -> None:
    app = application(backend(routes=(Route("/backend", strip_prefix=True),)), frontend())
    public = rendering.nginx_site(app).partition("# The public server.")[2]

    assert "location = /backend/api/health {\n        rewrite (?s)^/backend(?:/(.*))?\\z /$1 break;" in public


def location(text: str, path: str) -> str:
    """The content of a location."""
    return re.findall(rf"^    location {re.escape(path)} \{{\n(.*?)^    \}}", text, re.MULTILINE | re.DOTALL)[0]  # type: ignore[no-any-return]


def test_nginx_site_files_of_earlier_releases_replace_only_a_404_of_the_application() -> None:
    routes = (Route("/"), Route("/app/", strip_prefix=True, response_headers=(("X-Own", "a"), ("X-Gone", ""))))
    site = rendering.nginx_site(application(backend(), frontend(routes=routes, assets=Assets("/x", "/app/assets"))))
    public = site.partition("# The public server.")[2]
    serving, kept = location(public, "/app/assets/"), location(public, "@shop_2_assets")

    assert directives(serving, "error_page") == ["404 = @shop_2_assets", "503 /_rolling/maintenance"]
    assert "live/maintenance.html) { return 503; }" in serving
    assert "rewrite (?s)^/app(?:/(.*))?\\z /$1 break;" in serving
    assert directives(kept, "root") == ["/var/lib/shop/assets/frontend/files"]
    assert directives(kept, "disable_symlinks") == ["on from=/var/lib/shop"]
    assert directives(kept, "rewrite") == ["(?s)^/assets/(.*)\\z /$1 break"]
    assert directives(kept, "add_header") == ['X-Own "a" always']
    assert "proxy_intercept_errors" not in location(public, "/app/") + location(public, "/")


def test_nginx_site_assets_replace_a_route_of_their_path_and_follow_the_domains_of_their_route() -> None:
    routes = (Route("/assets/", domains=("api.shop.test",), timeout_seconds=7), Route("/", domains=("api.shop.test",)))
    app = application(
        backend(routes=(Route("/"), Route("/api/"))[1:]),
        frontend(routes=routes, assets=Assets("/x", "/assets")),
        site=SiteOptions(domains=("api.shop.test",)),
    )
    first, second = rendering.nginx_site(app).split("# The public server")[1:]

    assert ("assets" in first, second.count("location /assets/ {")) == (False, 1)
    assert directives(location(second, "/assets/"), "proxy_read_timeout") == ["7s"]


def test_nginx_site_page_with_a_password_hides_it_from_the_service() -> None:
    options = SiteOptions(password_hashes=(("ann", "$6$salt$" + "a" * 86),))
    own = Route("/own/", users=("ann",), request_headers=(("Authorization", "Bearer x"),))
    site = rendering.nginx_site(
        application(frontend(routes=(Route("/", users=("ann",)), own)), full_chain=None, site=options)
    )
    public = site.partition("# The public server.")[2]

    assert directives(location(public, "/"), "proxy_set_header Authorization") == ['""']
    assert directives(location(public, "/own/"), "proxy_set_header Authorization") == ['"Bearer x"']
    assert len(directives(public, "auth_basic")) == len(directives(public, "proxy_pass")) == 3
    assert "auth_basic" not in site.partition("# The public server.")[0]


def test_nginx_site_reads_the_flags_that_a_flip_writes() -> None:
    from rolling_upgrade.engine.nginx import flag

    site = rendering.nginx_site(APP)

    assert f"if (-f {flag(APP, 'backend')})" in site
    assert f"if (-f {flag(APP, 'frontend')})" in site


def test_nginx_site_names_the_color_only_on_loopback() -> None:
    public = rendering.nginx_site(APP).partition("# The public server.")[2]

    assert "add_header X-Served-By" not in public
    assert public.count("proxy_hide_header X-Served-By;") == public.count("proxy_pass ")
    assert "/_rolling/site" not in public
    assert "location ^~ /_rolling/ { return 404; }" in public


def test_nginx_site_variables_of_a_name_with_a_dash_are_valid() -> None:
    site = rendering.nginx_site(replace(application(backend(), WORKER, frontend()), name="my-shop"))

    assert "set $my_shop_2_color blue;" in site
    assert not re.search(r"\$[a-z_]+-", site)


def test_nginx_site_variables_of_the_longest_names_fit_the_hash_buckets() -> None:
    """Source: ngx_hash.h: an entry is a pointer, two bytes and the name, aligned, and one more pointer in 64 bytes."""
    service = replace(backend(), name="s" * 31)
    site = rendering.nginx_site(replace(application(service, frontend()), name="a" * 31, request_metrics=True))

    assert max(len(name) for name in re.findall(r"\$\{?(\w+)", site)) <= 46


def test_nginx_site_only_a_web_socket_upgrades_the_protocol() -> None:
    site = rendering.nginx_site(APP)

    assert "map $http_upgrade $shop_upgrade { default ''; ~*^websocket$ websocket; }" in site
    assert set(directives(site, "proxy_set_header Upgrade")) == {"$shop_upgrade"}
    assert set(directives(site, "proxy_set_header Connection")) == {"$shop_connection"}


def test_boot_unit_starts_the_installed_program() -> None:
    assert directives_of_unit()["ExecStart"] == "/usr/local/lib/shop/boot"


def test_boot_unit_stop_leaves_the_containers_running() -> None:
    assert directives_of_unit()["KillMode"] == "process"


def directives_of_unit() -> dict[str, str]:
    return dict(line.split("=", 1) for line in rendering.systemd_unit("boot.service", APP).splitlines() if "=" in line)


@pytest.mark.parametrize("name", ["boot", "requests"])
def test_host_program_starts_with_a_shell_shebang(name: str) -> None:
    assert rendering.host_program(name).startswith("#!/bin/sh\n")


def test_maintenance_page_escapes_its_message() -> None:
    page = rendering.maintenance_page(APP, '<script>alert("x")</script> & {{ app }}')

    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_maintenance_page_loads_no_external_resource() -> None:
    assert not re.search(r"https?:|src=|href=|url\(|@import", rendering.maintenance_page(APP))


def test_nginx_site_page_replaces_public_routes_but_no_health_path() -> None:
    public = rendering.nginx_site(APP).partition("# The public server.")[2]
    blocks = dict(re.findall(r"^    location ((?:= )?\S+) \{\n(.*?)^    \}", public, re.MULTILINE | re.DOTALL))

    gives_way = {name for name, body in blocks.items() if "live/maintenance.html) { return 503; }" in body}
    own = {name for name in blocks if name.startswith("= /_rolling/")}
    assert (gives_way, set(blocks) - gives_way - own) == ({"/api/", "/"}, {"= /api/health", "= /health"})


def test_nginx_site_loopback_ports_never_show_the_page() -> None:
    assert "maintenance" not in rendering.nginx_site(APP).partition("# The public server.")[0]


def _parsed_imports(body: list[ast.stmt]) -> Iterator[str]:
    """Yield what a parser finds: every imported module of this package, except imports for type checkers."""
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        for name in ("body", "orelse", "finalbody"):
            yield from _parsed_imports(getattr(node, name, []))
        for part in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
            yield from _parsed_imports(part.body)


def test_imported_modules_are_those_that_a_parser_finds() -> None:
    package = Path(rendering.__file__).parent
    for path in package.rglob("*.py"):
        source = path.read_text("utf-8")
        parsed = {name for name in _parsed_imports(ast.parse(source).body) if name.split(".")[0] == package.name}
        assert rendering.imported_modules(source) >= parsed, path
        if path.name != "rendering.py":  # it contains programs as text
            assert rendering.imported_modules(source) == parsed, path
