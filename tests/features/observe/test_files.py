"""The Prometheus, Alertmanager and blackbox-exporter files, and a test case and a runbook section for every alert."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from rolling_upgrade.engine.model import (
    Certificate,
    Channels,
    Environment,
    Hook,
    Kind,
    Mail,
    Preparation,
    Security,
    Severity,
)
from rolling_upgrade.errors import ConfigError
from rolling_upgrade.features.observe import files as prometheus
from rolling_upgrade.features.watchdog.request_log import BOUNDS
from tests.support.alert_cases import CASES
from tests.support.monitoring import CHANNELS, MAIL, SLACK, environment

#: The parts of each section of the runbook.
RUNBOOK_PARTS = ("Meaning.", "Check.", "Fix.", "Resolved when")
RUNBOOK = (Path(__file__).parents[3] / "docs" / "runbook.md").read_text("utf-8")


def read(wanted: Environment, name: str) -> Any:
    return yaml.safe_load(prometheus.complete_files(wanted)[name])


def rules(wanted: Environment) -> list[dict[str, Any]]:
    (group,) = read(wanted, "alerting.yml")["groups"]
    return [rule for rule in group["rules"] if "alert" in rule]


def jobs(wanted: Environment) -> dict[str, Any]:
    return {job["job_name"]: job for job in read(wanted, "prometheus.yml")["scrape_configs"]}


def test_targets_have_the_addresses_that_the_monitoring_host_uses() -> None:
    job = jobs(environment())["shop.production"]

    assert [row["targets"] for row in job["static_configs"]] == [["192.0.2.1:9100"], ["[2001:db8::2]:9100"]]
    assert job["static_configs"][0]["labels"] == {
        "job": "shop",
        "app": "shop",
        "environment": "production",
        "host": "web1",
        "instance": "web1",
    }


@pytest.mark.parametrize(
    ("tls", "urls"),
    [
        (True, ["https://192.0.2.1:443/api/health", "https://[2001:db8::2]:443/api/health"]),
        (False, ["http://192.0.2.1:80/api/health", "http://[2001:db8::2]:80/api/health"]),
    ],
)
def test_site_probe_uses_the_health_path_of_the_full_chain(tls: bool, urls: list[str]) -> None:
    job = jobs(environment(tls=tls))["shop.production site"]

    assert [row["targets"][0] for row in job["static_configs"]] == urls


@pytest.mark.parametrize(("certificate", "skipped"), [(Certificate.ACME, False), (Certificate.SELF_SIGNED, True)])
def test_site_certificate_is_verified_unless_it_is_self_signed(certificate: Certificate, skipped: bool) -> None:
    wanted = replace(environment(), preparation=Preparation(certificate=certificate))

    module = read(wanted, "blackbox.yml")["modules"]["shop.production"]["http"]

    assert module["tls_config"] == {"server_name": "shop.test", "insecure_skip_verify": skipped}
    assert module["headers"] == {
        "Host": "shop.test",
        "X-Forwarded-Proto": "https",
        "User-Agent": "rolling-upgrade-probe",
    }


def test_service_down_starts_with_the_target_of_the_application() -> None:
    down = next(rule for rule in rules(environment()) if rule["alert"] == "ServiceDown")

    assert down["expr"].startswith('up{job="shop",environment="production"} == 0\n')
    assert (down["for"], down["labels"]["severity"]) == ("1m", "critical")


def test_alerts_are_in_the_language_of_the_messages() -> None:
    chinese = rules(environment(channels=replace(CHANNELS, language="zh-TW")))

    assert chinese[0]["annotations"]["summary"].startswith("shop 服務離線")
    assert all(re.search(r"[\u4e00-\u9fff]", rule["annotations"]["summary"]) for rule in chinese)
    assert [rule["expr"] for rule in chinese] == [rule["expr"] for rule in rules(environment())]


def test_alert_limits_follow_the_settings() -> None:
    wanted = environment(latency_seconds=0.25, error_percent=1.5, lock_seconds=120.0, mixed_seconds=60.0)
    found = {rule["alert"]: rule for rule in rules(wanted)}

    assert ">= 0.25\n" in found["HighLatency"]["expr"]
    assert "> 1.5\n" in found["HighErrorRatio"]["expr"]
    assert found["LockHeldLong"]["expr"].endswith("> 120")
    assert found["MixedReleases"]["for"] == "60s"
    assert found["DiskLow"]["expr"].endswith("< 10")


def test_alert_of_backups_exists_only_with_scheduled_backups() -> None:
    wanted = environment()
    hosts = tuple(
        replace(target, application=replace(target.application, auto_backup=False)) for target in wanted.targets
    )

    gone = {rule["alert"] for rule in rules(wanted)} - {rule["alert"] for rule in rules(replace(wanted, targets=hosts))}

    assert gone == {"BackupStale"}


@pytest.mark.parametrize("without", [0, 1])
def test_alert_of_backups_covers_only_hosts_with_scheduled_backups(without: int) -> None:
    wanted = environment()
    hosts = list(wanted.targets)
    hosts[without] = replace(hosts[without], application=replace(hosts[without].application, auto_backup=False))

    (stale,) = [rule for rule in rules(replace(wanted, targets=tuple(hosts))) if rule["alert"] == "BackupStale"]

    name = hosts[1 - without].name
    assert re.findall(r'host=~"([^"]*)"', stale["expr"]) == [name, name]


def test_alert_of_latency_can_fire_at_the_highest_limit() -> None:
    """A quantile above the highest bound equals that bound."""
    found = {rule["alert"]: rule for rule in rules(environment(latency_seconds=BOUNDS[-1]))}

    assert ">= 10\n" in found["HighLatency"]["expr"]


def test_alert_each_has_a_firing_and_a_quiet_case() -> None:
    for rule in rules(environment()):
        fires = {case.fires for case in CASES if case.alert == rule["alert"]}
        assert fires == {True, False}, rule["alert"]


def test_alert_each_links_to_its_section_in_the_runbook() -> None:
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.M | re.S))
    wanted = environment(runbook="https://git.test/ops.md")

    for rule in rules(wanted):
        name = rule["alert"]
        assert rule["annotations"]["runbook_url"] == f"https://git.test/ops.md#{name.lower()}"
        assert [part for part in RUNBOOK_PARTS if f"**{part}**" not in sections[name]] == []
        assert rule["labels"]["severity"].capitalize() in sections[name], name
    assert set(sections) == {rule["alert"] for rule in rules(wanted)}


def test_alert_rules_select_only_their_environment() -> None:
    for rule in rules(environment()):
        series = re.findall(r"(?:rolling|node|probe|up)\w*\{([^}]*)\}", rule["expr"])
        assert all('environment="production"' in labels for labels in series), rule


@pytest.mark.parametrize(
    ("lowest", "severities"),
    [
        (Severity.INFO, ("warning", "critical")),
        (Severity.WARNING, ("warning", "critical")),
        (Severity.CRITICAL, ("critical",)),
    ],
)
def test_routes_follow_the_lowest_severity_of_each_channel(lowest: Severity, severities: tuple[str, ...]) -> None:
    app = environment(channels=Channels(Hook(SLACK.url, lowest), replace(MAIL, lowest=None))).targets[0].application

    assert prometheus.routes(app) == [("slack", severities)]


def test_routes_without_a_channel_make_a_complete_file() -> None:
    found = read(environment(channels=Channels()), "alertmanager.yml")

    assert found["route"] == {"receiver": "nobody", "routes": None}
    assert found["receivers"] == [{"name": "nobody"}]


def test_inhibit_rules_silence_existing_checks_that_have_alerts_of_their_own() -> None:
    found = read(environment(), "alertmanager.yml")["inhibit_rules"]
    known = {rule["alert"] for rule in rules(environment())}

    assert len(found) == 8
    for rule in found:
        (source,) = re.findall(r'alertname="(\w+)"', rule["source_matchers"][0])
        assert source in known
        assert rule["equal"] == ["app", "environment", "host"]
    checks = {row.partition("=")[2].strip('"') for rule in found[4:] for row in rule["target_matchers"][1:]}
    assert checks == {kind.value for kind in (Kind.DISK, Kind.MEMORY, Kind.CERTIFICATE, Kind.BACKUP)}


def test_receivers_keep_every_byte_of_the_channels() -> None:
    mail = Mail("2001:db8::25", 'A "B" {{C}} <a@b.c>', ("ann@b.c",), port=25, user="u'$", password='p"\\{{x}}')
    found = read(environment(channels=Channels(SLACK, mail)), "alertmanager.yml")["receivers"]

    assert found[1]["slack_configs"][0]["api_url"] == SLACK.url
    (sent,) = found[2]["email_configs"]
    assert (sent["smarthost"], sent["auth_username"]) == ("[2001:db8::25]:25", "u'$")
    assert sent["auth_password"] == 'p"\\{{x}}'
    assert sent["from"] == 'A "B" {{ "{{" }}C}} <a@b.c>'
    assert sent["require_tls"] is True


def test_receivers_reject_a_mail_server_that_alertmanager_cannot_use() -> None:
    mail = replace(MAIL, security=Security.TLS, port=2465)

    with pytest.raises(ConfigError, match="port 465 only"):
        prometheus.parts(environment(channels=Channels(mail=mail)))
    assert prometheus.parts(environment(channels=Channels(mail=replace(mail, port=465))))
    assert prometheus.parts(environment(channels=Channels(mail=replace(mail, lowest=None))))
