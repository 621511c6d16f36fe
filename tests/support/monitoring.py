"""A monitored environment: the files of its monitoring host and the queries of its dashboard."""

from __future__ import annotations

import json
from pathlib import Path

from rolling_upgrade.engine.model import (
    Application,
    Channels,
    Environment,
    Hook,
    Mail,
    Monitoring,
    Severity,
    Target,
    Tls,
)
from rolling_upgrade.features.observe import files as prometheus
from rolling_upgrade.features.observe.files import dashboard
from tests.support.sample import application

SLACK = Hook("https://hooks.test/services/T1/B2/q7Zk1m9pX2vB8nW4", Severity.WARNING)
MAIL = Mail(
    "mail.test", "The Ark <ark@shop.test>", ("ann@shop.test", "Bob <bob@shop.test>"), user="u", password="p'$\"x"
)
CHANNELS = Channels(SLACK, MAIL, Hook("https://hook.test/x"))


#: Values for the variables of Grafana, as Prometheus reads them.
_VARIABLES = {"$host": ".+", "$__rate_interval": "5m", "$__range": "5m"}


def environment(
    *, channels: Channels = CHANNELS, tls: bool = True, name: str = "production", **monitoring: object
) -> Environment:
    """Return an environment with two hosts, one with a separate metrics address."""
    app = application(auto_backup=True, channels=channels, tls=Tls("/srv/tls/c.pem", "/srv/tls/k.pem") if tls else None)
    hosts = (
        Target("web1", "192.0.2.1", "deploy", app),
        Target("web2", "web2.ssh.alias", "deploy", app, metrics_address="2001:db8::2"),
    )
    limits = Monitoring("192.0.2.9", **monitoring)  # type: ignore[arg-type]
    return Environment(name, hosts, monitoring=limits)


def written(folder: Path, wanted: Environment) -> Path:
    """Write all monitoring files to a folder."""
    for name, text in prometheus.complete_files(wanted).items():
        (folder / name).write_text(text)
    return folder


def expressions(app: Application, environment: str) -> tuple[str, ...]:
    """Every PromQL expression of the dashboard, panels first, without variables of Grafana."""
    document = json.loads(dashboard(app, environment))
    found = [target["expr"] for panel in document["panels"] for target in panel.get("targets", ())]
    found += [annotation["expr"] for annotation in document["annotations"]["list"]]
    for name, value in _VARIABLES.items():
        found = [expression.replace(name, value) for expression in found]
    return tuple(dict.fromkeys(found))
