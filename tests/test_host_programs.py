"""The programs that setup installs on hosts, run as copies with stubs for Nginx and Podman."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.engine.model import Outcome, Release
from tests.support.history_line import history_line
from tests.support.shell import Programs


class RequestLog:
    """The program that rotates the request log, with an Nginx stub that opens a new log."""

    def __init__(self, directory: Path, programs: Programs) -> None:
        here = directory / "lib" / "shop"
        here.mkdir(parents=True)
        self.log = directory / "log" / "shop-requests" / "requests.log"
        self.log.parent.mkdir(parents=True)
        text = rendering.host_program("requests").replace("/var/log/", f"{directory}/log/")
        text = text.replace("longest=16777216", "longest=10")
        self.program = here / "requests"
        self.program.write_text(text.replace("PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"PATH={programs.path}"), "utf-8")
        programs.add("nginx", f'case "$*" in "-s reopen") : >>{self.log} ;; esac')

    def run(self) -> int:
        return subprocess.run(["sh", self.program], timeout=60, check=False).returncode

    def left(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.log.parent.iterdir()}


def test_request_log_short_or_absent_is_not_rotated(tmp_path: Path, programs: Programs) -> None:
    log = RequestLog(tmp_path, programs)
    assert (log.run(), log.left()) == (0, {})
    log.log.write_text("short")

    assert (log.run(), log.left(), programs.calls("nginx")) == (0, {"requests.log": "short"}, [])


def test_request_log_that_is_long_is_rotated_and_four_are_kept(tmp_path: Path, programs: Programs) -> None:
    log = RequestLog(tmp_path, programs)
    for number in range(6):
        log.log.write_text(f"{number} is long enough")
        assert log.run() == 0

    assert {name: text[:1] for name, text in log.left().items()} == {
        "requests.log": "",
        **{f"requests.log.{number}": str(6 - number) for number in range(1, 5)},
    }


class Boot:
    """The boot program, with a Podman stub that has containers of both colors."""

    def __init__(self, directory: Path, programs: Programs) -> None:
        self.flags = directory / "var" / "shop" / "live"
        self.flags.mkdir(parents=True)
        (self.flags.parent / "lock").mkdir()
        here = directory / "lib" / "shop"
        here.mkdir(parents=True)
        self.program = here / "boot"
        self.program.write_text(rendering.host_program("boot").replace("/var/lib/", f"{directory}/var/"), "utf-8")
        self.programs = programs
        rows = [f"shop-{service}-{color} {service} {color} r1" for service in ("a", "b") for color in ("blue", "green")]
        (directory / "rows").write_text("\n".join(rows) + "\n")
        self.podman()
        programs.add("sleep")

    def podman(self, start: str = ":") -> None:
        self.programs.add(
            "podman",
            'case "$1" in ps) case "$*" in *one-off*) echo 0ff ;; *) echo c0ffee ;; esac ;; '
            f'container) cat "$here/rows" ;; start) {start} ;; esac',
        )

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", self.program],
            capture_output=True,
            text=True,
            env={"PATH": self.programs.path},
            timeout=60,
            check=False,
        )

    def calls(self, verb: str) -> list[str]:
        return [call[-1] for call in self.programs.calls("podman") if call[1] == verb]


@pytest.fixture
def boot(tmp_path: Path, programs: Programs) -> Boot:
    return Boot(tmp_path, programs)


def test_boot_starts_exactly_the_colors_that_the_flags_name(boot: Boot) -> None:
    (boot.flags / "b.green").touch()

    done = boot.run()

    assert done.returncode == 0
    assert boot.calls("start") == ["shop-a-blue", "shop-b-green"]
    assert boot.calls("stop") == ["shop-a-green", "shop-b-blue"]


def test_boot_removes_the_one_off_containers_that_a_power_cut_left(boot: Boot) -> None:
    boot.run()

    assert boot.calls("rm") == ["0ff"]


def test_boot_stops_the_standby_of_an_interrupted_run(boot: Boot) -> None:
    (boot.flags / "a.standby").touch()

    assert (boot.run().returncode, list(boot.flags.iterdir())) == (0, [])


def test_boot_container_of_an_undone_release_stays_stopped(boot: Boot) -> None:
    """After a failed first deploy, the container has the color that no flag names."""
    undone = replace(Release("r1", "t", "deploy", Outcome.UNDONE, ()), reason="its gate")
    (boot.flags.parent / "releases.jsonl").write_text(history_line(undone) + "\n")

    assert boot.run().returncode == 0
    assert boot.calls("start") == []


def test_boot_resumes_the_runs_without_an_end_once_nginx_runs(boot: Boot) -> None:
    journal = boot.flags.parent / "journal"
    for run in ("r1", "r2"):
        (journal / run).mkdir(parents=True)
    (journal / "r2" / "plan.json").touch()
    boot.programs.add("systemctl", 'echo x >>"$here/asked"; [ "$(wc -l <"$here/asked")" -gt 2 ]')
    boot.programs.add("python3", "exit 46")

    done = boot.run()

    assert (done.returncode, "r2 resumed" in done.stdout) == (0, True)
    home = str(boot.flags.parent)
    assert boot.programs.calls("python3") == [
        ["python3", "-I", f"{journal}/r2/engine.pyz", "run", home, "r2", "0"],
    ]
    assert len(boot.programs.calls("systemctl")) == 3


def test_boot_fails_if_a_run_cannot_be_resumed(boot: Boot) -> None:
    (boot.flags.parent / "journal" / "r1").mkdir(parents=True)
    (boot.flags.parent / "journal" / "r1" / "plan.json").touch()
    boot.programs.add("systemctl")
    boot.programs.add("python3", "exit 43")

    assert boot.run().returncode == 1
    assert boot.calls("start") == ["shop-a-blue", "shop-b-blue"]


def test_boot_waits_for_the_network(boot: Boot) -> None:
    boot.podman('n=$(cat "$here/n" 2>/dev/null || echo 0); echo $((n + 1)) >"$here/n"; [ "$n" -ge 3 ]')

    assert boot.run().returncode == 0
    assert boot.calls("start") == ["shop-a-blue"] * 4 + ["shop-b-blue"]


def test_boot_container_that_never_starts_fails_but_the_others_start(boot: Boot) -> None:
    boot.podman('[ "$2" != shop-a-blue ]')

    assert boot.run().returncode == 1
    assert "shop-b-blue" in boot.calls("start")


def test_boot_host_without_containers_is_no_error(boot: Boot) -> None:
    boot.programs.add("podman")

    assert boot.run().returncode == 0
