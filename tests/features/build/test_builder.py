"""The command lines for Podman and Docker; builds of untrusted code: their processes end with them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Build, BuildType, Login
from rolling_upgrade.errors import StepFailed
from rolling_upgrade.features.build import builder
from rolling_upgrade.features.build.builder import Engine
from tests.support.shell import Programs

PODMAN, DOCKER = Engine(("sudo", "/usr/bin/podman")), Engine(("docker",))
BUILD = Build(
    "backend", "/src/back end", file="/src/back end/Own", target="run", debug_target="debug", args=(("A", "x y"),)
)
REFERENCE = "registry.test:5000/shop/backend:v2"
#: Starts a daemon whose number is in a file named after its first word.
DAEMON = """\
daemon() {
  setsid -f sh -c 'echo $$ >"$0.half"; mv "$0.half" "$0"; exec sleep 600' "$here/$1" </dev/null >/dev/null 2>&1
  until [ -s "$here/$1" ]; do sleep 0.02; done
}
"""
PODMAN_SCRIPT = """
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
    programs.add("podman", DAEMON + PODMAN_SCRIPT)
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


def pairs(argv: tuple[str, ...], option: str) -> list[str]:
    return [argv[at + 1] for at, word in enumerate(argv) if word == option]


def test_build_passes_each_value_as_its_own_argument() -> None:
    argv = builder.build_command(PODMAN, BUILD, REFERENCE, {"a": "b c"}, BuildType.RELEASE)

    assert argv[:3] == ("sudo", "/usr/bin/podman", "build")
    assert argv[-1] == "/src/back end"
    assert pairs(argv, "--tag") == [REFERENCE]
    assert pairs(argv, "--file") == ["/src/back end/Own"]
    assert pairs(argv, "--target") == ["run"]
    assert pairs(argv, "--build-arg") == ["BUILD_TYPE=release", "A=x y"]
    assert pairs(argv, "--label") == ["a=b c"]
    assert not {"--squash", "--no-cache", "--platform", "--manifest"} & set(argv)


def test_debug_build_has_debug_target_and_build_arg() -> None:
    argv = builder.build_command(DOCKER, BUILD, REFERENCE, {}, BuildType.DEBUG)

    assert pairs(argv, "--target") == ["debug"]
    assert pairs(argv, "--build-arg")[0] == "BUILD_TYPE=debug"
    # Docker without its buildx component knows no --progress; with it, no terminal means plain lines.
    assert "--progress" not in argv


def test_build_for_several_platforms_creates_a_manifest_list() -> None:
    build = Build("backend", "/src", cache=False, squash=True)
    argv = builder.build_command(PODMAN, build, REFERENCE, {}, BuildType.RELEASE, ("linux/amd64", "linux/arm64"))

    assert pairs(argv, "--manifest") == [REFERENCE]
    assert pairs(argv, "--platform") == ["linux/amd64,linux/arm64"]
    assert {"--squash", "--no-cache"} < set(argv)
    assert "--tag" not in argv


def test_platforms_of_manifest_list_are_parsed() -> None:
    entry = '{"platform": {"os": "linux", "architecture": "%s"}}'

    assert builder.platforms_of(f'{{"manifests": [{entry % "amd64"}, {entry % "arm64"}]}}') == {
        "linux/amd64",
        "linux/arm64",
    }
    assert builder.platforms_of("Error: no such list") == set()


def test_login_has_no_password_in_its_arguments() -> None:
    for engine in (PODMAN, DOCKER):
        argv = builder.login_command(engine, Login("registry.test", "robot", "pass word"), "/tmp/x")

        assert "--password-stdin" in argv
        assert not [word for word in argv if "pass word" in word]


def test_push_of_manifest_list_pushes_all_and_writes_the_digest() -> None:
    argv = builder.push_command(PODMAN, REFERENCE, "/f", many=True, logged_in=True)

    assert argv[2:5] == ("manifest", "push", "--all")
    assert argv[-2:] == (REFERENCE, f"docker://{REFERENCE}")
    assert pairs(argv, "--authfile") == ["/f/auth.json"]
    assert pairs(argv, "--digestfile") == ["/f/digest"]
    assert "--authfile" not in builder.push_command(PODMAN, REFERENCE, "/f", many=False, logged_in=False)


def test_pushed_digest_is_the_last_one_in_the_output() -> None:
    digest = f"sha256:{'a' * 64}"

    assert builder.pushed_digest(f"latest: digest: {digest} size: 528\n") == digest
    assert builder.pushed_digest("denied") == ""


def test_scan_appends_the_image_unless_its_text_uses_it() -> None:
    assert builder.scan_command(("trivy", "image"), "r:1") == ("trivy", "image", "r:1")
    assert builder.scan_command(("sh", "-c", "trivy image"), "r:1") == ("sh", "-c", 'trivy image "$@"', "sh", "r:1")
    assert builder.scan_command(("sh", "-c", 'trivy "$IMAGE"'), "r:1") == ("sh", "-c", 'trivy "$IMAGE"')
