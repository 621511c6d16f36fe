"""The verdict of each check, healthy and not, and parsing of hostile text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade.engine.model import Application, DatabaseServer, HealthReport, Job, Kind, Thresholds, Tls
from rolling_upgrade.features.health import shell as health
from tests.engine.test_observation import row
from tests.support.health_site import check, failed
from tests.support.sample import application, backend, database, frontend, worker

NOW = 1_795_403_565
DAY = 86_400
APP = replace(application(), tls=Tls("/c", "/k"), auto_backup=True, thresholds=Thresholds())
URLS = {
    "backend http": "http://127.0.0.1:18080/api/health",
    "frontend http": "http://127.0.0.1:17001/health",
    "backend nginx": "http://127.0.0.1:8080/api/health",
    "frontend nginx": "http://127.0.0.1:7001/health",
    "full chain": "http://127.0.0.1:7001/api/health",
    "site": "https://shop.test:443/",
}
HEALTHY = {
    **{name: f"http\t{url}\t200\t0.012\t127.0.0.1:1" for name, url in URLS.items()},
    "disk /": "disk\t/\t50\t50",
    "inodes /": "inodes\t/\t50\t50",
    "memory": "memory\t1000\t500",
    "database": "database\t12",
    "integrity": "integrity\tok ",
    "certificate": f"certificate\t{NOW + 30 * DAY}",
    "clock": f"clock\t{NOW}",
}
BLUE = {"backend": row(name="shop-backend-blue", color="blue"), "frontend": row(service="frontend", color="blue")}


def text(
    changes: dict[str, str] | None = None,
    *,
    containers: dict[str, str] | None = None,
    facts: str = "",
    active: str = "",
    lock: str = "",
) -> str:
    """The output on a healthy host, with some rows replaced; '' leaves a row out."""
    rows = [line for line in (HEALTHY | (changes or {})).values() if line]
    known = [line for line in (BLUE | (containers or {})).values() if line]
    facts = f"now={NOW}\nlast_backup={NOW - 3600} shop-1\nmaintenance=\n{facts}".rstrip()
    parts = {"facts": facts, "active": active, "containers": "\n".join(known), "lock": lock}
    parts |= dict.fromkeys(("listening", "releases", "probes"), "") | {"checks": "\n".join(rows), "end": ""}
    return "".join(f"@@{name}\n{content}\n" if content else f"@@{name}\n" for name, content in parts.items())


def report(answer: str, app: Application = APP, now: float = NOW) -> HealthReport:
    return health.parse(app, "web1", answer, now)


def test_parse_healthy_host_passes_every_check() -> None:
    found = report(text())

    names = [check.name for check in found.checks]
    assert failed(found) == set()
    assert sorted(names) == sorted([*HEALTHY, "backend container", "frontend container", "backup"])
    assert {check.kind for check in found.checks} == {*Kind} - {Kind.ACCESSORY, Kind.READY, Kind.JOB}


ACCESSORY = row(
    name="shop-accessory-db", service="", color="", image="registry.test/postgres:17", digest="", accessory="db"
)


@pytest.mark.parametrize(
    ("container", "answer", "detail"),
    [
        (ACCESSORY, "db\t0\t", ""),
        (ACCESSORY, "db\t125\tno check", ""),
        (ACCESSORY, "db\t1\tno connection", "no connection"),
        (ACCESSORY.replace("running\ttrue", "exited\tfalse"), "db\t125\t", "exited, exit code 0"),
        ("", "", "not up"),
    ],
)
def test_parse_accessory_that_is_supposed_to_run(container: str, answer: str, detail: str) -> None:
    said = text(containers={"db": container}, facts="accessories= db").replace(
        "@@checks\n", f"@@accessories\n{answer}\n@@checks\n"
    )

    found = check(report(said), "accessory db")

    assert (found.kind, found.ok, found.detail) == (Kind.ACCESSORY, not detail, detail or "17 is healthy")


def test_parse_accessory_that_is_declared_but_was_never_started_is_reported() -> None:
    app = replace(APP, accessories=(database(),))

    assert check(report(text(), app), "accessory db").detail == "not up"


def test_parse_http_check_has_its_url_and_response_time() -> None:
    nginx = check(report(text()), "backend nginx")

    assert nginx.detail == "HTTP 200 from 127.0.0.1:1, http://127.0.0.1:8080/api/health"
    assert (nginx.service, nginx.milliseconds, nginx.answered) == ("backend", 12, True)


@pytest.mark.parametrize(
    ("container", "detail"),
    [
        ("", "no blue container"),
        (row(name="x", color="green"), "no blue container"),
        (row(color="blue", running="false", status="exited", exit="137"), "blue is exited, exit code 137"),
        (row(color="blue", running="false", status=""), "blue is not running, exit code 0"),
        (row(color="blue", running="false", status="paused"), "blue is paused, exit code 0"),
    ],
)
def test_parse_container_that_does_not_run_fails(container: str, detail: str) -> None:
    found = report(text(containers={"backend": container}))

    assert failed(found) == {"backend container"}
    assert check(found, "backend container").detail == detail


def test_parse_container_with_restarts_is_healthy() -> None:
    container = check(report(text(containers={"backend": row(color="blue", restarts="7")})), "backend container")

    assert (container.ok, container.detail) == (True, "blue v2 runs, 7 restarts")


def test_parse_with_the_green_flag_checks_green() -> None:
    green = text({"backend http": HEALTHY["backend http"].replace("18080", "28080")}, active="backend.green")

    assert failed(report(green)) == {"backend container"}
    assert failed(report(text(active="backend.green"))) == {"backend container", "backend http"}


@pytest.mark.parametrize("name", [name for name in URLS if name != "site"])
@pytest.mark.parametrize(
    ("code", "detail", "answered"),
    [
        ("000", "no answer", False),
        ("500", "HTTP 500", True),
        ("301", "HTTP 301, a redirect", True),
        ("404", "HTTP 404", True),
        ("503", "HTTP 503", True),
        ("", "HTTP ", True),
    ],
)
def test_parse_service_that_does_not_answer_2xx_fails(name: str, code: str, detail: str, answered: bool) -> None:
    found = report(text({name: f"http\t{URLS[name]}\t{code}\t0.1\t"}, facts="maintenance=operator"))

    assert failed(found) == {name}
    assert check(found, name).detail == f"{detail}, {URLS[name]}"
    assert check(found, name).answered is answered


def test_parse_request_without_a_row_fails_without_an_answer() -> None:
    http = check(report(text({"backend http": ""})), "backend http")

    assert (http.ok, http.answered, http.milliseconds) == (False, False, 0)


@pytest.mark.parametrize(
    ("code", "page", "healthy"),
    [
        ("200", "", True),
        ("301", "", True),
        ("403", "", True),
        ("500", "", False),
        ("502", "operator", False),
        ("503", "", False),
        ("503", "operator", True),
        ("503", "setting", True),
        ("000", "operator", False),
    ],
)
def test_parse_site_fails_on_a_server_error_other_than_the_maintenance_page(
    code: str, page: str, healthy: bool
) -> None:
    found = report(text({"site": f"http\t{URLS['site']}\t{code}\t0.1\t"}, facts=f"maintenance={page}"))

    assert failed(found) == (set() if healthy else {"site"})


@pytest.mark.parametrize(
    ("name", "rows", "bad"),
    [
        ("disk /", "disk\t/\t10\t90", set()),
        ("disk /", "disk\t/\t9\t91", {"disk /"}),
        ("disk /", "disk\t/\t0\t91", {"disk /"}),
        ("disk /", "disk\t/\t50\t50\ndisk\t/srv/data\t1\t99", {"disk /srv/data"}),
        ("disk /", "", {"disk"}),
        ("inodes /", "inodes\t/\t9\t91", {"inodes /"}),
        ("inodes /", "inodes\t/\t0\t0", set()),
        ("inodes /", "inodes\t/\t-\t-", set()),
        ("inodes /", "inodes\t/\t0\t0\ninodes\t/srv\t0\t7", {"inodes /srv"}),
        ("inodes /", "", set()),
        ("memory", "memory\t1000\t100", set()),
        ("memory", "memory\t1000\t99", {"memory"}),
        ("memory", "memory\t1000\t0", {"memory"}),
        ("database", "database\t0", set()),
        ("database", "database\t", {"database"}),
        ("database", "database\tError: unable to open database file", {"database"}),
        ("database", "database\t12\t13", {"database"}),
        ("database", "database\t-1", {"database"}),
        ("integrity", "integrity\t", set()),
        ("integrity", "integrity\tok", set()),
        ("integrity", "integrity\tokay", {"integrity"}),
        ("integrity", "integrity\t*** in database main *** Page 7", {"integrity"}),
        ("integrity", "integrity\tnot read through within 120 s", set()),
        ("certificate", f"certificate\t{NOW + 14 * DAY}", set()),
        ("certificate", f"certificate\t{NOW + 14 * DAY - 1}", {"certificate"}),
        ("certificate", f"certificate\t{NOW - 1}", {"certificate"}),
        ("certificate", "certificate\t", {"certificate"}),
        ("certificate", "certificate", {"certificate"}),
        ("clock", f"clock\t{NOW + 6}", set()),
        ("clock", f"clock\t{NOW + 7}", {"clock"}),
        ("clock", f"clock\t{NOW - 7}", {"clock"}),
        ("clock", "", set()),
    ],
)
def test_parse_check_fails_only_beyond_its_limit(name: str, rows: str, bad: set[str]) -> None:
    assert failed(report(text({name: rows}))) == bad


@pytest.mark.parametrize(
    ("fact", "detail"),
    [
        ("", "no backup exists"),
        ("soon shop-1", "no backup exists"),
        (f"{NOW - 26 * 3600} shop-1", ""),
        (f"{NOW - 27 * 3600} shop-1", "shop-1: 27.0 h old, allowed 26 h"),
    ],
)
def test_parse_backup_fails_by_age_if_backups_are_scheduled(fact: str, detail: str) -> None:
    answer = text(facts=f"last_backup={fact}")

    assert [check.detail for check in report(answer).failed] == ([detail] if detail else [])
    assert failed(report(answer, replace(APP, auto_backup=False))) == set()


def test_parse_applies_the_thresholds_of_the_host() -> None:
    strict = Thresholds(60, 40, 31, 0.1, 60)

    found = report(text({"clock": f"clock\t{NOW + 2}"}), replace(APP, thresholds=strict))

    assert failed(found) == {"disk /", "inodes /", "memory", "certificate", "clock", "backup"}


def test_parse_without_another_clock_has_no_clock_check() -> None:
    assert "clock" not in {check.name for check in health.parse(APP, "web1", text()).checks}


def test_parse_includes_lock_and_maintenance_page() -> None:
    held = f"token=t\nowner=ann\nreason=deploy v2\nexpires_at={NOW + 9}"

    state = report(text(facts="maintenance=setting", lock=held)).state

    assert state.lock is not None
    assert (state.lock.reason, state.fact("maintenance"), state.now) == ("deploy v2", "setting", NOW)


@pytest.mark.parametrize("cut", [0, 1, 100, len(text()) // 2, len(text()) - 3])
def test_parse_truncated_text_raises(cut: int) -> None:
    with pytest.raises(ValueError, match="web1"):
        report(text()[:cut])


HOSTILE = ("\x1b[2J\x07", "x" * 100_000, "a\tb\tc\td\te\tf", "@@end", "%s%n", "繁體\u202e", "-1", "1e9", "0x10", "NaN")


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("value", HOSTILE)
def test_parse_hostile_value_affects_only_its_own_check(name: str, value: str) -> None:
    kind, *first = HEALTHY[name].split("\t")
    kept = first[:1] if kind in {"http", "disk", "inodes"} else []
    hostile = "\t".join([kind, *kept, *[value] * (len(first) - len(kept))])

    try:
        found = report(text({name: hostile}))
    except ValueError:
        assert name in {"memory", "clock"}
        return

    assert failed(found) <= {name, "disk"}
    assert {check.name for check in found.checks} >= HEALTHY.keys() - {name}


def test_parse_database_server_that_refuses_fails() -> None:
    served = replace(APP, database="", database_server=DatabaseServer("postgresql://ark@db.test/ark"))

    found = report(text({"database": "database\tpsql: error: connection refused ", "integrity": ""}), served)

    assert (failed(found), check(found, "database").detail) == ({"database"}, "psql: error: connection refused")


CHECKED = worker(gate=replace(worker().gate, ready=("true",)))


@pytest.mark.parametrize(
    ("line", "ok", "detail"),
    [
        ("ready\tworker\t120\t", True, "its command succeeds"),
        ("ready\tworker\t120\tqueue is full", False, "queue is full"),
        ("", False, "no answer"),
        ("ready\tworker\t120", False, "no answer"),
    ],
)
def test_parse_ready_check_of_a_worker(line: str, ok: bool, detail: str) -> None:
    app = replace(APP, services=(backend(), frontend(), CHECKED))
    found = check(report(text({"ready": line}), app), "worker ready")

    assert (found.kind, found.ok, found.detail, found.answered) == (Kind.READY, ok, detail, ok)


def test_parse_worker_without_any_check_has_only_that_of_its_container() -> None:
    app = replace(APP, services=(backend(), frontend(), worker()))

    assert [name for name in (check.name for check in report(text(), app).checks) if "worker" in name] == [
        "worker container"
    ]


def test_parse_application_of_workers_alone_has_no_requests() -> None:
    app = replace(APP, services=(CHECKED,), full_chain=None)
    answer = text({"ready": "ready\tworker\t1\t"})

    assert {check.kind for check in report(answer, app).checks}.isdisjoint({Kind.HTTP})


@pytest.mark.parametrize(
    ("fact", "ok", "detail"),
    [
        ("inactive//", True, "has not run yet"),
        (f"inactive/success 0 {NOW - 90} {NOW - 60} r1/", True, "success at 2026-11-23 "),
        (f"inactive/exit-code 7 {NOW - 90} {NOW - 60} r1/", False, "exit code 7 at 2026-11-23 "),
        (f"activating/exit-code 7 {NOW - 90} {NOW - 60} r1/{NOW} r1", False, "exit code 7 at 2026-11-23 "),
        (f"inactive//{NOW} r1", False, "interrupted"),
    ],
)
def test_parse_job_that_failed_is_a_failed_check(fact: str, ok: bool, detail: str) -> None:
    job = Job("clean", "backend", ("true",), "@daily", ("*-*-* 00:00:00",))

    found = check(report(text(facts=f"job.clean={fact}\n"), replace(APP, jobs=(job,))), "clean job")

    assert (found.kind, found.ok) == (Kind.JOB, ok)
    assert found.detail.startswith(detail)
