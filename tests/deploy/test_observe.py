"""A real Prometheus, Alertmanager and blackbox-exporter on a lab host that watch another: targets, alerts, pages."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from urllib.parse import quote

import pytest
import yaml

from lab.host import Host
from rolling_upgrade import config
from rolling_upgrade.engine.model import Application
from rolling_upgrade.features.observe.files import whole as files_of
from tests.deploy.bare import SECURE
from tests.deploy.conftest import DOMAIN, PROJECT, Site, own_address, wait_until
from tests.support.alert_cases import CASES, as_test
from tests.support.mailbox import Mailbox, mailbox
from tests.support.observed import environment, expressions
from tests.support.receiver import Receiver, receiving

pytestmark = pytest.mark.xdist_group("observe")

ETC = "/etc/prometheus"


@dataclass(frozen=True)
class Watched:
    """The first host, which is watched, the second, which watches it, and where its pages arrive."""

    site: Site
    chat: Receiver
    box: Mailbox

    @property
    def host(self) -> Host:
        return self.site.lab.hosts[0]

    @property
    def monitor(self) -> Host:
        return self.site.lab.hosts[1]

    @property
    def name(self) -> str:
        return f"memoryark.{self.site.lab.name}"

    def api(self, port: int, path: str) -> object:
        """What Prometheus or Alertmanager answers on the monitoring host's loopback."""
        return json.loads(self.monitor.sh(f"curl -fsS 'http://127.0.0.1:{port}{path}'").stdout)

    def query(self, expression: str) -> list[dict[str, object]]:
        """Every sample of an expression. Raises AssertionError where Prometheus refuses it."""
        found = self.api(9090, f"/api/v1/query?query={quote(expression)}")
        assert isinstance(found, dict)
        assert found["status"] == "success", found
        return list(found["data"]["result"])

    def alerts(self) -> set[str]:
        """The names of the alerts that fire."""
        return {str(one["metric"]["alertname"]) for one in self.query('ALERTS{alertstate="firing"}')}  # type: ignore[index]


@pytest.fixture(scope="module")
def watched(prepared: Site) -> Iterator[Watched]:
    """The first host with node-exporter and a watchdog that recovers nothing; the second one watches it."""
    site = prepared
    web1, web2 = site.lab.hosts
    address = own_address(web2)
    with receiving(address=address) as chat, mailbox(address=address) as box, files_as_they_were(site):
        site.edit_env(
            SLACK_WEBHOOK=chat.url(),
            SMTP_HOST=address,
            SMTP_PORT=str(box.port),
            SMTP_SECURITY="none",
            SMTP_FROM="Ark <ark@lab.test>",
            SMTP_TO="ann@lab.test",
            AUTO_RECOVERY_ENABLED="false",
            HEALTH_CHECK_INTERVAL="1s",
            **SECURE,
        )
        site.edit_environment(
            hosts={"web1": {"address": web1.address}},
            setup={"node_exporter": True, "watchdog": True, "certificate": "self-signed"},
            monitoring={"address": web2.address, "runbook": "https://docs.test/operations.md"},
        )
        for words in (("setup",), ("deploy", "--tag", "v1"), ("observe.install",)):
            code, output = site.run(*words)
            assert code == 0, output
        yield Watched(site, chat, box)


@contextmanager
def files_as_they_were(site: Site) -> Iterator[None]:
    files = {path: path.read_bytes() for path in site.folder.iterdir() if path.is_file()}
    yield
    for path, content in files.items():
        path.write_bytes(content)


def visit(host: Host, times: int) -> None:
    """So many requests of a visitor, to both services; the certificate has signed itself."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    for number in range(times):
        connection = http.client.HTTPSConnection(host.address, timeout=10, context=trusting)
        connection.request("GET", "/api/version" if number % 2 else "/", headers={"Host": DOMAIN})
        connection.getresponse().read()
        connection.close()


def test_observe_every_target_is_up_and_listens_only_on_loopback(watched: Watched) -> None:
    jobs = {"memoryark", "memoryark-site", "prometheus", "alertmanager", "blackbox-exporter", "monitoring-host"}

    def up() -> set[str]:
        return {str(one["metric"]["job"]) for one in watched.query("up == 1")}  # type: ignore[index]

    wait_until(lambda: up() == jobs, "all targets", 60)
    assert len(watched.query(f'up{{job="memoryark",environment="{watched.site.lab.name}",host="web1"}}')) == 1
    assert len(watched.query('rolling_look_ok{job="memoryark",app="memoryark",host="web1"} == 1')) == 1
    assert len(watched.query('probe_success{job="memoryark-site",host="web1"} == 1')) == 1
    listening = watched.monitor.sh("ss -Hltn").stdout.split()
    assert {one for one in listening if one.endswith((":9090", ":9093", ":9094", ":9115"))} == {
        "127.0.0.1:9090",
        "127.0.0.1:9093",
        "127.0.0.1:9115",
    }


def test_observe_second_install_changes_nothing(watched: Watched) -> None:
    code, output = watched.site.run("observe.install")

    assert (code, "Nothing to do" in output) == (0, True), output
    modes = watched.monitor.sh(f"stat -c '%U:%G %a' {ETC}/*.yml {ETC}/rolling/{watched.name}/receivers.yml").stdout
    assert set(modes.splitlines()) == {"root:prometheus 640"}


def test_observe_dry_run_shows_no_secret_of_the_channels(watched: Watched) -> None:
    with files_as_they_were(watched.site):
        watched.site.edit_env(SLACK_WEBHOOK=watched.chat.url("/services/T1/B2/another0secret9of8the7chat"))
        code, output = watched.site.run("observe.install", "--dry-run")

    assert code == 0, output
    assert "monitoring of" in output
    assert "another0secret9of8the7chat" not in output
    assert "another0secret9of8the7chat" not in watched.monitor.sh(f"cat {ETC}/alertmanager.yml").stdout


def test_observe_every_alert_passes_its_rule_tests_in_promtool(watched: Watched) -> None:
    texts = {**files_of(environment()), "cases.yml": yaml.safe_dump(as_test(CASES, "alerting.yml"), sort_keys=False)}
    texts["dashboard.yml"] = as_rules(environment().targets[0].application)
    folder = "/tmp/alerts"
    for name, text in texts.items():
        watched.monitor.sh(f"mkdir -p {folder} && cat > {folder}/{name} <<'END-OF-FILE'\n{text}\nEND-OF-FILE")

    checks = (
        "promtool check config prometheus.yml",
        "promtool check rules alerting.yml dashboard.yml",
        "amtool check-config alertmanager.yml",
        "prometheus-blackbox-exporter --config.check --config.file=blackbox.yml",
        "promtool test rules cases.yml",
    )
    for check in checks:
        done = watched.monitor.sh(f"cd {folder} && {check} 2>&1", check=False, timeout=240)
        assert done.returncode == 0, done.stdout


def as_rules(app: Application) -> str:
    """What a dashboard asks for, with and without counted requests, as rules that record it."""
    apps = (replace(app, request_metrics=counted) for counted in (False, True))
    rules = [
        {"record": "checked", "expr": one, "labels": {"of": f"{number}"}}
        for number, one in enumerate(one for each in apps for one in expressions(each, "production"))
    ]
    return yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, sort_keys=False)


def test_observe_every_expression_of_the_dashboard_returns_data(watched: Watched) -> None:
    """Those too that are empty as long as nothing failed, nobody holds the lock and there is no backup."""
    site, name = watched.site, watched.site.lab.name
    app = config.load(name, root=PROJECT).targets[0].application
    every = expressions(app, name)
    failures = [one for one in every if one.endswith("== 0") and "deploy_last_success" in one]
    assert (len(every) > 30, len(failures)) == (True, 1)
    visit(watched.host, 40)
    assert site.run("backup")[0] == 0
    assert site.run("lock.acquire", "--reason", "looking myself")[0] == 0

    def empty(of: Iterable[str]) -> list[str]:
        return [one for one in of if not watched.query(one)]

    visited = 'rate(rolling_http_requests_total{job="memoryark",code="2xx"}[5m]) > 0'
    wait_until(lambda: watched.query(visited), "a rate of requests", 90)
    wait_until(lambda: not empty(set(every) - set(failures)), "every expression", 60)

    assert site.run("lock.release")[0] == 0
    assert site.deploy("exits-at-once")[0] == 1
    wait_until(lambda: not empty(failures), "the failed deploy", 60)
    assert site.deploy("v1", "--force")[0] == 0


def test_observe_stopped_backend_is_paged_and_its_end_is_reported(watched: Watched) -> None:
    """By Slack and by mail, in the words of the alert, with the link to its section."""
    backend = next(one for one, runs in watched.site.running(watched.host).items() if runs and "backend" in one)
    watched.host.sh(f"podman stop -t 1 {backend}", user="deploy")

    wait_until(lambda: "ServiceDown" in watched.alerts(), "the alert", 150)
    wait_until(lambda: said(watched.chat, "Alert: ServiceDown"), "the page in the chat", 60)
    wait_until(lambda: mailed(watched.box, "Alert: ServiceDown"), "the page by mail", 60)
    watched.host.sh(f"podman start {backend}", user="deploy")
    wait_until(lambda: said(watched.chat, "Resolved: ServiceDown"), "its end in the chat", 150)
    wait_until(lambda: mailed(watched.box, "Resolved: ServiceDown"), "its end by mail", 60)

    page = said(watched.chat, "Alert: ServiceDown")[0]
    assert "memoryark: backend is down on web1 (critical) https://docs.test/operations.md#servicedown" in page
    mail = mailed(watched.box, "Alert: ServiceDown")[0]
    assert "memoryark: backend is down on web1" in mail
    assert "ServiceDown" not in watched.alerts()


def said(chat: Receiver, words: str) -> list[str]:
    """The texts of Slack's messages whose title begins so."""
    sent = [one for request in chat.requests for one in request.json.get("attachments", [])]
    return [str(one["text"]) for one in sent if str(one["title"]).startswith(words)]


def mailed(box: Mailbox, words: str) -> list[str]:
    """The bodies of mails whose subject begins so."""
    return [str(mail.body) for mail in box.mails if mail.subject.startswith(words)]


def test_observe_file_rejected_by_a_program_changes_nothing(watched: Watched) -> None:
    before = watched.monitor.sh(f"cat {ETC}/*.yml {ETC}/rolling/*/*.yml | sha256sum").stdout
    place = f"{ETC}/rolling/.staged/{watched.name}"
    watched.monitor.sh(f"mkdir -p {place} && cp {ETC}/rolling/{watched.name}/*.yml {place}/")
    watched.monitor.sh(f"echo '      - alert: [' >> {place}/alerting.yml")

    done = watched.monitor.sh(f"/usr/local/lib/rolling-observe/observe install {watched.name} 2>&1", check=False)

    assert done.returncode == 1
    assert "alerting.yml" in done.stdout
    assert watched.monitor.sh(f"cat {ETC}/*.yml {ETC}/rolling/*/*.yml | sha256sum").stdout == before
    assert watched.monitor.sh("/usr/local/lib/rolling-observe/observe check", check=False).returncode == 0


def test_observe_program_that_keeps_its_old_file_is_detected(watched: Watched) -> None:
    """Another one on the port, say: the reload says that all is well. The files before are put back."""
    before = watched.monitor.sh(f"cat {ETC}/*.yml | sha256sum").stdout
    program = "/usr/local/lib/rolling-observe/observe"
    watched.monitor.sh(
        f"sed 's/^wait_seconds=.*/wait_seconds=2/' {program} > {program}.quick; chmod 755 {program}.quick"
    )
    watched.monitor.sh("systemctl kill --signal STOP prometheus-alertmanager")
    try:
        done = watched.monitor.sh(f"{program}.quick remove {watched.name} 2>&1", check=False)
    finally:
        watched.monitor.sh("systemctl kill --signal CONT prometheus-alertmanager")

    assert done.returncode == 1
    assert "did not load its new file" in done.stdout
    assert watched.monitor.sh(f"cat {ETC}/*.yml | sha256sum").stdout == before
    code, output = watched.site.run("observe.install")
    assert (code, "Nothing to do" in output) == (0, True), output


def test_observe_configuration_written_by_hand_is_left_alone(watched: Watched) -> None:
    watched.monitor.sh(f"cp -p {ETC}/prometheus.yml /tmp/kept && sed -i '1s/.*/# ours/' {ETC}/prometheus.yml")
    before = watched.monitor.sh(f"sha256sum {ETC}/prometheus.yml").stdout
    try:
        code, output = watched.site.run("observe.install")
    finally:
        after = watched.monitor.sh(f"sha256sum {ETC}/prometheus.yml").stdout
        watched.monitor.sh(f"cp -p /tmp/kept {ETC}/prometheus.yml")

    assert code == 3, output
    assert "the output of inv observe.render" in output
    assert after == before


def test_observe_uninstall_removes_only_the_environment(watched: Watched) -> None:
    code, output = watched.site.run("observe.uninstall")
    assert code == 0, output

    targets = watched.api(9090, "/api/v1/targets?state=active")
    assert "memoryark" not in json.dumps(targets)
    assert "memoryark" not in json.dumps(watched.api(9090, "/api/v1/rules"))
    assert watched.query('up{job="prometheus"} == 1')
    secret = watched.chat.url().rpartition("/")[2]
    assert watched.monitor.sh(f"grep -r {secret} {ETC}", check=False).returncode == 1
    code, output = watched.site.run("observe.uninstall")
    assert (code, "Nothing to do" in output) == (0, True), output
