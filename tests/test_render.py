"""The texts that hosts are given: the Nginx site for every kind of application, the boot unit, installed programs."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from fabfile import render
from fabfile.model import Application, Tls
from tests.commands.sample import application, backend, frontend, image

APP = application()
WORKER = frontend(name="job-worker", image=image("worker"), stable_port=7002, routes=())


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
def test_nginx_site_braces_close_and_nothing_is_left_of_the_template(app: Application) -> None:
    site = render.nginx_site(app)

    assert site.count("{") == site.count("}")
    assert not re.search(r"\{\{|\}\}|\{%|%\}", site)
    assert site.endswith("}\n")


def test_nginx_site_rendered_twice_is_equal() -> None:
    assert render.nginx_site(APP) == render.nginx_site(APP)


def test_nginx_site_first_line_carries_the_hash_that_loopback_answers() -> None:
    site = render.nginx_site(APP)
    found = render.site_hash(site)

    assert re.fullmatch(r"[0-9a-f]{16}", found)
    assert directives(site, "return 200") == [f'"{found}"'] * 2
    assert site.splitlines()[1] == "# rolling-port: 8080"


@pytest.mark.parametrize(
    "changed",
    [
        replace(APP, domain="other.test"),
        replace(APP, max_upload_bytes=1),
        replace(APP, tls=Tls("/c", "/k")),
        application(backend(), frontend(stable_port=7009)),
        application(backend(), WORKER, frontend()),
    ],
)
def test_site_hash_changes_with_what_the_site_says(changed: Application) -> None:
    assert render.site_hash(render.nginx_site(changed)) != render.site_hash(render.nginx_site(APP))


def test_site_hash_does_not_change_with_an_image_or_a_secret() -> None:
    other = application(backend(image=image("backend", "v9", "sha256:" + "9" * 64), env=(("K", "v"),)), frontend())

    assert render.nginx_site(other) == render.nginx_site(APP)


def test_nginx_site_both_colors_stand_there_each_backed_by_the_other() -> None:
    site = render.nginx_site(APP)

    assert re.findall(r"server 127\.0\.0\.1:(\d+)( backup)? max_fails=0;", site) == [
        ("18080", ""), ("28080", " backup"), ("28080", ""), ("18080", " backup"),
        ("17001", ""), ("27001", " backup"), ("27001", ""), ("17001", " backup"),
    ]  # fmt: skip


def test_nginx_site_stable_ports_are_on_loopback_alone() -> None:
    assert directives(render.nginx_site(APP), "listen") == ["127.0.0.1:8080", "127.0.0.1:7001", "80", "[::]:80"]


def test_nginx_site_with_a_certificate_redirects_plain_requests() -> None:
    site = render.nginx_site(replace(APP, tls=Tls("/c", "/k", "/chain"), https_port=8443))

    assert directives(site, "return 301") == ["https://$host:8443$request_uri"]
    assert directives(site, "ssl_certificate") == ["/c"]
    assert directives(site, "ssl_trusted_certificate") == ["/chain"]


def test_nginx_site_usual_tls_port_is_not_named_in_the_redirect() -> None:
    assert "https://$host$request_uri" in render.nginx_site(replace(APP, tls=Tls("/c", "/k")))


def test_nginx_site_flags_are_the_ones_that_a_flip_writes() -> None:
    from fabfile.commands.nginx import flag

    site = render.nginx_site(APP)

    assert f"if (-f {flag(APP, 'backend')})" in site
    assert f"if (-f {flag(APP, 'frontend')})" in site


def test_nginx_site_only_loopback_says_who_answered() -> None:
    public = render.nginx_site(APP).partition("# What visitors reach.")[2]

    assert "X-Served-By" not in public
    assert "/_rolling/site" not in public


def test_nginx_site_variables_of_a_name_with_a_dash_are_whole() -> None:
    site = render.nginx_site(replace(application(backend(), WORKER, frontend()), name="my-shop"))

    assert "$my_shop_job_worker_color" in site
    assert not re.search(r"\$[a-z_]+-", site)


def test_boot_unit_starts_the_installed_program() -> None:
    assert directives_of_unit()["ExecStart"] == "/usr/local/lib/shop/boot"


def test_boot_unit_end_leaves_the_containers_alone() -> None:
    assert directives_of_unit()["KillMode"] == "process"


def directives_of_unit() -> dict[str, str]:
    return dict(line.split("=", 1) for line in render.boot_unit(APP).splitlines() if "=" in line)


@pytest.mark.parametrize("name", ["site", "boot", "requests"])
def test_host_program_is_a_shell_program(name: str) -> None:
    assert render.host_program(name).startswith("#!/bin/sh\n")


def test_maintenance_page_text_of_a_message_is_never_markup() -> None:
    page = render.maintenance_page(APP, '<script>alert("x")</script> & {{ app }}')

    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_maintenance_page_loads_nothing_from_elsewhere() -> None:
    assert not re.search(r"https?:|src=|href=|url\(|@import", render.maintenance_page(APP))


def test_nginx_site_every_public_route_and_no_health_path_gives_way_to_the_page() -> None:
    public = render.nginx_site(APP).partition("# What visitors reach.")[2]
    blocks = dict(re.findall(r"^    location ((?:= )?\S+) \{\n(.*?)^    \}", public, re.MULTILINE | re.DOTALL))

    gives_way = {name for name, body in blocks.items() if "live/maintenance.html) { return 503; }" in body}
    assert (gives_way, set(blocks) - gives_way) == ({"/api/", "/"}, {"= /api/health", "= /health"})


def test_nginx_site_loopback_ports_never_show_the_page() -> None:
    assert "maintenance" not in render.nginx_site(APP).partition("# What visitors reach.")[0]
