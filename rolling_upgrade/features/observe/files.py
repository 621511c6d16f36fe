"""Render the files of an environment for Prometheus, Alertmanager, blackbox-exporter and Grafana.

A monitoring host may monitor several environments. Each has its parts, and the programs' files are assembled from common
heads and these parts: here for `inv observe.render`, on the host by templates/host/observe.sh, in the same order.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Callable, Mapping
from typing import Any

from rolling_upgrade.engine import maintenance, request
from rolling_upgrade.engine.model import (
    Application,
    Certificate,
    Environment,
    Mail,
    Security,
    Service,
    Severity,
    Target,
)
from rolling_upgrade.errors import ConfigError, ConfigIssue
from rolling_upgrade.features.setup.system import METRICS_PORT
from rolling_upgrade.rendering import TEMPLATES, template

#: The parts of one environment. Prometheus reads `alerting.yml` itself; the others are assembled.
PARTS = ("scrape.yml", "module.yml", "alerting.yml", "routes.yml", "receivers.yml")
#: The texts before and between the parts.
HEADS = ("prometheus.yml", "scrape.head.yml", "blackbox.yml", "alertmanager.yml", "receivers.head.yml")
#: The columns of a Grafana dashboard.
_COLUMNS = 24
_WORDS = {"en": {"firing": "Alert", "resolved": "Resolved"}, "zh-TW": {"firing": "警報", "resolved": "已解除"}}


def name_of(environment: Environment) -> str:
    """The name of an environment on the monitoring host, unique among applications."""
    return f"{environment.targets[0].application.name}.{environment.name}"


def heads() -> Mapping[str, str]:
    """The texts before and between the parts, which are the same for every environment."""
    return {name: template(f"observe/{name}.j2").render() for name in HEADS}


def parts(environment: Environment) -> Mapping[str, str]:
    """The parts of an environment. Raises ConfigError for a mail server that Alertmanager cannot use."""
    values = _values(environment)
    return {name: template(f"observe/{name}.j2").render(values) for name in PARTS}


def complete_files(environment: Environment) -> Mapping[str, str]:
    """The complete files for an existing Prometheus, with this environment only."""
    own, before = parts(environment), heads()
    return {
        "prometheus.yml": before["prometheus.yml"]
        + "  - alerting.yml\n"
        + before["scrape.head.yml"]
        + own["scrape.yml"],
        "alerting.yml": own["alerting.yml"],
        "blackbox.yml": before["blackbox.yml"] + own["module.yml"],
        "alertmanager.yml": before["alertmanager.yml"]
        + own["routes.yml"]
        + before["receivers.head.yml"]
        + own["receivers.yml"],
    }


def _values(environment: Environment) -> dict[str, Any]:
    apps, limits = [target.application for target in environment.targets], environment.monitoring
    app = next((app for app in apps if app.has_site), apps[0])
    channels, mail = app.channels, _mail(app)
    return {
        "app": app,
        "environment": environment.name,
        "name": name_of(environment),
        "headers": request.from_outside(app, _public_check(app)[1]),
        "hosts": [_monitored_host(target) for target in environment.targets],
        "backing_up": [target.name for target in environment.targets if target.application.auto_backup],
        "self_signed": environment.preparation.certificate is Certificate.SELF_SIGNED,
        "chinese": channels.language == "zh-TW",
        "words": _WORDS[channels.language],
        "routes": routes(app),
        "repeat": f"{channels.repeat_seconds:.0f}",
        "slack": channels.slack,
        "mail": mail,
        "smarthost": f"{_bracketed(mail.host)}:{mail.port}" if mail else "",
        "starttls": mail is not None and mail.security is Security.STARTTLS,
        "runbook": limits.runbook or "docs/runbook.md",
        "latency": f"{limits.latency_seconds:g}",
        "errors": f"{limits.error_percent:g}",
        "lock": f"{limits.lock_seconds:.0f}",
        "mixed": f"{limits.mixed_seconds:.0f}",
        "maintenance": f"{limits.maintenance_seconds:.0f}",
        # File systems that are not on a disk.
        "virtual": "tmpfs|ramfs|devtmpfs|squashfs|iso9660|fuse.*",
        "free": f"{app.thresholds.free_percent:g}",
        "memory": f"{app.thresholds.memory_percent:g}",
        "certificate": f"{app.thresholds.certificate_days:g}",
        "backup": f"{app.thresholds.backup_age_seconds:.0f}",
        "backup_hours": f"{app.thresholds.backup_age_seconds / 3600:g}",
    }


def _monitored_host(target: Target) -> dict[str, str]:
    """A host with the addresses of its node-exporter and its site ('' without one), as the monitoring host sees them."""
    address, app = _bracketed(target.metrics_address or target.address), target.application
    if not app.has_site:
        return {"name": target.name, "exporter": f"{address}:{METRICS_PORT}", "site": ""}
    path, _ = _public_check(app)
    site = f"https://{address}:{app.https_port}{path}" if app.tls else f"http://{address}:{app.http_port}{path}"
    return {"name": target.name, "exporter": f"{address}:{METRICS_PORT}", "site": site}


def _public_check(app: Application) -> tuple[str, Service | None]:
    """Return a health path that stays public during maintenance, preferably that of the full chain, and its service."""
    services = {path: service for path, service, _ in maintenance.exempt_paths(app)}
    preferred = app.full_chain.path if app.full_chain else ""
    path = preferred if preferred in services else next(iter(services), "/")
    return path, services.get(path)


def _bracketed(address: str) -> str:
    """An address for use before a port: IPv6 in brackets."""
    try:
        return f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    except ValueError:
        return address


def routes(app: Application) -> list[tuple[str, tuple[str, ...]]]:
    """Slack and mail with the severities they accept. Alertmanager cannot send the webhook's format."""
    graded = (Severity.WARNING, Severity.CRITICAL)
    accepting = []
    for name, channel in app.channels.configured:
        lowest = channel.lowest
        severities = tuple(severity.value for severity in graded if lowest and severity.reaches(lowest))
        if name != "webhook" and severities:
            accepting.append((name, severities))
    return accepting


def _mail(app: Application) -> Mail | None:
    """The mail server. Raises ConfigError for one that Alertmanager cannot use.

    Source: Alertmanager 0.28, notify/email: implicit TLS is used on port 465 only.
    """
    mail = app.channels.mail
    if mail and mail.lowest and mail.security is Security.TLS and mail.port != 465:
        expected = "465 (or SMTP_SECURITY=starttls; or NOTIFY_MAIL=off)"
        issue = ConfigIssue("the env file", "SMTP_PORT", f"{mail.port} with SMTP_SECURITY=tls", expected)
        raise ConfigError("Alertmanager uses implicit TLS on port 465 only.", [issue])
    return mail


def dashboard(app: Application, environment: str) -> str:
    """Render a Grafana dashboard as JSON, in the language of the application's messages; equal input gives equal bytes.

    Source: Grafana, the Prometheus data source's annotations: `useValueForTime` takes a value as milliseconds, and
    `{{label}}` in `titleFormat` and `textFormat` is the value of a label.
    """
    text = template("observe/dashboard.json.j2").render(
        app=app,
        environment=environment,
        uid=_uid(app, environment),
        _=_translation(app.channels.language),
    )
    document = json.loads(text)
    _place(document["panels"])
    return json.dumps(document, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def _uid(app: Application, environment: str) -> str:
    """Source: Grafana takes at most 40 characters."""
    return "rolling-" + hashlib.sha256(f"{app.name}\0{environment}".encode()).hexdigest()[:24]


def _translation(language: str) -> Callable[[str], str]:
    """Translate the English texts of the template. A text without a translation raises KeyError."""
    if language == "en":
        return str
    texts: dict[str, str] = json.loads((TEMPLATES / f"observe/dashboard.{language}.json").read_text(encoding="utf-8"))
    return texts.__getitem__


def _place(panels: list[dict[str, Any]]) -> None:
    """Number the panels, and lay them out from left to right on lines of 24 columns."""
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        position = panel["gridPos"]
        if x + position["w"] > _COLUMNS:
            x, y, height = 0, y + height, 0
        panel["id"] = number
        position.update(x=x, y=y)
        x, height = x + position["w"], max(height, position["h"])
