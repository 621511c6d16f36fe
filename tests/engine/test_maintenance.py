"""The maintenance page: turning it on and off, verification by a visitor's request, and its origin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.engine import health_gate, maintenance
from rolling_upgrade.engine.model import Application, Probe, Route
from rolling_upgrade.engine.shell import Script, script
from tests.support.sample import application, backend, frontend
from tests.support.shell import HOSTILE, Programs, moved, sh

APP = application()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / "live").mkdir(parents=True)
    return tmp_path / "home"


def answers(programs: Programs, home: Path, *, up: str = "503 on", down: str = "200 ") -> None:
    """Add a curl stub that answers as Nginx does with the page on or off."""
    programs.add("curl", f"if [ -f {home}/live/maintenance.html ]; then printf '{up}'; else printf '{down}'; fi")


def ran(text: str | Script, home: Path, programs: Programs) -> tuple[int, str]:
    done = sh(moved(text, APP, home), path=programs.path)
    return done.returncode, done.stdout


@pytest.mark.parametrize("message", HOSTILE)
def test_enable_writes_the_page_unchanged_and_world_readable(message: str, home: Path, programs: Programs) -> None:
    page = rendering.maintenance_page(APP, message)

    assert ran(maintenance.enable(APP, page), home, programs)[0] == 0

    file = home / "live" / "maintenance.html"
    assert (file.read_bytes().decode(), file.stat().st_mode & 0o777) == (page, 0o644)


@pytest.mark.parametrize("by", [maintenance.BY_HAND, maintenance.BY_SETTING])
def test_origin_names_who_turned_the_page_on(by: str, home: Path, programs: Programs) -> None:
    ran(maintenance.enable(APP, rendering.maintenance_page(APP, 'data-by="other"', by=by)), home, programs)

    assert ran(maintenance.origin(APP), home, programs) == (0, f"{by}\n")


def test_origin_of_an_unknown_page_is_an_operator(home: Path, programs: Programs) -> None:
    (home / "live" / "maintenance.html").write_text("<p>back soon</p>")

    assert ran(maintenance.origin(APP), home, programs) == (0, "hand\n")


def test_origin_without_a_page_is_empty(home: Path, programs: Programs) -> None:
    assert ran(maintenance.origin(APP), home, programs) == (0, "")


def test_enable_verified_page_that_visitors_get_stays(home: Path, programs: Programs) -> None:
    answers(programs, home)

    assert ran(maintenance.enable_verified(APP, "page"), home, programs)[0] == 0
    assert (home / "live" / "maintenance.html").read_text() == "page"


@pytest.mark.parametrize("answer", ["200 ", "503 ", "000 "])
def test_enable_verified_page_that_no_visitor_gets_is_disabled(answer: str, home: Path, programs: Programs) -> None:
    programs.clock()
    answers(programs, home, up=answer)

    status, said = ran(maintenance.enable_verified(APP, "page"), home, programs)

    assert (status, (home / "live" / "maintenance.html").exists()) == (1, False)
    assert f"/ as a visitor sees it: HTTP {answer}" in said


def test_enable_verified_failed_replacement_restores_the_previous_page(home: Path, programs: Programs) -> None:
    programs.clock()
    answers(programs, home, up="000 ")
    (home / "lock").mkdir(exist_ok=True)
    page = home / "live" / "maintenance.html"
    page.write_text("former")

    assert ran(maintenance.enable_verified(APP, "page"), home, programs)[0] == 1
    assert page.read_text() == "former"


@pytest.mark.parametrize("answer", ["200", "404", "502", "503"])
def test_disable_verified_prints_any_answer_of_the_application(answer: str, home: Path, programs: Programs) -> None:
    answers(programs, home, down=f"{answer} ")
    (home / "live" / "maintenance.html").touch()

    assert ran(maintenance.disable_verified(APP), home, programs) == (0, f"visitors get HTTP {answer} \n")


def test_disable_verified_page_that_stays_is_a_failure(home: Path, programs: Programs) -> None:
    programs.clock()
    answers(programs, home, down="503 on")

    assert ran(maintenance.disable_verified(APP), home, programs)[0] == 1


def test_disable_verified_without_a_page_is_no_error(home: Path, programs: Programs) -> None:
    answers(programs, home)

    assert ran(maintenance.disable_verified(APP), home, programs)[0] == 0


@pytest.mark.parametrize(("up", "good"), [(True, True), (False, False)])
def test_public_accepts_503_only_while_the_page_is_on(up: bool, good: bool, home: Path, programs: Programs) -> None:
    programs.clock()
    programs.add("curl", "printf 503")
    if up:
        (home / "live" / "maintenance.html").touch()
    watch = health_gate.watch([health_gate.public(APP)], seconds=0, passes=1, deadline_seconds=3)

    assert (ran(script(watch, "watch"), home, programs)[0] == 0) is good


def paths(app: Application) -> list[tuple[str, str]]:
    return [(path, service.name) for path, service, _ in maintenance.exempt_paths(app)]


def test_exempt_paths_use_the_route_of_visitors() -> None:
    assert paths(APP) == [("/api/health", "backend"), ("/health", "frontend")]


def test_exempt_paths_exclude_a_path_without_a_route() -> None:
    assert paths(application(backend(), frontend(routes=()))) == [("/api/health", "backend")]


def test_exempt_paths_include_the_full_chain_once() -> None:
    app = replace(APP, full_chain=Probe("frontend", "/deep"))

    assert paths(app) == [("/api/health", "backend"), ("/health", "frontend"), ("/deep", "frontend")]


def test_shown_path_is_not_a_health_path() -> None:
    assert maintenance.shown_path(APP) == "/"
    assert maintenance.shown_path(application(backend(routes=(Route("/api/health"),)), frontend(routes=()))) == ""


def test_is_supported_site_of_an_early_version_has_no_page() -> None:
    site = rendering.nginx_site(APP)

    assert maintenance.is_supported(APP, site)
    assert not maintenance.is_supported(APP, site.replace("maintenance.html", "x"))
