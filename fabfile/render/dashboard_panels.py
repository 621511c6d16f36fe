"""What the Grafana dashboard asks Prometheus for: its rows, panels and annotations as data. It knows no Grafana.

The series are those of watchdog/measures.py, of node-exporter and of blackbox-exporter, with the labels that
Prometheus' own configuration for the application gives to them.
"""

from __future__ import annotations

from collections.abc import Iterator

from fabfile.model import Application
from fabfile.render.dashboard_shapes import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    Mark,
    Panel,
    Query,
    Row,
    Series,
    Shape,
    graph,
    stat,
)
from fabfile.render.dashboard_words import Words

#: Network interfaces that carry no visitor, and file systems that hold no data.
_INNER = 'device!~"lo|veth.*|br-.*|cni.*|podman.*|docker.*"'
_DATA = 'fstype!~"tmpfs|ramfs|squashfs|fuse.*",mountpoint!~"/(boot|dev|proc|run|sys)(/.*)?"'
_FAILED, _IDLE = 'code="5xx"', 'mode="idle"'
_RATE, _RANGE = "[$__rate_interval]", "[$__range]"
_PACE, _AHEAD_SECONDS = "[6h]", 24 * 3600
_DAY = 86_400
#: Beyond how many pauses between two looks the watchdog is late, and beyond how many it is missing.
_LATE, _MISSING = 3, 10


def rows(app: Application, environment: str, words: Words) -> Iterator[Row]:
    """The rows from the top down. Without request metrics the panels that need them are left out."""
    series = Series(app.name, environment)
    yield Row("health", _health(series, app))
    yield Row("response", _response(series, app))
    if app.request_metrics:
        yield Row("requests", _requests(series))
    yield Row("resources", _resources(series, app, words))
    yield Row("releases", (*_tables(series), *_last_deploy(series), *_upkeep(series, app, words)))


def marks(app: Application, environment: str) -> tuple[Mark, ...]:
    """The annotations: deploys by how they ended, and recoveries."""
    series = Series(app.name, environment)
    at = f"max by (host) ({series.rolling('deploy_last_timestamp_seconds')})"
    # The action is a label of the duration alone: any duration becomes 1, and its label goes over to the time.
    action = f"(max by (host, action) ({series.rolling('deploy_last_duration_seconds')}) >= bool 0)"
    success = f"min by (host) ({series.rolling('deploy_last_success')})"
    when = f"1000 * {at} * on (host) group_left (action) {action} and on (host) {success}"
    begun = f"sum by (host, act) (increase({series.rolling('recoveries_total')}{_RATE}))"
    return (
        Mark("deploys", BLUE, Query(f"{when} == 1"), timed=True),
        Mark("failed_deploys", RED, Query(f"{when} == 0", optional=True), timed=True),
        Mark("recoveries", YELLOW, Query(begun)),
    )


def _health(series: Series, app: Application) -> tuple[Panel, ...]:
    known = (("unwell", RED), ("well", GREEN))
    worst = Query(f"min by (subject, check) ({series.rolling('check_ok')})", "{{subject}} {{check}}")
    each = Query(f"min by (host, subject, check) ({series.rolling('check_ok')})", "{{host}} {{subject}} {{check}}")
    site, look = f"min by (host) ({series.site('success')})", f"min by (host) ({series.rolling('look_ok')})"
    age = f"time() - max by (host) ({series.rolling('watchdog_heartbeat_timestamp_seconds')})"
    given_up = f"max by (host) ({series.rolling('watchdog_given_up')})"
    pause = app.watch.interval_seconds
    steps = ((None, GREEN), (_LATE * pause, YELLOW), (_MISSING * pause, RED))
    return (
        stat("service_health", "none", 10, worst, states=known, height=6),
        stat("site", "none", 4, Query(site, "{{host}}"), states=known, height=6),
        stat("heartbeat", "s", 4, Query(age, "{{host}}"), steps=steps, height=6),
        stat("look", "none", 3, Query(look, "{{host}}"), states=(("no", RED), ("yes", GREEN)), height=6),
        stat("given_up", "none", 3, Query(given_up, "{{host}}"), states=(("no", GREEN), ("yes", RED)), height=6),
        Panel("checks", Shape.TIMELINE, "none", 24, (each,), states=known),
    )


def _response(series: Series, app: Application) -> tuple[Panel, ...]:
    phases = f"avg by (phase) ({series.site('http_duration_seconds')})"
    site = (
        Query(f"max by (host) ({series.site('duration_seconds')})", "{{host}}"),
        Query(phases, "{{phase}}"),
    )
    answers = Query(f"max by (subject, check) ({series.rolling('check_seconds')})", "{{subject}} {{check}}")
    if not app.request_metrics:
        return graph("answer_time", "s", 12, answers), graph("site_time", "s", 12, *site)
    shares = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    waits = [Query(_quantile(series, share, "service"), f"{{{{service}}}} {name}") for share, name in shares]
    by_color = Query(_quantile(series, 0.95, "service, color"), "{{service}} {{color}} p95")
    return (
        graph("response_time", "s", 12, *waits),
        graph("site_time", "s", 12, *site),
        graph("color_time", "s", 12, by_color),
        graph("check_time", "s", 12, answers),
    )


def _quantile(series: Series, share: float, labels: str) -> str:
    buckets = f"rate({series.rolling('http_request_duration_seconds_bucket')}{_RATE})"
    return f"histogram_quantile({share:g}, sum by ({labels}, le) ({buckets}))"


def _requests(series: Series) -> tuple[Panel, ...]:
    every = f"rate({series.rolling('http_requests_total')}{_RATE})"
    failed = f"rate({series.rolling('http_requests_total', _FAILED)}{_RATE})"
    by_color, by_code = f"sum by (service, color) ({every})", f"sum by (code) ({every})"
    # Without a request the share is 0, not a division by 0; a color that was asked at all is asked more often.
    share = f"sum by (service, color) ({failed}) / clamp_min({by_color}, 0.000001)"
    return (
        graph("color_requests", "reqps", 8, Query(by_color, "{{service}} {{color}}")),
        graph("server_errors", "percentunit", 8, Query(share, "{{service}} {{color}}")),
        graph("answers", "reqps", 8, Query(by_code, "{{code}}")),
    )


def _resources(series: Series, app: Application, words: Words) -> tuple[Panel, ...]:
    idle = f"avg by (host) (rate({series.node('cpu_seconds_total', _IDLE)}{_RATE}))"
    available, total = series.node("memory_MemAvailable_bytes"), series.node("memory_MemTotal_bytes")
    memory = f"1 - max by (host) ({available}) / max by (host) ({total})"
    processors = f"count by (host) ({series.node('cpu_seconds_total', _IDLE)})"
    load = f"max by (host) ({series.node('load5')}) / {processors}"
    allowed = app.thresholds.memory_percent / 100
    disk, wanted = _disk(series, words), app.thresholds.free_percent / 100
    lower = 8 if app.request_metrics else 12
    panels = (
        graph("cpu", "percentunit", 8, Query(f"1 - {idle}", "{{host}}")),
        graph("memory", "percentunit", 8, Query(memory, "{{host}}"), steps=((None, GREEN), (allowed, RED))),
        graph("load", "none", 8, Query(load, "{{host}}"), decimals=2),
        graph("disk", "percentunit", lower, *disk, steps=((None, RED), (wanted, GREEN))),
        graph("network", "Bps", lower, *_network(series, words)),
    )
    if not app.request_metrics:
        return panels
    nginx = Query(f"sum by (state) ({series.rolling('nginx_connections')})", "{{state}}")
    return (*panels, graph("connections", "none", 8, nginx))


def _disk(series: Series, words: Words) -> tuple[Query, ...]:
    size = f"min by (host, mountpoint) ({series.node('filesystem_size_bytes', _DATA)})"
    free = series.node("filesystem_avail_bytes", _DATA)
    then = f"min by (host, mountpoint) (predict_linear({free}{_PACE}, {_AHEAD_SECONDS}))"
    name = "{{host}} {{mountpoint}}"
    return (
        Query(f"min by (host, mountpoint) ({free}) / {size}", name),
        Query(f"clamp({then} / {size}, 0, 1)", f"{name} {words.text('predicted')}"),
    )


def _network(series: Series, words: Words) -> Iterator[Query]:
    for word, name in (("in", "network_receive_bytes_total"), ("out", "network_transmit_bytes_total")):
        rate = f"sum by (host) (rate({series.node(name, _INNER)}{_RATE}))"
        yield Query(rate, f"{{{{host}}}} {words.text(word)}")


def _tables(series: Series) -> tuple[Panel, ...]:
    serving = ("host", "service", "version", "color", "release", "digest")
    holder = ("host", "who", "reason")
    serves = Query(f"max by ({', '.join(serving)}) ({series.rolling('release_info')})")
    since = f"max by (host) ({series.rolling('lock_since_timestamp_seconds')})"
    holds = f"1000 * max by ({', '.join(holder)}) ({series.rolling('lock_info')}) * on (host) group_left () {since}"
    return (
        Panel("serving", Shape.TABLE, "none", 14, (serves,), columns=serving),
        Panel(
            "lock_holder",
            Shape.TABLE,
            "dateTimeAsIso",
            10,
            (Query(holds, optional=True),),
            columns=holder,
            value="since",
        ),
    )


def _last_deploy(series: Series) -> tuple[Panel, ...]:
    ended = f"min by (host) ({series.rolling('deploy_last_success')})"
    at = f"1000 * max by (host) ({series.rolling('deploy_last_timestamp_seconds')})"
    took = f"max by (host, action) ({series.rolling('deploy_last_duration_seconds')})"
    return (
        stat("last_outcome", "none", 4, Query(ended, "{{host}}"), states=(("failed", RED), ("done", GREEN))),
        stat("last_time", "dateTimeFromNow", 4, Query(at, "{{host}}")),
        stat("last_duration", "s", 4, Query(took, "{{host}} {{action}}")),
    )


def _upkeep(series: Series, app: Application, words: Words) -> tuple[Panel, ...]:
    lock = f"max by (host) ({series.rolling('lock_held')})"
    page = f"max by (host) ({series.rolling('maintenance')})"
    backup = f"time() - max by (host) ({series.rolling('backup_last_good_timestamp_seconds')})"
    ageing = ((None, GREEN), (app.thresholds.backup_age_seconds, RED))
    restarts = f"sum by (service) (increase({series.rolling('service_restarts_total')}{_RANGE}))"
    counted = ((None, GREEN), (0.5, YELLOW))
    return (
        stat("lock", "none", 4, Query(lock, "{{host}}"), states=(("free", GREEN), ("held", BLUE))),
        stat("maintenance", "none", 4, Query(page, "{{host}}"), states=(("down", GREEN), ("up", YELLOW))),
        stat("backup", "s", 4, Query(backup, "{{host}}", optional=True), steps=ageing),
        _certificate(series, app, words),
        stat("restarts", "none", 8, Query(restarts, "{{service}}"), steps=counted, decimals=0),
        stat("recoveries", "none", 8, *_recoveries(series, words), steps=counted, decimals=0),
    )


def _certificate(series: Series, app: Application, words: Words) -> Panel:
    """Without TLS there is no certificate, and nobody has anything to say of one."""
    inside = f"min by (host) ({series.rolling('certificate_expiry_timestamp_seconds')})"
    outside = f"min by (host) ({series.site('ssl_earliest_cert_expiry')})"
    queries = (
        Query(f"({inside} - time()) / {_DAY}", "{{host}}", optional=app.tls is None),
        Query(f"({outside} - time()) / {_DAY}", f"{{{{host}}}} {words.text('outside')}", optional=app.tls is None),
    )
    steps = ((None, RED), (app.thresholds.certificate_days, GREEN))
    return stat("certificate", "d", 8, *queries, steps=steps, decimals=0)


def _recoveries(series: Series, words: Words) -> Iterator[Query]:
    for name, word in (("recoveries_total", ""), ("recoveries_failed_total", f" {words.text('failed')}")):
        yield Query(f"sum by (act) (increase({series.rolling(name)}{_RANGE}))", f"{{{{act}}}}{word}")
