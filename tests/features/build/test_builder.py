"""Builds of untrusted code: processes of the build end with it, processes of the engine stay."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from rolling_upgrade.errors import StepFailed
from rolling_upgrade.features.build import builder
from tests.support.shell import Programs

REFERENCE = "registry.test/shop/backend:v2"
#: Starts a daemon whose number is in a file named after its first word.
DAEMON = """\
daemon() {
  setsid -f sh -c 'echo $$ >"$0.half"; mv "$0.half" "$0"; exec sleep 600' "$here/$1" </dev/null >/dev/null 2>&1
  until [ -s "$here/$1" ]; do sleep 0.02; done
}
"""
PODMAN = """
case "$1" in
version) daemon pause ;;
build)
  daemon build
  env >"$here/environment"
  while [ "$#" -gt 1 ]; do if [ "$1" = --iidfile ]; then echo sha256:ab >"$2"; fi; shift; done
  [ ! -e "$here/fail" ] || exit 3 ;;
image) echo warning >&2; echo "id-of-the-image 1000" ;;
images) echo newest; i=0; while [ $i -lt 99 ]; do echo old; i=$((i+1)); done ;;
esac
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs(tmp_path / "bin")
    programs.add("podman", DAEMON + PODMAN)
    monkeypatch.setenv("PATH", programs.path)
    return programs


def pid(tmp_path: Path, name: str) -> int:
    return int((tmp_path / name).read_text())


def build() -> object:
    engine = builder.find_engine(("podman",))
    argv = ("podman", "build", "--tag", REFERENCE, ".")
    return builder.build(engine, "backend", REFERENCE, argv, lambda _: None, platforms=())


@pytest.mark.parametrize("fails", [False, True])
def test_daemon_started_by_a_build_ends_with_it(
    fails: bool, tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_PASSWORD", "canary")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    if fails:
        (tmp_path / "fail").touch()
        with pytest.raises(StepFailed, match="status 3"):
            build()
    else:
        build()

    assert not Path(f"/proc/{pid(tmp_path, 'build')}").exists()
    environment = (tmp_path / "environment").read_text()
    assert "canary" not in environment
    assert {f"XDG_RUNTIME_DIR={tmp_path}", f"HOME={os.environ['HOME']}"} <= set(environment.splitlines())


def test_background_process_of_the_engine_outlives_a_build(tmp_path: Path, programs: Programs) -> None:
    """The first command of rootless Podman, here check_engine, leaves a process that holds its user namespace."""
    builder.check_engine(builder.find_engine(("podman",)))
    try:
        build()
        assert Path(f"/proc/{pid(tmp_path, 'pause')}").exists()
    finally:
        os.kill(pid(tmp_path, "pause"), signal.SIGKILL)


def test_newest_size_with_warnings_and_many_images_reads_the_newest(programs: Programs) -> None:
    assert builder.newest_size(builder.find_engine(("podman",)), "registry.test/shop/backend") == 1000
    assert [call[-1] for call in programs.calls("podman")] == ["registry.test/shop/backend", "newest"]
