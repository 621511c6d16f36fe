"""The health check loops under `sh`, with stubs of `podman` and `curl` and a fake clock."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine import health_gate, progress
from rolling_upgrade.engine.model import Color, Gate, Probe, Tls
from rolling_upgrade.engine.shell import script
from tests.support.sample import application, backend, worker
from tests.support.shell import Programs, sh

APP = application()
GATE = Gate("/api/health", passes=3, interval_seconds=1, start_period_seconds=5, retries=3, deadline_seconds=20)
RUNS = "true 0 0"


@pytest.fixture
def host(programs: Programs) -> Programs:
    """A host with a fake clock that only `sleep` advances."""
    programs.clock()
    return programs


def gate(
    host: Programs, codes: list[str], states: list[str] | None = None, rules: Gate = GATE
) -> subprocess.CompletedProcess[str]:
    host.add("curl", host.sequence("curl", codes))
    state = host.sequence("podman", states or [RUNS])
    host.add("podman", f'if [ "$1" = logs ]; then echo "the last log line"; exit 0; fi\n{state}')
    return sh(script(health_gate.gate(APP, backend(gate=rules), Color.GREEN), "echo passed"), path=host.path)


def reported(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the texts of the progress."""
    return [found.text for line in done.stdout.splitlines() if (found := progress.parse(line))]


def output(done: subprocess.CompletedProcess[str]) -> list[str]:
    return progress.without_progress(done.stdout).splitlines()


def asked(host: Programs) -> int:
    return len(host.calls("curl"))


def test_gate_passes_after_the_required_answers(host: Programs) -> None:
    done = gate(host, ["200"])

    assert (done.returncode, output(done), asked(host)) == (0, ["passed"], 3)


def test_gate_reports_each_pass(host: Programs) -> None:
    assert reported(gate(host, ["200"])) == ["passes 1 of 3", "passes 2 of 3", "passes 3 of 3"]


def test_gate_reports_the_last_answer_until_the_first_pass(host: Programs) -> None:
    assert reported(gate(host, ["000", "503", "503", "200", "500", "200"])) == [
        "waiting: no answer from /api/health, 0 s of 20 s",
        "waiting: HTTP 503 from /api/health, 1 s of 20 s",
        "waiting: HTTP 503 from /api/health, 2 s of 20 s",
        "passes 1 of 3",
        "waiting: HTTP 500 from /api/health, 4 s of 20 s",
        "passes 1 of 3",
        "passes 2 of 3",
        "passes 3 of 3",
    ]


def test_gate_with_a_short_interval_reports_once_per_second(host: Programs) -> None:
    done = gate(host, ["503"] * 8 + ["200"], rules=replace(GATE, interval_seconds=0.25))

    assert [text for text in reported(done) if text.startswith("waiting")] == [
        "waiting: HTTP 503 from /api/health, 0 s of 20 s",
        "waiting: HTTP 503 from /api/health, 1 s of 20 s",
    ]


def test_gate_probes_the_candidate_port(host: Programs) -> None:
    gate(host, ["200"])

    assert host.calls("curl")[0][-1] == "http://127.0.0.1:28080/api/health"
    assert host.calls("podman")[0][-1] == "shop-backend-green"


def test_gate_tolerates_a_slow_start(host: Programs) -> None:
    assert gate(host, ["000"] * 5 + ["503", "204"]).returncode == 0


def test_gate_fails_after_misses_past_the_start_period(host: Programs) -> None:
    done = gate(host, ["502"])

    assert done.returncode == 1
    assert "backend: green failed its health gate after 7 s (last: HTTP 502 from /api/health)" in done.stdout
    assert asked(host) == 9


def test_gate_failure_shows_the_last_log_lines(host: Programs) -> None:
    assert "last log lines of shop-backend-green:\nthe last log line" in gate(host, ["500"]).stdout


def test_gate_flapping_candidate_fails_at_the_deadline(host: Programs) -> None:
    done = gate(host, ["200", "200", "503"] * 10)

    assert done.returncode == 1
    assert "after 20 s (deadline; last: HTTP 503" in done.stdout


def test_gate_miss_resets_the_passes(host: Programs) -> None:
    gate(host, ["200", "200", "500", "200", "200", "200"])

    assert asked(host) == 6


@pytest.mark.parametrize("state", ["false 0 1", "true 1 0", "false 3 137", ""])
def test_gate_exit_or_restart_fails_at_once(state: str, host: Programs) -> None:
    done = gate(host, ["200"], [RUNS, state])

    assert done.returncode == 1
    assert "the container exited or restarted" in done.stdout
    assert asked(host) == 1


def test_gate_missing_container_fails_at_once(host: Programs) -> None:
    host.add("curl", "printf 200")
    host.add("podman", "exit 125")

    done = sh(script(health_gate.gate(APP, backend(gate=GATE), Color.GREEN)), path=host.path)

    assert (done.returncode, "the container is gone" in done.stdout) == (1, True)


@pytest.mark.parametrize("code", ["301", "404", "000", "", "2", "20"])
def test_gate_answer_other_than_2xx_is_a_miss(code: str, host: Programs) -> None:
    assert gate(host, [code]).returncode == 1


def test_gate_counts_a_failing_curl_as_a_miss(host: Programs) -> None:
    host.add("podman", f"echo '{RUNS}'")
    host.add("curl", f"{host.sequence('curl', ['000', '000', '200'])}; exit 7")

    assert sh(script(health_gate.gate(APP, backend(gate=GATE), Color.GREEN)), path=host.path).returncode == 0


def watch(
    host: Programs,
    conditions: list[str],
    *,
    seconds: float = 0,
    passes: int = 3,
    deadline: float = 10,
    process_files: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    text = health_gate.watch(conditions, seconds=seconds, passes=passes, deadline_seconds=deadline)
    return sh(
        script(health_gate.recall(process_files), text, "if watch; then echo good; else echo bad; fi; date +%s"),
        path=host.path,
    )


def spent(done: subprocess.CompletedProcess[str]) -> int:
    return int(done.stdout.splitlines()[-1]) - 1_000_000


def answers(host: Programs, codes: list[str]) -> str:
    """Return a condition that holds while the next code of the sequence is 200."""
    host.add("ask", host.sequence("ask", codes))
    return 'code=$(ask)\nif [ "$code" = 200 ]; then true; else why="got $code"; false; fi'


def test_watch_succeeds_after_enough_good_rounds(host: Programs) -> None:
    done = watch(host, [answers(host, ["200"])])

    assert done.stdout.splitlines()[0] == "good"


def test_watch_lasts_at_least_its_seconds(host: Programs) -> None:
    done = watch(host, [answers(host, ["200"])], seconds=6)

    assert (output(done)[0], spent(done)) == ("good", 6)


def test_watch_lasts_as_long_although_the_hosts_clock_jumps(host: Programs) -> None:
    host.add("date", host.sequence("date", ["1000000", "1259200", "740800", "1000006"]))

    done = watch(host, [answers(host, ["200"])], seconds=6)

    assert (output(done)[0], len(host.calls("ask")) > 6) == ("good", True)


def test_watch_reports_each_second_that_is_left(host: Programs) -> None:
    done = watch(host, [answers(host, ["200"])], seconds=3)

    assert reported(done) == ["3 s left", "2 s left", "1 s left"]


def test_watch_without_a_bake_reports_no_progress(host: Programs) -> None:
    assert reported(watch(host, [answers(host, ["500", "200"])])) == []


def test_watch_tolerates_a_single_bad_round(host: Programs) -> None:
    done = watch(host, [answers(host, ["200", "500", "200", "500", "500", "200"])])

    assert done.stdout.startswith("good")


def test_watch_fails_after_three_consecutive_bad_rounds(host: Programs) -> None:
    done = watch(host, [answers(host, ["200", "200", "502"])], seconds=30, deadline=45)

    assert output(done)[:2] == ["got 502 (1 s)", "bad"]


def test_watch_flapping_condition_fails_at_the_deadline(host: Programs) -> None:
    done = watch(host, [answers(host, ["200", "500"] * 60)], deadline=10)

    assert (done.stdout.splitlines()[1], spent(done)) == ("bad", 10)


def test_watch_fatal_condition_fails_at_once(host: Programs) -> None:
    done = watch(host, ["true", "why=restarted fatal=1; false"])

    assert (done.stdout.splitlines()[:2], spent(done)) == (["restarted (0 s)", "bad"], 0)


def test_watch_all_conditions_must_hold(host: Programs) -> None:
    assert "bad" in watch(host, ["true", "false", "true"]).stdout


def test_watch_without_conditions_is_good(host: Programs) -> None:
    assert watch(host, []).stdout.startswith("good")


def test_watch_resets_its_state_for_each_call(host: Programs) -> None:
    text = health_gate.watch([answers(host, ["500"] * 3 + ["200"])], seconds=0, passes=1, deadline_seconds=5)

    done = sh(script(text, "watch || echo failed; watch && echo passed"), path=host.path)

    assert done.stdout.splitlines()[1:] == ["failed", "passed"]


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("200 127.0.0.1:28080", ""),
        ("204 127.0.0.1:28080|/elsewhere", ""),
        ("200 127.0.0.1:18080|", "HTTP 200 from 127.0.0.1:18080"),
        ("502 127.0.0.1:28080|", "HTTP 502 from 127.0.0.1:28080"),
        ("301 127.0.0.1:28080|https://shop.test/", "HTTP 301 from 127.0.0.1:28080, a redirect to https://shop.test/"),
        ("200 |", "HTTP 200"),
        ("200 127.0.0.1:18080, 127.0.0.1:28080|", "HTTP 200 from 127.0.0.1:18080, 127.0.0.1:28080"),
        ("000 |Connection refused", "no answer (Connection refused)"),
        ("", "no answer"),
    ],
)
def test_through_nginx_accepts_only_the_expected_color(answer: str, shown: str, host: Programs) -> None:
    host.add("curl", f"printf '%s' '{answer}'")

    done = watch(host, [health_gate.through_nginx(APP, backend(), Color.GREEN)], passes=1, deadline=1)

    assert ("good" in done.stdout) is (not shown)
    assert not shown or f"expected 2xx from 127.0.0.1:28080, got {shown} (" in done.stdout


@pytest.mark.parametrize("state", ["true 1 1", "false 0 0", ""])
@pytest.mark.parametrize("other", ["true 0 1", "true 2 1"])
def test_not_restarted_fails_fatally_after_a_restart(state: str, other: str, host: Programs) -> None:
    host.add("podman", f"echo '{other}\n{state}'")

    done = watch(host, [health_gate.not_restarted(["shop-backend-blue", "shop-frontend-blue"])], passes=2)

    assert ("exited or restarted" in done.stdout, spent(done)) == (True, 0)


def test_not_restarted_asks_podman_once_while_the_processes_live(host: Programs) -> None:
    host.add("podman", f"echo 'true 0 {os.getpid()}\ntrue 0 1'")

    done = watch(host, [health_gate.not_restarted(["shop-backend-blue", "shop-frontend-blue"])], passes=5)

    assert ("good" in done.stdout, len(host.calls("podman"))) == (True, 1)


def test_not_restarted_fails_after_the_end_of_a_process(host: Programs) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    host.add("podman", host.sequence("podman", [f"true 0 {gone.pid}", "true 1 1"]))

    done = watch(host, [health_gate.not_restarted(["shop-backend-blue"])], passes=5)

    assert ("running, restarts, process = true 1 1" in done.stdout, len(host.calls("podman"))) == (True, 2)


@pytest.fixture
def candidate(programs: Programs, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The first process of a candidate that has passed its gate, whose name looks like two fields of its state."""
    named = tmp_path / "a) S 1"
    named.symlink_to("/bin/sleep")
    with subprocess.Popen([named, "60"]) as process:
        programs.clock()
        programs.add("curl", "printf 200")
        programs.add("podman", f"echo '{RUNS} {process.pid}'")
        done = sh(
            script(health_gate.gate(APP, backend(gate=GATE), Color.GREEN, str(tmp_path / "process"))),
            path=programs.path,
        )
        assert (done.returncode, len(programs.calls("podman"))) == (0, 1)
        yield process
        process.kill()


NOT_RESTARTED = health_gate.not_restarted(["shop-backend-green"])


def test_not_restarted_recalls_the_process_that_passed_the_gate(
    programs: Programs, candidate: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    done = watch(programs, [NOT_RESTARTED], passes=3, process_files=[str(tmp_path / "process")])

    assert ("good" in done.stdout, len(programs.calls("podman"))) == (True, 1)


def test_not_restarted_asks_podman_if_the_process_has_ended_since_the_gate(
    programs: Programs, candidate: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    candidate.kill()
    candidate.wait()
    programs.add("podman", "echo 'true 1 1'")

    done = watch(programs, [NOT_RESTARTED], process_files=[str(tmp_path / "process")])

    found = "running, restarts, process = true 1 1" in done.stdout
    assert (found, len(programs.calls("podman"))) == (True, 2)


@pytest.mark.parametrize(
    "change", [lambda process: f"{process.partition(':')[0]}:7\n", lambda _: "", lambda _: "x:y z\n"]
)
def test_not_restarted_asks_podman_if_the_id_belongs_to_another_process(
    change: Callable[[str], str], programs: Programs, candidate: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "process"
    path.write_text(change(path.read_text()))
    programs.add("podman", f"echo 'true 1 {candidate.pid}'")

    done = watch(programs, [NOT_RESTARTED], process_files=[str(path)])

    assert "exited or restarted" in done.stdout


def test_not_restarted_asks_podman_for_all_if_one_process_is_unknown(
    programs: Programs, candidate: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    files = [str(tmp_path / "process"), str(tmp_path / "missing")]
    programs.add("podman", f"echo 'true 0 {candidate.pid}\ntrue 0 1'")
    condition = health_gate.not_restarted(["shop-backend-green", "shop-frontend-green"])

    done = watch(programs, [condition], process_files=files)

    assert ("good" in done.stdout, len(programs.calls("podman"))) == (True, 2)


def test_gate_passes_without_a_place_for_its_process(host: Programs) -> None:
    host.add("curl", "printf 200")
    host.add("podman", f"echo '{RUNS} {os.getpid()}'")

    done = sh(script(health_gate.gate(APP, backend(gate=GATE), Color.GREEN, "/missing/process")), path=host.path)

    assert (done.returncode, done.stderr) == (0, "")


def test_gate_asks_podman_once_while_the_process_lives(host: Programs) -> None:
    done = gate(host, ["503", "200"], [f"{RUNS} {os.getpid()}"])

    assert (done.returncode, len(host.calls("podman"))) == (0, 1)


@pytest.mark.parametrize(("code", "good"), [("200", True), ("404", False), ("503", False), ("000", False)])
def test_answers_accepts_2xx_of_any_color(code: str, good: bool, host: Programs) -> None:
    host.add("curl", f"printf {code}")

    done = watch(host, [health_gate.answers(APP, Probe("frontend", "/api/health"))], passes=1)

    assert ("good" in done.stdout) is good
    assert host.calls("curl")[0][-1] == "http://127.0.0.1:7001/api/health"


@pytest.mark.parametrize(
    ("code", "good"), [("200", True), ("301", True), ("403", True), ("502", False), ("000", False)]
)
def test_public_accepts_any_status_but_a_server_error(code: str, good: bool, host: Programs) -> None:
    host.add("curl", f"printf {code}")

    assert ("good" in watch(host, [health_gate.public(APP)], passes=1).stdout) is good


def test_public_requests_a_tls_site_by_name_on_loopback(host: Programs) -> None:
    host.add("curl", "printf 200")

    watch(host, [health_gate.public(application(tls=Tls("/c", "/k")))], passes=1)

    words = host.calls("curl")[0]
    assert (words[-1], "shop.test:443:127.0.0.1" in words, "-k" in words) == ("https://shop.test:443/", True, True)


READY = replace(worker().gate, ready=("check", "it's up"), retries=3)


def gate_worker(
    host: Programs, statuses: Sequence[str] = ("0",), *, rules: Gate = READY, healthcheck: str = "", state: str = RUNS
) -> subprocess.CompletedProcess[str]:
    """Run the gate of a worker. Its checks end with these statuses, the last one repeats."""
    check = host.sequence("check", list(statuses))
    host.add("timeout", 'shift 3; exec "$@"')
    host.add(
        "podman",
        f"""\
case "$*" in
  logs*) echo "the last log line" ;;
  *Healthcheck*) echo {healthcheck!r} ;;
  "container inspect"*) echo "{state} $PPID" ;;
  *) status=$({check}); echo "answer $status"; exit "$status" ;;
esac""",
    )
    return sh(script(health_gate.gate(APP, worker(gate=rules), Color.GREEN), "echo passed"), path=host.path)


def checks(host: Programs) -> list[list[str]]:
    return [call[1:] for call in host.calls("podman") if call[1] in {"exec", "healthcheck"}]


def test_gate_of_a_worker_runs_its_command_inside_the_container(host: Programs) -> None:
    done = gate_worker(host)

    assert (done.returncode, output(done)) == (0, ["passed"])
    assert checks(host) == [["exec", "shop-worker-green", "check", "it's up"]] * 2
    assert reported(done) == ["passes 1 of 2", "passes 2 of 2"]


def test_gate_of_a_worker_fails_after_misses_past_the_start_period(host: Programs) -> None:
    done = gate_worker(host, ["1"])

    assert done.returncode == 1
    assert "worker: green failed its health gate after 7 s (last: ready: answer 1)" in done.stdout
    assert "the last log line" in done.stdout


def test_gate_of_a_worker_reports_a_command_without_an_end(host: Programs) -> None:
    assert "waiting: ready: no answer within 10 s, 0 s of 20 s" in reported(gate_worker(host, ["124", "0"]))


def test_gate_of_a_worker_that_exits_fails_at_once(host: Programs) -> None:
    done = gate_worker(host, state="false 0 3")

    assert (done.returncode, checks(host)) == (1, [])
    assert "the container exited or restarted" in done.stdout


def test_gate_of_a_worker_without_a_command_uses_the_healthcheck_of_its_image(host: Programs) -> None:
    done = gate_worker(host, ["1", "0"], rules=replace(READY, ready=()), healthcheck="CMD 30")

    assert done.returncode == 0
    assert checks(host) == [["healthcheck", "run", "shop-worker-green"]] * 3
    assert [call[3] for call in host.calls("timeout")] == ["30"] * 3
    assert reported(done)[0] == "waiting: HEALTHCHECK: answer 1, 0 s of 20 s"


@pytest.mark.parametrize("healthcheck", ["", "NONE 30"])
def test_gate_of_a_worker_without_any_check_waits_while_it_runs(host: Programs, healthcheck: str) -> None:
    done = gate_worker(host, rules=replace(READY, ready=(), retries=1), healthcheck=healthcheck)

    assert (done.returncode, checks(host)) == (0, [])
    assert reported(done) == [*(f"waiting: it runs, {second} s of 4 s" for second in range(4)), "passes 1 of 1"]


def test_gate_of_a_service_with_a_port_asks_its_command_too(host: Programs) -> None:
    host.add("curl", host.sequence("curl", ["503", "200"]))
    host.add("timeout", 'shift 3; exec "$@"')
    host.add("podman", f'case "$*" in exec*) exit 0 ;; *) echo "{RUNS} $PPID" ;; esac')
    rules = replace(GATE, passes=1, ready=("check",))

    done = sh(script(health_gate.gate(APP, backend(gate=rules), Color.GREEN)), path=host.path)

    assert (done.returncode, asked(host), len(checks(host))) == (0, 2, 1)


@pytest.mark.parametrize(("status", "why"), [("0", ""), ("1", "worker: green is not ready: not yet (0 s)")])
def test_healthy_worker_passes_its_command(host: Programs, status: str, why: str) -> None:
    host.add("timeout", 'shift 3; exec "$@"')
    host.add("podman", f"echo 'not yet'; exit {status}")
    condition = health_gate.healthy(APP, worker(gate=READY), Color.GREEN)
    watch = health_gate.watch([condition], seconds=0, passes=1, deadline_seconds=5, tolerance=1)

    done = sh(script(watch, "watch"), path=host.path)

    assert (done.returncode, done.stdout.strip()) == (int(status), why)


@pytest.mark.parametrize(("running", "status"), [("true", 0), ("false", 1)])
def test_healthy_worker_without_any_check_has_to_run(host: Programs, running: str, status: int) -> None:
    host.add("podman", f'case "$*" in *Running*) echo {running} ;; esac')
    condition = health_gate.healthy(APP, worker(), Color.GREEN)
    watch = health_gate.watch([condition], seconds=0, passes=1, deadline_seconds=5, tolerance=1)

    assert sh(script(watch, "watch"), path=host.path).returncode == status
