"""Real Prometheus, Alertmanager and blackbox-exporter on one lab host, which monitor another lab host."""

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
from rolling_upgrade.features.observe.files import complete_files
from tests.deploy.bare_host import SECURE
from tests.deploy.conftest import DOMAIN, PROJECT, Site, local_address, wait_until
from tests.support.alert_cases import CASES, as_test
from tests.support.mailbox import Mailbox, mailbox
from tests.support.monitoring import environment, expressions
from tests.support.receiver import Receiver, receiving

ETC = "/etc/prometheus"


@dataclass(frozen=True)
class Watched:
    """The monitored first host, the monitoring second host, and the receivers of its notifications."""

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
        """Return the answer of Prometheus or Alertmanager on the monitoring host's loopback."""
        return json.loads(self.monitor.sh(f"curl -fsS 'http://127.0.0.1:{port}{path}'").stdout)

    def query(self, expression: str) -> list[dict[str, object]]:
        """Return every sample of an expression. Raises AssertionError when Prometheus rejects it."""
        answer = self.api(9090, f"/api/v1/query?query={quote(expression)}")
        assert isinstance(answer, dict)
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    def alerts(self) -> set[str]:
        """Return the names of the firing alerts."""
        return {str(sample["metric"]["alertname"]) for sample in self.query('ALERTS{alertstate="firing"}')}  # type: ignore[index]


@pytest.fixture(scope="module")
def watched(prepared_site: Site) -> Iterator[Watched]:
    """The first host with node-exporter and a watchdog without recovery; the second host monitors it."""
    site = prepared_site
    web1, web2 = site.lab.hosts
    address = local_address(web2)
    with receiving(address=address) as chat, mailbox(address=address) as box, site.unchanged_files():
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
            site.run_ok(*words)
        yield Watched(site, chat, box)


def visit(host: Host, times: int) -> None:
    """Send requests to both services as a visitor who accepts the self-signed certificate."""
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
        return {str(sample["metric"]["job"]) for sample in watched.query("up == 1")}  # type: ignore[index]

    wait_until(lambda: up() == jobs, "all targets", 60)
    assert len(watched.query(f'up{{job="memoryark",environment="{watched.site.lab.name}",host="web1"}}')) == 1
    assert len(watched.query('rolling_look_ok{job="memoryark",app="memoryark",host="web1"} == 1')) == 1
    assert len(watched.query('probe_success{job="memoryark-site",host="web1"} == 1')) == 1
    listening = watched.monitor.sh("ss -Hltn").stdout.split()
    assert {address for address in listening if address.endswith((":9090", ":9093", ":9094", ":9115"))} == {
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
    with watched.site.unchanged_files():
        watched.site.edit_env(SLACK_WEBHOOK=watched.chat.url("/services/T1/B2/another0secret9of8the7chat"))
        code, output = watched.site.run("observe.install", "--dry-run")

    assert code == 0, output
    assert "monitoring of" in output
    assert "another0secret9of8the7chat" not in output
    assert "another0secret9of8the7chat" not in watched.monitor.sh(f"cat {ETC}/alertmanager.yml").stdout


def test_observe_every_alert_passes_its_rule_tests_in_promtool(watched: Watched) -> None:
    texts = {
        **complete_files(environment()),
        "cases.yml": yaml.safe_dump(as_test(CASES, "alerting.yml"), sort_keys=False),
    }
    texts["dashboard.yml"] = as_rules(environment().targets[0].application)
    directory = "/tmp/alerts"
    for name, text in texts.items():
        watched.monitor.sh(f"mkdir -p {directory} && cat > {directory}/{name} <<'END-OF-FILE'\n{text}\nEND-OF-FILE")

    checks = (
        "promtool check config prometheus.yml",
        "promtool check rules alerting.yml dashboard.yml",
        "amtool check-config alertmanager.yml",
        "prometheus-blackbox-exporter --config.check --config.file=blackbox.yml",
        "promtool test rules cases.yml",
    )
    for check in checks:
        done = watched.monitor.sh(f"cd {directory} && {check} 2>&1", check=False, timeout=240)
        assert done.returncode == 0, done.stdout


def as_rules(app: Application) -> str:
    """Return the queries of a dashboard, with and without request metrics, as recording rules."""
    apps = (replace(app, request_metrics=counted) for counted in (False, True))
    rules = [
        {"record": "checked", "expr": expression, "labels": {"of": f"{number}"}}
        for number, expression in enumerate(query for each in apps for query in expressions(each, "production"))
    ]
    return yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, sort_keys=False)


def test_observe_every_expression_of_the_dashboard_returns_data(watched: Watched) -> None:
    """Some expressions have data only after a failed deploy, while the lock is held, or after a backup."""
    site, name = watched.site, watched.site.lab.name
    app = config.load(name, root=PROJECT).targets[0].application
    queries = expressions(app, name)
    failures = [query for query in queries if query.endswith("== 0") and "deploy_last_success" in query]
    assert (len(queries) > 30, len(failures)) == (True, 1)

    def without_data(queries: Iterable[str]) -> list[str]:
        return [query for query in queries if not watched.query(query)]

    with hurried(watched):
        visit(watched.host, 40)
        site.run_ok("backup")
        site.run_ok("lock.acquire", "--reason", "looking myself")
        visited = 'rate(rolling_http_requests_total{job="memoryark",code="2xx"}[5m]) > 0'
        wait_until(lambda: watched.query(visited), "a rate of requests", 90)
        wait_until(lambda: not without_data(set(queries) - set(failures)), "every expression", 60)

        site.run_ok("lock.release")
        assert site.deploy("exits-at-once")[0] == 1
        wait_until(lambda: not without_data(failures), "the failed deploy", 60)


@contextmanager
def hurried(watched: Watched) -> Iterator[None]:
    """Scrape and evaluate every five seconds. The installed files are restored at the end."""
    watched.monitor.sh(f"sed -i 's/_interval: 15s/_interval: 5s/' {ETC}/prometheus.yml && systemctl reload prometheus")
    try:
        yield
    finally:
        watched.site.run_ok("observe.install")


def test_observe_stopped_backend_is_paged_and_its_end_is_reported(watched: Watched) -> None:
    """The notifications by Slack and mail contain the alert's summary and the link to its runbook section.

    The waiting times of the rules are under test in promtool and in tests/features/observe/test_files.py.
    """
    summary = "memoryark: backend is down on web1 (critical) https://docs.test/operations.md#servicedown"
    backend = watched.site.running_container(watched.host)
    with hurried(watched):
        watched.monitor.sh(
            f"sed -i 's/for: 1m/for: 5s/' {ETC}/rolling/{watched.name}/alerting.yml\n"
            "sed -i 's/group_wait: 15s/group_wait: 5s/; s/group_interval: 1m/group_interval: 5s/'"
            f" {ETC}/alertmanager.yml\n"
            "systemctl reload prometheus prometheus-alertmanager"
        )
        watched.host.sh(f"podman stop -t 1 {backend}", user="deploy")
        wait_until(lambda: "ServiceDown" in watched.alerts(), "the alert", 60)
        # The first page may name only the full chain.
        wait_until(
            lambda: any(summary in text for text in slack_texts(watched.chat, "Alert: ServiceDown")),
            "the page in the chat",
        )
        wait_until(
            lambda: any(summary.partition(" (")[0] in text for text in mail_bodies(watched.box, "Alert: ServiceDown")),
            "the page by mail",
        )
        watched.host.sh(f"podman start {backend}", user="deploy")
        wait_until(lambda: "ServiceDown" not in watched.alerts(), "the end of the alert")
        wait_until(lambda: slack_texts(watched.chat, "Resolved: ServiceDown"), "its end in the chat")
        wait_until(lambda: mail_bodies(watched.box, "Resolved: ServiceDown"), "its end by mail")


def slack_texts(chat: Receiver, title: str) -> list[str]:
    """Return the texts of the Slack messages whose title has this prefix."""
    attachments = [attachment for request in chat.requests for attachment in request.json.get("attachments", [])]
    return [str(attachment["text"]) for attachment in attachments if str(attachment["title"]).startswith(title)]


def mail_bodies(box: Mailbox, subject: str) -> list[str]:
    """Return the bodies of the mails whose subject has this prefix."""
    return [str(mail.body) for mail in box.mails if mail.subject.startswith(subject)]


def test_observe_file_rejected_by_a_program_changes_nothing(watched: Watched) -> None:
    before = watched.monitor.sh(f"cat {ETC}/*.yml {ETC}/rolling/*/*.yml | sha256sum").stdout
    staged = f"{ETC}/rolling/.staged/{watched.name}"
    watched.monitor.sh(f"mkdir -p {staged} && cp {ETC}/rolling/{watched.name}/*.yml {staged}/")
    watched.monitor.sh(f"echo '      - alert: [' >> {staged}/alerting.yml")

    done = watched.monitor.sh(f"/usr/local/lib/rolling-observe/observe install {watched.name} 2>&1", check=False)

    assert done.returncode == 1
    assert "alerting.yml" in done.stdout
    assert watched.monitor.sh(f"cat {ETC}/*.yml {ETC}/rolling/*/*.yml | sha256sum").stdout == before
    assert watched.monitor.sh("/usr/local/lib/rolling-observe/observe check", check=False).returncode == 0


def test_observe_program_that_keeps_its_old_file_is_detected(watched: Watched) -> None:
    """The reload reports success although the program did not load the file. The previous files are restored."""
    before = watched.monitor.sh(f"cat {ETC}/*.yml | sha256sum").stdout
    program = "/usr/local/lib/rolling-observe/observe"
    shorter = "s/^wait_seconds=.*/wait_seconds=2/; s/--max-time 5/--max-time 1/"
    watched.monitor.sh(f"sed '{shorter}' {program} > {program}.quick; chmod 755 {program}.quick")
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
    watched.site.run_ok("observe.uninstall")

    targets = watched.api(9090, "/api/v1/targets?state=active")
    assert "memoryark" not in json.dumps(targets)
    assert "memoryark" not in json.dumps(watched.api(9090, "/api/v1/rules"))
    # After a restart, Prometheus has no values until its first scrape.
    wait_until(lambda: watched.query('up{job="prometheus"} == 1'), "Prometheus scrapes itself")
    secret = watched.chat.url().rpartition("/")[2]
    assert watched.monitor.sh(f"grep -r {secret} {ETC}", check=False).returncode == 1
    code, output = watched.site.run("observe.uninstall")
    assert (code, "Nothing to do" in output) == (0, True), output
