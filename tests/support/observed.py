"""A watched environment for tests, and its files in a folder as Prometheus and its companions find them."""

from __future__ import annotations

from pathlib import Path

from fabfile.model import Channels, Environment, Hook, Mail, Monitoring, Severity, Target, Tls
from fabfile.render import observe
from tests.commands.sample import application

SLACK = Hook("https://hooks.test/services/T1/B2/q7Zk1m9pX2vB8nW4", Severity.WARNING)
MAIL = Mail(
    "mail.test", "The Ark <ark@shop.test>", ("ann@shop.test", "Bob <bob@shop.test>"), user="u", password="p'$\"x"
)
CHANNELS = Channels(SLACK, MAIL, Hook("https://hook.test/x"))


def environment(
    *, channels: Channels = CHANNELS, tls: bool = True, name: str = "production", **monitoring: object
) -> Environment:
    """Two hosts, one of them reached by another address."""
    app = application(auto_backup=True, channels=channels, tls=Tls("/srv/tls/c.pem", "/srv/tls/k.pem") if tls else None)
    hosts = (
        Target("web1", "192.0.2.1", "deploy", app),
        Target("web2", "web2.ssh.alias", "deploy", app, metrics_address="2001:db8::2"),
    )
    limits = Monitoring("192.0.2.9", **monitoring)  # type: ignore[arg-type]
    return Environment(name, hosts, monitoring=limits)


def written(folder: Path, wanted: Environment) -> Path:
    """Every file of it in a folder."""
    for name, text in observe.whole(wanted).items():
        (folder / name).write_text(text)
    return folder
