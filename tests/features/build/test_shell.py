"""The command lines for Podman and Docker."""

from __future__ import annotations

from rolling_upgrade.engine.model import Build, BuildType, Login
from rolling_upgrade.features.build import shell as building
from rolling_upgrade.features.build.shell import Engine

PODMAN, DOCKER = Engine(("sudo", "/usr/bin/podman")), Engine(("docker",))
BUILD = Build(
    "backend", "/src/back end", file="/src/back end/Own", target="run", debug_target="debug", args=(("A", "x y"),)
)
REFERENCE = "registry.test:5000/shop/backend:v2"


def pairs(argv: tuple[str, ...], option: str) -> list[str]:
    return [argv[at + 1] for at, word in enumerate(argv) if word == option]


def test_build_passes_each_value_as_its_own_argument() -> None:
    argv = building.build(PODMAN, BUILD, REFERENCE, {"a": "b c"}, BuildType.RELEASE)

    assert argv[:3] == ("sudo", "/usr/bin/podman", "build")
    assert argv[-1] == "/src/back end"
    assert pairs(argv, "--tag") == [REFERENCE]
    assert pairs(argv, "--file") == ["/src/back end/Own"]
    assert pairs(argv, "--target") == ["run"]
    assert pairs(argv, "--build-arg") == ["BUILD_TYPE=release", "A=x y"]
    assert pairs(argv, "--label") == ["a=b c"]
    assert not {"--squash", "--no-cache", "--platform", "--manifest"} & set(argv)


def test_debug_build_has_debug_target_and_build_arg() -> None:
    argv = building.build(DOCKER, BUILD, REFERENCE, {}, BuildType.DEBUG)

    assert pairs(argv, "--target") == ["debug"]
    assert pairs(argv, "--build-arg")[0] == "BUILD_TYPE=debug"
    # Docker without its buildx component knows no --progress; with it, no terminal means plain lines.
    assert "--progress" not in argv


def test_build_for_several_platforms_creates_a_manifest_list() -> None:
    build = Build("backend", "/src", cache=False, squash=True)
    argv = building.build(PODMAN, build, REFERENCE, {}, BuildType.RELEASE, ("linux/amd64", "linux/arm64"))

    assert pairs(argv, "--manifest") == [REFERENCE]
    assert pairs(argv, "--platform") == ["linux/amd64,linux/arm64"]
    assert {"--squash", "--no-cache"} < set(argv)
    assert "--tag" not in argv


def test_platforms_of_manifest_list_are_parsed() -> None:
    entry = '{"platform": {"os": "linux", "architecture": "%s"}}'

    assert building.platforms_of(f'{{"manifests": [{entry % "amd64"}, {entry % "arm64"}]}}') == {
        "linux/amd64",
        "linux/arm64",
    }
    assert building.platforms_of("Error: no such list") == set()


def test_labels_omit_empty_values() -> None:
    labels = building.labels(
        revision="abc", version="", created="now", source="", tag="v2", build_type=BuildType.RELEASE
    )

    assert labels == {
        "org.opencontainers.image.revision": "abc",
        "org.opencontainers.image.created": "now",
        "org.opencontainers.image.ref.name": "v2",
        "rolling.build-type": "release",
    }


def test_login_has_no_password_in_its_arguments() -> None:
    for engine in (PODMAN, DOCKER):
        argv = building.login(engine, Login("registry.test", "robot", "pass word"), "/tmp/x")

        assert "--password-stdin" in argv
        assert not [word for word in argv if "pass word" in word]


def test_push_of_manifest_list_pushes_all_and_writes_the_digest() -> None:
    argv = building.push(PODMAN, REFERENCE, "/f", many=True, logged_in=True)

    assert argv[2:5] == ("manifest", "push", "--all")
    assert argv[-2:] == (REFERENCE, f"docker://{REFERENCE}")
    assert pairs(argv, "--authfile") == ["/f/auth.json"]
    assert pairs(argv, "--digestfile") == ["/f/digest"]
    assert "--authfile" not in building.push(PODMAN, REFERENCE, "/f", many=False, logged_in=False)


def test_pushed_digest_is_the_last_one_in_the_output() -> None:
    digest = f"sha256:{'a' * 64}"

    assert building.pushed_digest(f"latest: digest: {digest} size: 528\n") == digest
    assert building.pushed_digest("denied") == ""


def test_scan_appends_the_image_unless_its_text_uses_it() -> None:
    assert building.scan(("trivy", "image"), "r:1") == ("trivy", "image", "r:1")
    assert building.scan(("sh", "-c", "trivy image"), "r:1") == ("sh", "-c", 'trivy image "$@"', "sh", "r:1")
    assert building.scan(("sh", "-c", 'trivy "$IMAGE"'), "r:1") == ("sh", "-c", 'trivy "$IMAGE"')
