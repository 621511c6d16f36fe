"""The metrics file: every documented series in Prometheus' format, and errors that never stop the watchdog."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import (
    Channels,
    Check,
    Color,
    HealthReport,
    Hook,
    Kind,
    Lock,
    Outcome,
    Release,
    RolloutPolicy,
    WatchRules,
)
from rolling_upgrade.features.watchdog import metrics
from rolling_upgrade.features.watchdog.metrics import (
    Family,
    MetricsWriter,
    Sample,
    add_restarts,
    check_labels,
    counter,
    exposition,
    gauge,
    newest_backup,
    nginx_status,
    write_public,
)
from rolling_upgrade.features.watchdog.policy import FailureCounter, RecoveryAction, RecoveryState
from rolling_upgrade.features.watchdog.state_store import Settings
from tests.features.watchdog.test_classify import NAMES, NOW, STATE, report
from tests.support.prometheus import Metrics, promtool, read
from tests.support.receiver import closed_port
from tests.support.sample import application, backend, worker

APP = replace(application(), request_metrics=True)
MADE = Release("r2", "2026-11-24T10:00:00+00:00", "deploy", Outcome.GOOD, (), seconds=41.5)
LOCK = Lock("run", "ann", "laptop", 41, 'deploy "v2"\nnow\\', NOW - 60, NOW + 60)
STATUS = (
    "HTTP/1.1 200 OK\r\n\r\nActive connections: 3 \nserver accepts handled requests\n 16 15 70 \n"
    "Reading: 0 Writing: 1 Waiting: 2 \n"
)
SECRET = "https://hooks.example.org/services/T1/B2/q7Zk1m9pX2vB8nW4"


class Host:
    """A home, a directory of metrics and a request log; `metrics` reads the file that was written last."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.place, self.log = root / "home", root / "metrics", root / "requests.log"
        (self.home / "watchdog").mkdir(parents=True)
        self.place.mkdir()
        self.log.touch()
        monkeypatch.setattr(metrics, "request_log", lambda _: str(self.log))
        monkeypatch.setattr(metrics, "nginx_status", lambda _: (True, metrics._parse_stub_status(STATUS)))
        channels = Channels(slack=Hook(SECRET))
        self.settings = Settings(
            "shop", "web1", "production", WatchRules(), RolloutPolicy(), channels=channels, metrics_dir=str(self.place),
            request_metrics=True,
        )  # fmt: skip
        self.writer = self.started()

    def started(self) -> MetricsWriter:
        """The writer of a watchdog that has just started."""
        return MetricsWriter(self.home, self.settings, lambda: float(NOW))

    @property
    def file(self) -> Path:
        return self.place / "rolling-shop.prom"

    def write(
        self, found: HealthReport | None = None, state: RecoveryState | None = None, **changes: object
    ) -> Metrics:
        """Write the metrics of one observation, and read them."""
        self.writer.write(
            replace(APP, **changes),  # type: ignore[arg-type]
            found or report(),
            (replace(MADE, id="r1"), MADE, replace(MADE, action="recovery", outcome=Outcome.UNDONE)),
            state or RecoveryState(),
        )
        return self.metrics()

    def metrics(self) -> Metrics:
        text = self.file.read_text()
        assert promtool(text) == ""
        return read(text)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_metrics_have_a_series_for_each_check(host: Host) -> None:
    found = host.write(report("disk /", "backend nginx", unanswered=("backend http",)))

    labels = {(row["check"], row["subject"]) for row in found.labels("rolling_check_ok")}
    assert labels == {
        *((check, service) for check in ("container", "http", "nginx") for service in ("backend", "frontend")),
        *(("chain", ""), ("site", ""), ("disk", "/"), ("memory", ""), ("database", "")),
        *(("certificate", ""), ("backup", ""), ("clock", "")),
    }
    assert len(labels) == len(NAMES)
    assert found.value("rolling_check_ok", check="nginx", subject="backend") == 0
    assert found.value("rolling_check_ok", check="http", subject="frontend") == 1
    timed = {(row["check"], row["subject"]) for row in found.labels("rolling_check_seconds")}
    assert ("http", "backend") not in timed
    assert {("chain", ""), ("site", ""), ("nginx", "backend")} <= timed


def test_check_labels_of_a_service_with_a_hyphen() -> None:
    assert check_labels(Check(Kind.HTTP, "my-api http", True, "", "my-api")) == ("http", "my-api")


def test_metrics_of_lock_maintenance_page_certificate_and_release(host: Host) -> None:
    state = replace(STATE, lock=LOCK, facts=(("maintenance", "hand"),), active=(("backend", Color.GREEN),))
    green = replace(STATE.containers[0], color=Color.GREEN, release="r3")
    state = replace(state, containers=(*STATE.containers, green))

    found = host.write(replace(report(state=state), certificate_ends=NOW + 5))

    assert found.value("rolling_certificate_expiry_timestamp_seconds") == NOW + 5
    assert found.value("rolling_lock_held", app="shop", environment="production") == 1
    assert found.value("rolling_lock_since_timestamp_seconds") == NOW - 60
    assert found.value("rolling_lock_info", who="ann", reason='deploy "v2" now\\') == 1
    assert found.value("rolling_maintenance") == 1
    assert found.value("rolling_release_info", service="backend", color="green", release="r3", version="v2") == 1
    assert found.value("rolling_release_info", service="frontend", color="blue", digest="sha256:aa") == 1


def test_metrics_lock_that_is_free_or_expired_is_not_held(host: Host) -> None:
    for lock in (None, replace(LOCK, expires_at=NOW)):
        found = host.write(report(state=replace(STATE, lock=lock)))
        assert found.value("rolling_lock_held") == 0
        assert found.names().isdisjoint({"rolling_lock_info", "rolling_lock_since_timestamp_seconds"})


def test_metrics_of_watchdog_deploy_and_nginx(host: Host) -> None:
    found = host.write(state=RecoveryState((FailureCounter("backend", failures=2),), given_up=True))

    assert found.value("rolling_watchdog_heartbeat_timestamp_seconds") == NOW
    assert found.value("rolling_watchdog_interval_seconds") == 30
    assert (found.value("rolling_watchdog_given_up"), found.value("rolling_look_ok")) == (1, 1)
    assert found.value("rolling_service_failures", service="backend") == 2
    assert found.value("rolling_deploy_last_timestamp_seconds") == 1_795_514_400
    assert found.value("rolling_deploy_last_success") == 1
    assert found.value("rolling_deploy_last_duration_seconds", action="deploy") == 41.5
    assert found.value("rolling_nginx_up") == 1
    assert found.value("rolling_nginx_connections", state="waiting") == 2
    assert (found.value("rolling_nginx_accepted_total"), found.value("rolling_nginx_requests_total")) == (16, 70)


def test_metrics_of_requests_are_a_cumulative_histogram(host: Host) -> None:
    host.write()
    host.log.write_text("shop_backend_blue/200/0.003\n" * 3 + "shop_backend_blue/500/0.300\n")

    found = host.write()

    blue = {"service": "backend", "color": "blue"}
    assert found.value("rolling_http_requests_total", **blue, code="2xx") == 3
    assert found.value("rolling_http_requests_total", **blue, code="5xx") == 1
    name = "rolling_http_request_duration_seconds"
    buckets = [found.value(f"{name}_bucket", **blue, le=le) for le in ("0.005", "0.25", "0.5", "10", "+Inf")]
    assert buckets == [3, 3, 4, 4, 4]
    assert found.value(f"{name}_count", **blue) == 4
    assert found.value(f"{name}_sum", **blue) == pytest.approx(0.309)
    assert found.kinds[name] == "histogram"


def test_metrics_counters_survive_a_restart_of_the_watchdog(host: Host) -> None:
    host.write()
    host.log.write_text("shop_backend_blue/200/0.003\n")
    host.writer.recovered(RecoveryAction.ROLL_BACK, failed=True)
    host.writer.recovered(RecoveryAction.RESTART, failed=False)
    crashed = replace(STATE, containers=(replace(STATE.containers[0], restarts=2), STATE.containers[1]))
    host.write(report(state=crashed))

    host.writer = host.started()
    found = host.write(report(state=crashed))

    assert found.value("rolling_http_requests_total", service="backend", color="blue", code="2xx") == 1
    assert found.value("rolling_recoveries_total", act="roll_back") == 1
    assert found.value("rolling_recoveries_failed_total", act="roll_back") == 1
    assert found.value("rolling_recoveries_failed_total", act="restart") == 0
    assert found.value("rolling_recoveries_total", act="redeploy") == 0
    assert found.value("rolling_service_restarts_total", service="backend") == 2


def test_metrics_counters_of_an_earlier_version_are_read(host: Host) -> None:
    earlier = {
        "counted": {
            "position": {"inode": 0, "offset": 0},
            "series": [
                {
                    "service": "backend",
                    "color": "blue",
                    "codes": [0, 7, 0, 0, 0],
                    "classes": [7] + [0] * 11,
                    "seconds": 1,
                }
            ],
            "errors": 2,
        },
        "restarts": [["backend", 3]],
        "seen": [[f"{STATE.containers[0].name} r2", 0]],
        "recoveries": [["roll back", 4]],
        "failed": [["roll back", 1]],
        "errors": 1,
    }
    (host.home / "watchdog/metrics.json").write_text(json.dumps(earlier))
    host.writer = host.started()

    found = host.write()

    assert found.value("rolling_http_requests_total", service="backend", color="blue", code="2xx") == 7
    assert found.value("rolling_service_restarts_total", service="backend") == 3
    assert found.value("rolling_recoveries_total", act="roll_back") == 4
    assert found.value("rolling_metrics_errors_total") == 3


def test_add_restarts_adds_those_since_the_previous_observation() -> None:
    backend = STATE.containers[0]
    with_restarts = [replace(STATE, containers=(replace(backend, restarts=count),)) for count in (5, 7, 1)]
    key = f"{backend.name} {backend.release}"

    assert add_restarts({}, {}, with_restarts[0]) == {"backend": 0}
    assert add_restarts({"backend": 3}, {key: 5}, with_restarts[1]) == {"backend": 5}
    assert add_restarts({"backend": 3}, {"another": 5}, with_restarts[2]) == {"backend": 4}
    assert add_restarts({"backend": 3}, {key: 5}, with_restarts[2]) == {"backend": 4}


def test_metrics_of_a_host_that_could_not_be_observed_have_a_heartbeat(host: Host) -> None:
    host.writer.write(APP, None, (MADE,), RecoveryState())
    found = host.metrics()
    assert (found.value("rolling_look_ok"), found.value("rolling_watchdog_heartbeat_timestamp_seconds")) == (0, NOW)
    assert "rolling_check_ok" not in found.names()

    host.writer.write(None, None, (), RecoveryState())
    assert host.metrics().value("rolling_look_ok") == 0


def test_metrics_without_the_request_log_have_no_requests(host: Host) -> None:
    host.settings = replace(host.settings, request_metrics=False)
    host.writer = host.started()

    found = host.write()

    assert not any("nginx_" in name or "http_request" in name for name in found.names())


def test_metrics_of_a_host_with_workers_alone_ask_no_site(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "nginx_status", nginx_status)

    host.writer.write(application(worker(), full_chain=None), report(), (MADE,), RecoveryState())

    assert "nginx_" not in host.file.read_text()


def test_metrics_file_is_readable_by_all_and_holds_no_secret(host: Host) -> None:
    before = os.umask(0o077)
    try:
        host.write(report(state=replace(STATE, lock=replace(LOCK, reason=f"try {SECRET} again"))))
    finally:
        os.umask(before)

    assert host.file.stat().st_mode & 0o777 == 0o644
    assert "q7Zk1m9pX2vB8nW4" not in host.file.read_text()
    assert [path.name for path in host.place.iterdir()] == ["rolling-shop.prom"]


@pytest.mark.parametrize("place", ["", "/nonexistent/metrics"])
def test_metrics_are_not_written_without_a_directory(place: str, host: Host) -> None:
    host.settings = replace(host.settings, metrics_dir=place)

    host.started().write(APP, report(), (MADE,), RecoveryState())

    assert list(host.place.iterdir()) == []


def test_metrics_errors_are_counted_and_stop_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.write()
    host.log.unlink()
    host.log.mkdir()
    host.write()
    monkeypatch.setattr(
        metrics, "write_public", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    host.write()
    monkeypatch.undo()
    monkeypatch.setattr(metrics, "request_log", lambda _: str(host.log))
    monkeypatch.setattr(metrics, "nginx_status", lambda _: (False, None))

    found = host.write()

    assert found.value("rolling_metrics_errors_total") == 4
    assert found.value("rolling_nginx_up") == 0


def test_write_public_follows_no_link_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a.new").symlink_to(tmp_path / "precious")
    (tmp_path / "a.prom").symlink_to(tmp_path / "precious")

    write_public(tmp_path / "a.prom", "text\n")

    assert ((tmp_path / "precious").read_text(), (tmp_path / "a.prom").read_text()) == ("mine", "text\n")


def test_newest_backup_is_the_newest_complete_one_that_is_not_damaged(tmp_path: Path) -> None:
    app = replace(APP, database_backups=str(tmp_path))
    assert newest_backup(app) is None
    for day, verdict in ((1, ""), (2, "good 5"), (3, "damaged 6 rows"), (4, None)):
        place = tmp_path / f"shop-2026112{day}T000000Z-abcdef"
        place.mkdir()
        if verdict is not None:
            (place / "manifest.json").write_text("{}")
            (place / "verified").write_text(verdict)
            os.utime(place / "manifest.json", (day, day))
    (tmp_path / "shop-two-20261129T000000Z-abcdef").mkdir()

    assert newest_backup(app) == 2


@contextmanager
def answering(text: str) -> Iterator[int]:
    """A server on loopback that answers every request with a text; its port."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(text.encode())

    with socketserver.TCPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_nginx_status_is_none_for_a_site_without_a_status_page() -> None:
    for text, expected in ((STATUS, True), ("HTTP/1.1 200 OK\r\n\r\n<html>", False)):
        with answering(text) as port:
            answered, found = nginx_status(application(backend(service_port=port), full_chain=None))
            assert (answered, found is not None) == (True, expected)
    assert nginx_status(application(backend(service_port=closed_port()), full_chain=None)) == (False, None)


COMMON = {"app": "shop", "environment": "production"}


def test_exposition_has_help_and_type_once_and_every_label() -> None:
    text = exposition([gauge("up", "It runs", Sample(1, service="a"), Sample(0.25, service="b"))], COMMON)

    assert text.splitlines() == [
        "# HELP up It runs",
        "# TYPE up gauge",
        'up{app="shop",environment="production",service="a"} 1',
        'up{app="shop",environment="production",service="b"} 0.25',
    ]


def test_exposition_leaves_out_empty_families_and_repeated_series() -> None:
    text = exposition([gauge("nothing", "x"), counter("a_total", "x", Sample(1, b="c"), Sample(2, b="c"))], COMMON)

    assert read(text).samples == {("a_total", frozenset({**COMMON, "b": "c"}.items())): 1.0}


@pytest.mark.parametrize(
    "value",
    [
        'a "b" c',
        "back\\slash",
        "two\nlines",
        "tab\tand \x1b[31mred",
        "}{,=",
        "żółć",
        "x" * 5000,
        "\ud800",
        '\\"',
        "\\n",
    ],
)
def test_exposition_label_of_any_text_is_one_line_that_parses(value: str) -> None:
    text = exposition([gauge("a", "x", Sample(1, reason=value))], {})

    assert len(text.splitlines()) == 3
    ((_, labels),) = read(text).samples
    found = dict(labels)["reason"]
    assert len(found) <= 200
    assert found == value or not value.isprintable() or len(value) > 200


def test_exposition_masks_secrets_in_labels() -> None:
    text = exposition([gauge("a", "x", Sample(1, reason="see https://hook/T1/s3cr3t!"))], {}, ("s3cr3t!",))

    assert "s3cr3t" not in text


@pytest.mark.parametrize(
    ("value", "written"), [(1_795_403_565, "1795403565"), (0.1, "0.1"), (float("inf"), "+Inf"), (True, "1")]
)
def test_exposition_writes_whole_numbers_without_a_fraction(value: float, written: str) -> None:
    assert exposition([gauge("a", "x", Sample(value))], {}).endswith(f"a{{}} {written}\n")


def test_exposition_of_an_invalid_metric_name_raises() -> None:
    with pytest.raises(ValueError, match="is not a metric name"):
        exposition([Family("a b", "gauge", "x", (Sample(1),))], {})
