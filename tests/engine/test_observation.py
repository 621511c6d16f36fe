"""Observation of a host: the script under a real `sh`, and the parser with valid and malformed output."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolling_upgrade.engine import history, lock_file, observation
from rolling_upgrade.engine.model import Color, Lock, Tls
from rolling_upgrade.engine.shell import script
from tests.engine.test_history import RELEASE
from tests.support.history_line import history_line
from tests.support.sample import application, image
from tests.support.shell import Programs, moved, sh

APP = application()
EMPTY = "".join(
    f"@@{name}\n" for name in ("facts", "active", "containers", "listening", "releases", "lock", "probes", "end")
)


def text(**sections: str) -> str:
    """Return the output of an observation with these sections; all others are empty."""
    found = EMPTY
    for name, rows in sections.items():
        found = found.replace(f"@@{name}\n", f"@@{name}\n{rows}\n")
    return found


def row(**changes: str) -> str:
    values = {
        "name": "shop-backend-green",
        "status": "running",
        "running": "true",
        "started": "2026-11-23 03:00:00 +0000 UTC",
        "restarts": "2",
        "exit": "0",
        "image_id": "deadbeef",
        "app": "shop",
        "service": "backend",
        "color": "green",
        "release": "r1",
        "image": image("backend").reference,
        "digest": image("backend").digest,
        "spec": "0123",
        "port": "8080",
        "accessory": "",
    } | changes
    return "\t".join(values.values())


def test_parse_empty_host_has_nothing() -> None:
    found = observation.parse(APP.name, "web1", EMPTY)

    assert (found.host, found.now, found.containers, found.releases, found.lock) == ("web1", 0, (), (), None)
    assert found.active_color("backend") is Color.BLUE


@pytest.mark.parametrize("cut", ["", "Welcome\n", EMPTY.replace("@@end\n", ""), EMPTY[: len(EMPTY) // 2]])
def test_parse_truncated_text_is_refused(cut: str) -> None:
    with pytest.raises(ValueError, match="web1 is truncated"):
        observation.parse(APP.name, "web1", cut)


def test_parse_skips_output_of_a_login_shell() -> None:
    assert observation.parse(APP.name, "web1", "Welcome to web1!\n" + text(facts="now=12")).now == 12


def test_parse_facts_keep_equal_signs_and_lose_spaces_at_the_end() -> None:
    found = observation.parse(APP.name, "web1", text(facts="now=12\nos=debian 12 \nlast_backup=a=b"))

    assert (found.fact("os"), found.fact("last_backup"), found.fact("unknown")) == ("debian 12", "a=b", "")


def test_parse_flags_list_only_green_services() -> None:
    found = observation.parse(APP.name, "web1", text(active="backend.green\nREADME\nfrontend.green.new"))

    assert found.active == (("backend", Color.GREEN),)


def test_parse_container_reads_all_labels() -> None:
    container = observation.parse(APP.name, "web1", text(containers=row())).containers[0]

    assert (container.service, container.color, container.running) == ("backend", Color.GREEN, True)
    assert (container.restarts, container.exit_code, container.release) == (2, 0, "r1")
    assert (container.image, container.spec) == (image("backend"), "0123")


@pytest.mark.parametrize(
    "changes",
    [{"app": "other"}, {"app": ""}, {"app": "<no value>"}],
)
def test_parse_container_of_another_application_is_foreign(changes: dict[str, str]) -> None:
    found = observation.parse(APP.name, "web1", text(containers=row(**changes)))

    assert (found.containers, found.foreign) == ((), ("shop-backend-green",))


def test_parse_container_row_of_the_wrong_length_is_foreign() -> None:
    assert observation.parse(APP.name, "web1", text(containers="shop-backend-blue\trunning")).foreign == (
        "shop-backend-blue",
    )


@pytest.mark.parametrize(
    ("rows", "ports"),
    [
        ("127.0.0.1:8080\n[::]:80\n0.0.0.0:22\n*:443", (22, 80, 443, 8080)),
        ("127.0.0.1:8080\n[::1]:8080", (8080,)),
        ("garbage\n:\n127.0.0.1:http", ()),
    ],
)
def test_parse_listening_ports(rows: str, ports: tuple[int, ...]) -> None:
    assert observation.parse(APP.name, "web1", text(listening=rows)).listening == ports


def test_parse_history_and_lock_are_read() -> None:
    found = observation.parse(
        APP.name,
        "web1",
        text(releases=history_line(RELEASE) + "\nhalf a", lock="token=t\nowner=bob\nexpires_at=99"),
    )

    assert found.last_good == RELEASE
    assert found.lock == Lock("t", "bob", "?", 0, "", 0, 99)


@pytest.mark.parametrize(
    ("row", "ok", "detail"),
    [
        ("backend\thttp://x/\t200\t0.0123\t127.0.0.1:18080", True, "HTTP 200 from 127.0.0.1:18080"),
        ("backend\thttp://x/\t502\t0.1\t", False, "HTTP 502"),
        ("backend\thttp://x/\t301\t0.1\t1\thttps://x/?k=s", False, "HTTP 301 from 1, a redirect to https://x/"),
        ("backend\thttp://x/\t000\t5.0\t", False, "no answer"),
        ("public\thttp://x/\t404\t0.1\t", True, "HTTP 404"),
        ("public\thttp://x/\t503\t0.1\t", False, "HTTP 503"),
    ],
)
def test_parse_probe_rows(row: str, ok: bool, detail: str) -> None:
    result = observation.parse(APP.name, "web1", text(probes=row)).probes[0]

    assert (result.ok, result.detail) == (ok, detail)


def test_probes_name_every_service_the_chain_and_the_public_site() -> None:
    assert [(name, asked.url) for name, asked in observation.probes(APP)] == [
        ("backend", "http://127.0.0.1:8080/api/health"),
        ("frontend", "http://127.0.0.1:7001/health"),
        ("full chain", "http://127.0.0.1:7001/api/health"),
        ("public", "http://shop.test:80/"),
    ]


def test_probes_request_a_site_with_certificate_over_tls() -> None:
    secured = application(tls=Tls("/c", "/k"), https_port=8443)

    assert observation.probes(secured)[-1][1].url == "https://shop.test:8443/"


def test_observation_of_a_bare_host_is_complete(programs: Programs) -> None:
    programs.add("podman", "exit 127")
    programs.add("curl", "exit 7")

    done = sh(script(observation.shell_text(APP)), path=programs.path)

    found = observation.parse(APP.name, "web1", done.stdout)
    assert done.returncode == 0
    assert found.now > 0
    assert (found.fact("home"), found.fact("helper"), found.live_site_hash) == ("no", "no", "")
    assert (found.containers, found.releases, found.lock) == ((), (), None)


def test_observation_of_a_prepared_host_reports_its_state(programs: Programs, tmp_path: Path) -> None:
    home = tmp_path / "shop"
    (home / "live").mkdir(parents=True)
    (home / "live" / "backend.green").touch()
    holder = Lock("t", "bob", "ci", 4, "deploy", 0, 0)
    sh(script(lock_file.acquire(str(home), holder, lease_seconds=60), history.append(str(home), RELEASE)))
    listed = tmp_path / "containers"
    listed.write_text(row() + "\n")
    programs.add(
        "podman",
        f'case "$1" in ps) echo c0ffee ;; container) cat {listed} ;; esac',
    )
    programs.add(
        "curl",
        "case \"$*\" in *_rolling/site) printf 0123456789abcdef ;; *) printf '200\\t0.004\\t127.0.0.1:28080' ;; esac",
    )
    programs.add("ss", "echo 'LISTEN 0 511 127.0.0.1:8080 0.0.0.0:*'")

    done = sh(script(moved(observation.shell_text(APP), APP, home)), path=programs.path)

    found = observation.parse(APP.name, "web1", done.stdout)
    assert (found.fact("home"), found.live_site_hash) == ("yes", "0123456789abcdef")
    assert (found.active, found.listening) == ((("backend", Color.GREEN),), (8080,))
    assert [container.name for container in found.containers] == ["shop-backend-green"]
    assert (found.releases, found.lock and found.lock.token) == ((RELEASE,), "t")
    assert [probe.ok for probe in found.probes] == [True] * 4


def test_observation_with_a_failing_probe_is_complete(programs: Programs) -> None:
    programs.add("curl", "printf '000\\t5.0\\t\\n'; exit 28")

    done = sh(script(observation.shell_text(APP)), path=programs.path)

    assert [probe.detail for probe in observation.parse(APP.name, "web1", done.stdout).probes] == ["no answer"] * 4


@pytest.mark.parametrize(("body", "fact"), [('exec /usr/bin/env -i /usr/bin/python3 "$@"', "yes"), ("exit 1", "no")])
def test_observation_reports_whether_python_has_sqlite(body: str, fact: str, programs: Programs) -> None:
    programs.add("python3", body)

    done = sh(script(observation.shell_text(APP)), path=programs.path)

    assert observation.parse(APP.name, "web1", done.stdout).fact("has_sqlite3") == fact
    assert [call[:3] for call in programs.calls("python3")] == [["python3", "-I", "-"]]


def test_parse_container_of_an_accessory() -> None:
    rows = row(name="shop-accessory-db", service="", color="", image="postgres:17", digest="", accessory="db")

    found = observation.parse(APP.name, "web1", text(containers=rows, facts="accessories= db"))

    assert (found.containers, found.foreign, found.supposed_accessories) == ((), (), ("db",))
    assert found.accessory("db") is not None
    assert found.accessories[0].image.reference == "postgres:17"


def test_parse_container_kept_by_an_upgrade_is_no_accessory_and_not_foreign() -> None:
    rows = row(name="shop-accessory-db-previous", service="", color="", image="postgres:17", accessory="db")

    found = observation.parse(APP.name, "web1", text(containers=rows))

    assert (found.accessories, found.foreign) == ((), ())


def test_parse_container_of_an_observation_that_knows_no_accessories() -> None:
    found = observation.parse(APP.name, "web1", text(containers=row().rpartition("\t")[0]))

    assert [container.name for container in found.containers] == ["shop-backend-green"]
