"""For every alert, a case in which it fires and a similar one in which it does not, for `promtool test rules`.

Samples are one minute apart. The expected summaries are complete, so that the cases test their templates too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OWN = 'app="shop",environment="production",host="web1"'
OTHER = 'app="shop",environment="production",host="web2"'
UP = 'job="shop",environment="production",host="web1"'
NODE = f'{OWN},job="shop"'
DISK = f'{NODE},mountpoint="/",fstype="ext4"'
REQUESTS = f'{OWN},service="backend",color="blue"'
DURATION = "rolling_http_request_duration_seconds_bucket"


@dataclass(frozen=True)
class Case:
    """Series, and the alert that is expected after `at` minutes. Without a summary, no alert is expected."""

    alert: str
    series: Mapping[str, str]
    at: int
    summary: str = ""
    severity: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: {"host": "web1"})

    @property
    def fires(self) -> bool:
        """Whether the alert fires."""
        return bool(self.summary)


def as_test(cases: tuple[Case, ...], rules: str) -> dict[str, Any]:
    """Return the content of the file that `promtool test rules` reads."""
    return {"rule_files": [rules], "evaluation_interval": "1m", "tests": [_group(case) for case in cases]}


def _group(case: Case) -> dict[str, Any]:
    own = {"severity": case.severity, "app": "shop", "environment": "production"}
    expected = {
        "exp_labels": {**own, **case.labels},
        "exp_annotations": {
            "summary": case.summary,
            "runbook_url": f"docs/runbook.md#{case.alert.lower()}",
        },
    }
    return {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "alert_rule_test": [
            {"eval_time": f"{case.at}m", "alertname": case.alert, "exp_alerts": [expected] if case.fires else []}
        ],
    }


def _of_host(**more: str) -> dict[str, str]:
    return {"host": "web1", **more}


_JOB = {"job": "shop"}
_DEPLOYED = f"rolling_deploy_last_timestamp_seconds{{{OWN}}}"
_STOPPED = f'rolling_check_ok{{{OWN},check="container",subject="backend"}}'

CASES: tuple[Case, ...] = (
    Case(
        "ServiceDown",
        {f"up{{{UP}}}": "0x5"},
        2,
        "shop: the host does not answer on web1",
        "critical",
        _of_host(**_JOB),
    ),
    Case(
        "ServiceDown",
        {_STOPPED: "0x5"},
        2,
        "shop: backend is down on web1",
        "critical",
        _of_host(check="container", subject="backend"),
    ),
    Case("ServiceDown", {f"up{{{UP}}}": "0 1x5", _STOPPED: "1 0 1x5"}, 2),
    Case("ServiceDown", {_STOPPED: "0x5", f"rolling_maintenance{{{OWN}}}": "1x5"}, 3),
    Case(
        "SiteDown",
        {f'probe_success{{{OWN},job="shop-site"}}': "0x5"},
        2,
        "The public site does not answer on web1",
        "critical",
        _of_host(job="shop-site"),
    ),
    Case("SiteDown", {f'probe_success{{{OWN},job="shop-site"}}': "0x5", f"rolling_maintenance{{{OWN}}}": "1x5"}, 3),
    Case("SiteDown", {f'probe_success{{{OWN},job="shop-site"}}': "0x5", f"rolling_look_ok{{{OWN}}}": "0x5"}, 3),
    Case(
        "SiteDown",
        {
            f'probe_success{{{OWN},job="shop-site"}}': "0x5",
            f"rolling_look_ok{{{OWN}}}": "0x5",
            _DEPLOYED: "0x5",
        },
        3,
        "The public site does not answer on web1",
        "critical",
        _of_host(job="shop-site"),
    ),
    Case("NginxDown", {f"rolling_nginx_up{{{OWN}}}": "0x5"}, 2, "Nginx does not answer on web1", "critical"),
    Case("NginxDown", {f"rolling_nginx_up{{{OWN}}}": "1 0 1x5"}, 2),
    Case(
        "CheckFailing",
        {f'rolling_check_ok{{{OWN},check="database",subject=""}}': "0x20"},
        12,
        "The check database is failing on web1",
        "warning",
        _of_host(check="database"),
    ),
    Case(
        "CheckFailing",
        {f"rolling_look_ok{{{OWN}}}": "0x20", _DEPLOYED: "0x20"},
        12,
        "The watchdog cannot observe web1",
        "warning",
    ),
    Case("CheckFailing", {f"rolling_look_ok{{{OWN}}}": "0x20"}, 12),
    Case("CheckFailing", {f"rolling_look_ok{{{OWN}}}": "1x20", _STOPPED: "0x20"}, 12),
    Case(
        "HighLatency",
        {
            f'{DURATION}{{{REQUESTS},le="1"}}': "0+50x20",
            f'{DURATION}{{{REQUESTS},le="2.5"}}': "0+60x20",
            f'{DURATION}{{{REQUESTS},le="+Inf"}}': "0+60x20",
            f'rolling_http_requests_total{{{REQUESTS},code="2xx"}}': "0+60x20",
        },
        12,
        "The 95th percentile latency of backend on web1 is 2.05s",
        "warning",
        _of_host(service="backend"),
    ),
    Case(
        "HighLatency",
        {
            f'{DURATION}{{{REQUESTS},le="1"}}': "0+58x20",
            f'{DURATION}{{{REQUESTS},le="2.5"}}': "0+60x20",
            f'{DURATION}{{{REQUESTS},le="+Inf"}}': "0+60x20",
            f'rolling_http_requests_total{{{REQUESTS},code="2xx"}}': "0+60x20",
        },
        12,
    ),
    Case(
        "HighErrorRatio",
        {
            f'rolling_http_requests_total{{{REQUESTS},code="2xx"}}': "0+90x20",
            f'rolling_http_requests_total{{{REQUESTS},code="5xx"}}': "0+10x20",
        },
        9,
        "10.0 % of the responses of backend on web1 are server errors",
        "critical",
        _of_host(service="backend"),
    ),
    Case(
        "HighErrorRatio",
        {
            f'rolling_http_requests_total{{{REQUESTS},code="2xx"}}': "0+96x20",
            f'rolling_http_requests_total{{{REQUESTS},code="5xx"}}': "0+4x20",
        },
        9,
    ),
    Case(
        "DiskLow",
        {f"node_filesystem_avail_bytes{{{DISK}}}": "9x10", f"node_filesystem_size_bytes{{{DISK}}}": "100x10"},
        7,
        "Only 9.0 % of / is free on web1",
        "critical",
        _of_host(**_JOB, mountpoint="/", fstype="ext4"),
    ),
    Case(
        "DiskLow",
        {f"node_filesystem_avail_bytes{{{DISK}}}": "11x10", f"node_filesystem_size_bytes{{{DISK}}}": "100x10"},
        7,
    ),
    Case(
        "DiskFillsUp",
        {
            f"node_filesystem_avail_bytes{{{DISK}}}": "495-1x400",
            f"node_filesystem_size_bytes{{{DISK}}}": "1000x400",
        },
        395,
        "At the rate of the last six hours, / on web1 will be full within a day",
        "warning",
        _of_host(**_JOB, mountpoint="/", fstype="ext4"),
    ),
    Case(
        "DiskFillsUp",
        {
            f"node_filesystem_avail_bytes{{{DISK}}}": "450-0.2x400",
            f"node_filesystem_size_bytes{{{DISK}}}": "1000x400",
        },
        395,
    ),
    # A new host receives its first images.
    Case(
        "DiskFillsUp",
        {
            f"node_filesystem_avail_bytes{{{DISK}}}": "450x9 400x100",
            f"node_filesystem_size_bytes{{{DISK}}}": "1000x110",
        },
        50,
    ),
    Case(
        "MemoryHigh",
        {f"node_memory_MemAvailable_bytes{{{NODE}}}": "9x10", f"node_memory_MemTotal_bytes{{{NODE}}}": "100x10"},
        7,
        "91 % of the memory of web1 is in use",
        "warning",
        _of_host(**_JOB),
    ),
    Case(
        "MemoryHigh",
        {f"node_memory_MemAvailable_bytes{{{NODE}}}": "11x10", f"node_memory_MemTotal_bytes{{{NODE}}}": "100x10"},
        7,
    ),
    Case(
        "CertificateExpires",
        {
            f"rolling_certificate_expiry_timestamp_seconds{{{OWN}}}": "1123200x20",
            f'probe_ssl_earliest_cert_expiry{{{OWN},job="shop-site"}}': "9999999x20",
        },
        12,
        "The certificate of web1 expires in 13.0 days",
        "warning",
    ),
    Case("CertificateExpires", {f"rolling_certificate_expiry_timestamp_seconds{{{OWN}}}": "1300000x20"}, 12),
    Case(
        "ServiceRestarts",
        {f'rolling_service_restarts_total{{{OWN},service="backend"}}': "0+1x15"},
        15,
        "backend on web1 crashed 15 times in 15 minutes",
        "warning",
        _of_host(service="backend"),
    ),
    Case("ServiceRestarts", {f'rolling_service_restarts_total{{{OWN},service="backend"}}': "0x5 1x10"}, 15),
    Case(
        "RecoveryFailed",
        {f'rolling_recoveries_failed_total{{{OWN},act="restart"}}': "0x5 1x5"},
        8,
        "A recovery by the watchdog (restart) failed on web1",
        "warning",
        _of_host(act="restart"),
    ),
    Case("RecoveryFailed", {f'rolling_recoveries_failed_total{{{OWN},act="restart"}}': "1x10"}, 8),
    Case(
        "RecoveryGivenUp",
        {f"rolling_watchdog_given_up{{{OWN}}}": "1x3"},
        1,
        "The watchdog of web1 has stopped recovering; manual intervention is required",
        "critical",
    ),
    Case("RecoveryGivenUp", {f"rolling_watchdog_given_up{{{OWN}}}": "1 0x3"}, 2),
    Case(
        "BackupStale",
        {f"rolling_backup_last_good_timestamp_seconds{{{OWN}}}": "0x1700"},
        1600,
        "web1 has no good backup from the last 26 hours",
        "warning",
    ),
    Case(
        "BackupStale",
        {f"rolling_look_ok{{{OWN}}}": "1x30", _DEPLOYED: "0x30"},
        20,
        "web1 has no good backup from the last 26 hours",
        "warning",
    ),
    Case("BackupStale", {f"rolling_look_ok{{{OWN}}}": "0x30"}, 20),
    Case(
        "BackupStale",
        {f"rolling_backup_last_good_timestamp_seconds{{{OWN}}}": "0x1700", f"rolling_look_ok{{{OWN}}}": "1x1700"},
        1500,
    ),
    Case(
        "MixedReleases",
        {
            f'rolling_release_info{{{OWN},service="backend",digest="sha256:a",color="blue"}}': "1x40",
            f'rolling_release_info{{{OTHER},service="backend",digest="sha256:b"}}': "1x40",
        },
        32,
        "Hosts serve 2 different releases of backend",
        "warning",
        {"service": "backend"},
    ),
    Case(
        "MixedReleases",
        {
            f'rolling_release_info{{{OWN},service="backend",digest="sha256:a",color="blue"}}': "1x40",
            f'rolling_release_info{{{OTHER},service="backend",digest="sha256:a"}}': "1x40",
        },
        32,
    ),
    Case(
        "LockHeldLong",
        {f"rolling_lock_since_timestamp_seconds{{{OWN}}}": "0x70"},
        63,
        "The lock of web1 has been held for 1h 3m 0s",
        "warning",
    ),
    Case("LockHeldLong", {f"rolling_lock_since_timestamp_seconds{{{OWN}}}": "0x50 600x20"}, 65),
    Case(
        "MaintenanceLong",
        {f"rolling_maintenance{{{OWN}}}": "1x250"},
        242,
        "The maintenance page of web1 is still on",
        "warning",
    ),
    Case("MaintenanceLong", {f"rolling_maintenance{{{OWN}}}": "1x200 0x50"}, 242),
    Case(
        "DeployFailed",
        {
            f"rolling_deploy_last_success{{{OWN}}}": "0x5",
            f"rolling_deploy_last_timestamp_seconds{{{OWN}}}": "0x5",
        },
        1,
        "The last deploy or rollback on web1 failed",
        "warning",
    ),
    Case(
        "DeployFailed",
        {
            f"rolling_deploy_last_success{{{OWN}}}": "0 1x5",
            f"rolling_deploy_last_timestamp_seconds{{{OWN}}}": "0x5",
        },
        2,
    ),
    Case(
        "WatchdogSilent",
        {
            f"rolling_watchdog_heartbeat_timestamp_seconds{{{OWN}}}": "0x10",
            f"rolling_watchdog_interval_seconds{{{OWN}}}": "30x10",
        },
        8,
        "The watchdog of web1 has stopped, or was never installed",
        "critical",
    ),
    Case(
        "WatchdogSilent",
        {f"up{{{UP}}}": "1x10"},
        3,
        "The watchdog of web1 has stopped, or was never installed",
        "critical",
        _of_host(**_JOB),
    ),
    Case(
        "WatchdogSilent",
        {
            f"rolling_watchdog_heartbeat_timestamp_seconds{{{OWN}}}": "0+60x10",
            f"rolling_watchdog_interval_seconds{{{OWN}}}": "30x10",
            f"up{{{UP}}}": "1x10",
        },
        8,
    ),
    Case(
        "ExporterErrors",
        {f"node_textfile_scrape_error{{{NODE}}}": "1x15"},
        12,
        "Metrics of web1 are missing or wrong: an exporter reports errors",
        "warning",
        _of_host(**_JOB),
    ),
    Case(
        "ExporterErrors",
        {f"node_textfile_scrape_error{{{NODE}}}": "1 0x15", f"rolling_metrics_errors_total{{{OWN}}}": "5x15"},
        12,
    ),
    Case(
        "NotificationsFailing",
        {'alertmanager_notifications_failed_total{integration="slack",reason="other"}': "0+1x20"},
        12,
        "Alertmanager cannot deliver notifications by slack",
        "critical",
        {"integration": "slack"},
    ),
    Case("NotificationsFailing", {'alertmanager_notifications_failed_total{integration="slack"}': "3x20"}, 12),
)
