"""The diagnosis of a host: no warning for a healthy host, a remedy for each finding, the refusals of a deploy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from rolling_upgrade.engine import preflight
from rolling_upgrade.engine.jobs import content_hash
from rolling_upgrade.engine.model import Diagnosis, HostState, Job, Level, Lock, SiteOptions, Tls
from rolling_upgrade.engine.site import client as site
from rolling_upgrade.engine.site.schema import dump
from rolling_upgrade.features.doctor.diagnosis import HostFacts, diagnose
from tests.support.sample import application
from tests.support.states import SITE_HASH, as_wanted

APP = replace(application(), tls=Tls("/etc/c", "/etc/k"))
NOW = 1_800_000_000
FIT = {
    **{
        f"has_{tool}": "yes"
        for tool in ("podman", "nginx", "curl", "ss", "flock", "skopeo", "python3", "sqlite3", "pgrep")
    },
    "home": "yes",
    "helper": "yes",
    "site_rules": dump(site.rules(APP)),
    "helper_sum": "h",
    "linger": "yes",
    "nginx_active": "active",
    "closed": "",
    "podman": "4.3.1",
    "os": "debian 12",
    "free_kib": "9000000",
    "total_kib": "20000000",
    "backup_free_kib": "9000000",
    "free_inodes": "100000",
}
HEALTHY = {
    "clock": f"{NOW}.5",
    "nginx_version": "1.22.1",
    "curl_version": "7.88.1",
    "podman_info": "overlay v2 cpu,memory,pids,",
    "subuid": "65536",
    "subgid": "65536",
    "manager": "running",
    "boot_unit": "enabled",
    "sudo": "NOPASSWD: /usr/local/lib/shop/site install, /usr/local/lib/shop/site restore,",
    "boot_sum": "b",
    "synchronised": "yes",
    "reboot": "no",
    "auth_info": "yes",
    "certificate": str(NOW + 90 * 86_400),
    "certificate_name": "Hostname shop.test does match certificate",
    "served": "2 0",
    "served_print": "sha256 Fingerprint=AB",
    "certificate_print": "sha256 Fingerprint=AB",
}


def state(facts: Mapping[str, str] | None = None, **changes: object) -> HostState:
    fit = replace(as_wanted(APP), now=NOW, facts=tuple({**FIT, **(facts or {})}.items()))
    site = f"# rolling-site: {fit.live_site_hash}\n"
    return replace(fit, site=site, listening=(8080, 7001), **changes)  # type: ignore[arg-type]


def found(
    changed_facts: Mapping[str, str] | None = None,
    host_state: HostState | None = None,
    before: float = NOW,
    after: float = NOW + 1,
) -> list[Diagnosis]:
    facts = {**HEALTHY, **(changed_facts or {})}
    rows = diagnose(host_state or state(), APP, HostFacts(facts, before, after, SITE_HASH, "h", "b"))
    return [row for row in rows if row.level is not Level.OK]


def test_diagnose_healthy_host_has_no_warning() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("changed_facts", "problem"),
    [
        ({"nginx_version": "1.18.0"}, "nginx 1.18.0 is older than 1.22"),
        ({"podman_info": "vfs v2 cpu,memory,pids,"}, "Podman stores images with vfs"),
        ({"podman_info": "overlay v1 cpu,memory,"}, "cgroup v1: limits of rootless containers are ignored"),
        ({"podman_info": "overlay v2 memory,pids,"}, "the limits of cpu are ignored"),
        ({"subuid": "0"}, "subuid: 0 ids"),
        ({"subgid": ""}, "subgid: no ids"),
        ({"manager": "offline"}, "the user's systemd manager does not answer"),
        ({"sudo": HEALTHY["sudo"] + "NOPASSWD: ALL,"}, "sudo allows more than the site helper: ALL"),
        ({"boot_unit": "disabled"}, "shop-boot.service is not enabled"),
        ({"synchronised": "no"}, "its clock is right, but not synchronised"),
        ({"certificate": str(NOW - 86_400 * 3)}, "the certificate expired 3 days ago"),
        ({"certificate": str(NOW + 86_400 * 5)}, "the certificate expires in 5 days"),
        ({"certificate": "unreadable"}, "/etc/c could not be read: unreadable"),
        ({"certificate_name": "Hostname shop.test does NOT match certificate"}, "the certificate is not for shop.test"),
        ({"served": "1 20"}, "Nginx sends no intermediate certificates"),
        ({"served": "1 21"}, "Nginx sends no intermediate certificates"),
        ({"served": "2 10"}, "a certificate that Nginx serves has expired"),
        ({"served_print": "sha256 Fingerprint=CD"}, "Nginx serves another certificate than /etc/c"),
        ({"reboot": "yes"}, "it needs a reboot"),
        ({"auth_info": "no"}, "sshd does not expose the key of a login"),
    ],
)
def test_diagnose_single_problem_is_one_warning_with_a_remedy(changed_facts: dict[str, str], problem: str) -> None:
    rows = found(changed_facts)

    assert [row.level for row in rows] == [Level.WARNING]
    assert rows[0].what.startswith(problem)
    assert rows[0].remedy


def test_diagnose_names_the_domains_that_the_certificate_and_the_grants_lack() -> None:
    app = replace(APP, site=SiteOptions(domains=("api.shop.test", "my-shop.test")))
    names = "Hostname shop.test does match certificate Hostname my-shop.test does NOT match certificate "
    facts = HostFacts({**HEALTHY, "certificate_name": names}, NOW, NOW + 1, SITE_HASH, "h", "b")

    rows = [row.what for row in diagnose(state(), app, facts) if row.level is not Level.OK]

    assert rows == [
        "the host does not grant shop the domain api.shop.test",
        "the certificate is not for my-shop.test",
    ]


@pytest.mark.parametrize(
    "changed_facts",
    [
        # An authority of one's own, a self-signed certificate, an Nginx that does not run, an unreadable file.
        {"served": "2 20"},
        {"served": "1 18"},
        {"served": "0 "},
        {"served": ""},
        {"certificate_print": ""},
    ],
)
def test_diagnose_served_certificate_that_may_be_complete_is_no_warning(changed_facts: dict[str, str]) -> None:
    assert found(changed_facts) == []


def test_diagnose_helper_of_another_version_is_reported() -> None:
    (row,) = found(host_state=state({"helper_sum": "other"}))

    assert (row.level, row.what) == (Level.WARNING, "the host has another version of the site helper")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (NOW + 60, NOW + 61, "at least 60 s behind this machine's"),
        (NOW - 61, NOW - 60, "at least 60 s ahead of this machine's"),
        (NOW - 30, NOW + 30, ""),
        (NOW + 3, NOW + 4, ""),
    ],
)
def test_diagnose_clock_offset_within_the_round_trip_is_ignored(before: float, after: float, message: str) -> None:
    rows = found(before=before, after=after)

    assert [message in row.what for row in rows] == ([True] if message else [])


def test_diagnose_site_that_nginx_does_not_run_is_reported() -> None:
    stale = replace(state(), site="# rolling-site: ffffffffffffffff\n")

    assert "does not run the installed site" in found(host_state=stale)[0].what


def test_diagnose_maintenance_page_and_lock_are_reported() -> None:
    lock = Lock("t", "ann", "laptop", 1, "deploy v2", NOW, NOW + 60)

    message = [row.what for row in found(host_state=state({"maintenance": "hand"}, lock=lock))]

    assert message == ["the maintenance page is on", "ann holds the lock: deploy v2"]


@pytest.mark.parametrize(
    "host_state",
    [
        state({"linger": "no"}),
        state({"free_kib": "1"}),
        state({"has_curl": "no"}),
        state({"nginx_active": "failed"}),
        state({"closed": "/var/lib/shop"}),
        replace(state(), live_site_hash="", listening=(8080,)),
        replace(state(), foreign=("shop-backend-green",)),
        HostState("web1"),
    ],
)
def test_diagnose_refusals_are_exactly_those_of_a_deploy(host_state: HostState) -> None:
    refused = [
        row.what for row in diagnose(host_state, APP, HostFacts(HEALTHY, NOW, NOW + 1)) if row.level is Level.REFUSED
    ]

    assert refused
    assert refused == [finding.problem for finding in preflight.findings(host_state, APP)]


JOB = Job("cleanup", "backend", ("./clean",), "@daily", ("*-*-* 00:00:00",))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ((("jobs", "HASH"), ("job.cleanup", "inactive/success 0 1 2 r1/1 r1")), []),
        (
            (("jobs", "HASH"), ("job.cleanup", "inactive/exit-code 7 1 2 r1/1 r1")),
            ["the last run of the job cleanup failed: exit code 7"],
        ),
        ((("job.cleanup", "inactive//"),), ["its jobs are not those of services.yaml, or a timer does not run"]),
    ],
)
def test_failed_job_and_stopped_timer_are_warnings(facts: tuple[tuple[str, str], ...], expected: list[str]) -> None:
    app = replace(APP, jobs=(JOB,))
    given = tuple((key, content_hash(app) if value == "HASH" else value) for key, value in facts)
    host_state = state()
    rows = diagnose(
        replace(host_state, facts=(*host_state.facts, *given)),
        app,
        HostFacts(HEALTHY, NOW, NOW + 1, SITE_HASH, "h", "b"),
    )

    assert [row.what for row in rows if "job" in row.what and row.level is not Level.OK] == expected
