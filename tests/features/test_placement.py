"""Hosts that run only some services, or none: plans, checks, setup, and the tasks that choose hosts by service."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from rolling_upgrade.engine import preflight
from rolling_upgrade.engine.model import (
    Application,
    Environment,
    HostState,
    Preparation,
    Target,
    Tls,
)
from rolling_upgrade.errors import ConfigError, PreflightError
from rolling_upgrade.features.doctor.diagnosis import HostFacts, diagnose
from rolling_upgrade.features.exec.workflow import _placed
from rolling_upgrade.features.maintenance.workflow import _with_sites
from rolling_upgrade.features.observe import files as observe_files
from rolling_upgrade.features.promote.workflow import _differences, _given
from rolling_upgrade.features.rollback.workflow import _with_services
from rolling_upgrade.features.setup.resources import resources
from tests.support.sample import application, backend, frontend, image
from tests.support.states import as_wanted, container, fit_facts, ids, plan, text

WEB = application(frontend())
EMPTY = replace(application(), services=(), full_chain=None)


def environment(**apps: Application) -> Environment:
    return Environment("production", tuple(Target(name, name, "deploy", app) for name, app in apps.items()))


BOTH = environment(web1=application(), web2=replace(application(frontend()), full_chain=None), db1=EMPTY)


def test_service_that_moved_away_is_stopped_by_the_next_deploy() -> None:
    moved = container(backend())
    state = replace(as_wanted(WEB), containers=(container(frontend()), moved))

    found = plan(state, WEB)

    assert ids(found)[-1] == "drain"
    assert "shop-backend-blue" in text(found, "drain")
    assert "shop-backend-blue is running but not active: it will be drained and stopped" in found.notes
    drain = found.finalize[0]
    assert "podman stop --ignore shop-backend-blue" in drain.script.text
    assert drain.timeout_seconds > 900


def test_last_service_that_moved_away_is_stopped_without_a_site_or_a_check() -> None:
    state = HostState("web1", containers=(container(backend()),), site="# rolling-site: 0123456789abcdef\n")

    found = plan(state, EMPTY)

    assert ids(found) == ["drain"]
    assert not found.empty
    assert "shop-backend-blue" in text(found, "drain")
    assert "this host runs no service with a port any more: setup removes its Nginx site" in found.notes


def test_jobs_of_the_last_service_that_moved_away_are_removed() -> None:
    """Otherwise its timers would run beside those of the host to which the service moved."""
    state = HostState("web1", facts=(("jobs", "0123456789abcdef"),), containers=(container(backend()),))

    assert ids(plan(state, EMPTY)) == ["jobs", "drain"]


def test_host_on_which_nothing_is_placed_and_nothing_runs_has_nothing_to_do() -> None:
    assert plan(HostState("db1"), EMPTY).empty


def test_host_without_a_site_needs_no_nginx_and_no_helper() -> None:
    facts = fit_facts(application()) | {"has_nginx": "no", "helper": "no", "nginx_active": "", "closed": "/var"}
    state = HostState("db1", facts=tuple(facts.items()))

    assert preflight.findings(state, EMPTY, site_hash="") == ()
    assert preflight.findings(state, WEB, site_hash="x") != ()


def test_doctor_of_a_host_without_a_site_checks_neither_site_nor_certificate() -> None:
    app = replace(EMPTY, tls=Tls("/etc/c.pem", "/etc/k.pem"))
    state = HostState("db1", facts=tuple((fit_facts(application()) | {"helper_sum": "other"}).items()))

    rows = diagnose(state, app, HostFacts({"boot_sum": "b", "boot_unit": "enabled"}, 0, 0, "", "program", "b"))

    assert not [row.what for row in rows if "site helper" in row.what or "certificate" in row.what]


def test_setup_of_a_host_without_a_site_installs_none_and_removes_an_earlier_one() -> None:
    app = replace(EMPTY, tls=Tls("/etc/c.pem", "/etc/k.pem"), request_metrics=True)
    found = {item.id: item for item in resources(Target("db1", "db1", "deploy", app), Preparation())}

    assert not {"program site", "site rules", "sudo rule", "request log", "certificate"} & set(found)
    assert {"program boot", "boot unit", "network"} <= set(found)
    assert "nginx" not in found["packages"].title
    assert found["site"].title.startswith("no Nginx site")
    site = found["site"].apply
    assert site is not None
    assert "rm -f /etc/nginx/conf.d/shop.conf" in site.text
    # The deploy user cannot install it again.
    assert "rm -f /etc/sudoers.d/shop" in site.text
    assert "rm -f /usr/local/lib/shop/rules.json" in site.text


def test_exec_without_hosts_chooses_those_that_run_the_service() -> None:
    chosen, service = _placed(BOTH, (), "backend")
    assert ([target.name for target in chosen.targets], service) == (["web1"], "backend")

    chosen, service = _placed(BOTH, (), "")
    assert ([target.name for target in chosen.targets], service) == (["web1"], "backend")

    chosen, service = _placed(environment(web1=application(), web2=WEB), (), "")
    assert ([target.name for target in chosen.targets], service) == (["web1", "web2"], "frontend")


@pytest.mark.parametrize(("name", "expected"), [("backend", "one of: frontend"), ("fronted", "one of: frontend")])
def test_exec_on_named_hosts_refuses_a_service_that_does_not_run_there(name: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _placed(environment(web1=application(), web2=WEB), ("web1", "web2"), name)

    assert caught.value.issues[0].expected == expected


def test_exec_on_a_host_without_services_says_so() -> None:
    with pytest.raises(ConfigError) as caught:
        _placed(environment(db1=EMPTY), ("db1",), "")

    assert (caught.value.issues[0].found, caught.value.issues[0].expected) == ("db1", "hosts that run the same service")


def test_maintenance_page_is_for_hosts_with_a_site() -> None:
    assert [target.name for target in _with_sites(BOTH).targets] == ["web1", "web2"]
    with pytest.raises(PreflightError, match="db1: no service with a port runs there"):
        _with_sites(environment(db1=EMPTY))


def test_rollback_leaves_hosts_alone_on_which_nothing_is_placed() -> None:
    assert [target.name for target in _with_services(BOTH).targets] == ["web1", "web2"]
    with pytest.raises(PreflightError, match="no service runs on db1"):
        _with_services(environment(db1=EMPTY))


def test_promotion_compares_each_service_on_the_hosts_that_run_it() -> None:
    first, other = image("frontend"), replace(image("frontend"), digest=f"sha256:{'e' * 64}")
    images = {"web1": {"backend": image("backend"), "frontend": first}, "web2": {"frontend": other}}

    assert _differences(images) == [f"frontend: {first.digest[:19]} on web1, {other.digest[:19]} on web2"]
    assert _differences({name: {"frontend": first} for name in ("web1", "web2")}) == []


def test_promotion_needs_the_services_of_all_hosts() -> None:
    source = environment(web1=application(backend()), web2=application(frontend()))
    proven = {"backend": image("backend"), "frontend": image("frontend")}

    given = _given(source, source, proven)

    assert {name: found.repository for name, found in given.items()} == {
        name: found.repository for name, found in proven.items()
    }


def test_prometheus_probes_only_hosts_with_a_site() -> None:
    scrape = yaml.safe_load(observe_files.parts(BOTH)["scrape.yml"])
    jobs = {job["job_name"]: [entry["labels"]["host"] for entry in job["static_configs"]] for job in scrape}

    assert jobs == {"shop.production": ["web1", "web2", "db1"], "shop.production site": ["web1", "web2"]}
