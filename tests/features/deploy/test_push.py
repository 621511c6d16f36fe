"""Images of the workstation for a push: which fit, which layers a host lacks, and which are refused."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest

from rolling_upgrade.engine import image_archive
from rolling_upgrade.engine.image_archive import ByteRange, Layer, SavedImage
from rolling_upgrade.engine.model import Application, Environment, Image, Service, Target
from rolling_upgrade.errors import ConfigError, PreflightError
from rolling_upgrade.features.deploy import push
from rolling_upgrade.features.deploy.push import LocalImages
from rolling_upgrade.ssh.fleet import Fleet
from tests.support import saved_images as made
from tests.support.sample import application, backend, frontend
from tests.support.shell import Programs


def layer(name: str, size: int, path: Path = Path("/nowhere")) -> Layer:
    return Layer(name, size * 3, ByteRange(path, 0, size), gzipped=True)


def saved(name: str, *layers: Layer, architecture: str = "amd64") -> SavedImage:
    return SavedImage(Image(f"r/{name}", "v2", f"sha256:{name}"), f"id-{name}", architecture, b"", b"", layers)


def fleet(app: Application) -> Fleet:
    return Fleet(Environment("production", (Target("web1", "web1", "deploy", app),)), ())


def service(name: str) -> Service:
    return frontend(name=name, image=Image(f"r/{name}", "v2"))


def test_pushes_count_the_lacking_layers_and_shared_ones_once() -> None:
    base, one, two = layer("base", 100), layer("one", 10), layer("two", 1)
    images = {"r/a:v2": saved("a", base, one), "r/b:v2": saved("b", base, two)}
    layers = {layer.digest: layer for layer in (base, one, two)}
    present = {"new": frozenset[str](), "old": frozenset({"base", "two"})}
    local = LocalImages({"r/a:v2": "a", "r/b:v2": "b"}, images, layers, present, {})
    both = application(service("a"), service("b"))

    assert [(push.service, push.layers, push.lacking, push.bytes) for push in local.pushes("new", both)] == [
        ("a", 2, 2, 110),
        ("b", 2, 1, 1),
    ]
    assert [(push.lacking, push.bytes) for push in local.pushes("old", both)] == [(1, 10), (0, 0)]
    assert [(push.service, push.lacking) for push in local.pushes("new", application(service("b")))] == [("b", 2)]


def test_layers_that_every_host_has_are_not_compressed(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_bytes(b"0" * 9000)
    plain = [Layer(name, 9000, ByteRange(path, 0, 9000), gzipped=False) for name in ("sha256:here", "sha256:missing")]
    present = [frozenset({"sha256:here", "sha256:missing"}), frozenset({"sha256:here"})]

    layers = push._compressed([saved("a", *plain)], present, tmp_path)

    assert [(digest, layer.gzipped) for digest, layer in layers.items()] == [
        ("sha256:here", False),
        ("sha256:missing", True),
    ]


def test_hosts_of_two_architectures_are_refused() -> None:
    with pytest.raises(PreflightError, match=r"web1 amd64, web2 arm64"):
        push._common_architecture({"web1": "amd64", "web2": "arm64"})


def test_image_of_another_architecture_is_refused_with_next_step() -> None:
    with pytest.raises(PreflightError, match="is built for arm64, the hosts are amd64") as refused:
        push._check_architecture(saved("a", architecture="arm64"), "amd64")
    assert refused.value.next_step == "build it with --platform linux/amd64"


def test_image_named_by_digest_is_refused() -> None:
    with pytest.raises(ConfigError, match="only a registry has an image by its digest"):
        push._images_by_service(fleet(application()))


def test_images_by_service_are_those_of_the_application() -> None:
    services = [build(image=Image(f"r/{build.__name__}", "v2")) for build in (backend, frontend)]

    assert push._images_by_service(fleet(application(*services))) == {
        "backend": Image("r/backend", "v2"),
        "frontend": Image("r/frontend", "v2"),
    }


@pytest.mark.parametrize(
    ("archives", "problem"),
    [
        ({"worker": Path("/")}, "a service of: backend"),
        ({"backend": Path("/nowhere/image.tar")}, "no such file"),
    ],
)
def test_unusable_archives_are_refused(archives: dict[str, Path], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        push._check_archives({"backend": Image("r/backend", "v2")}, archives)


IMAGE = Image("registry.test/shop/backend", "v1")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Stand-ins for Podman and Docker that have no image, and the programs that a shell needs."""
    programs = Programs(tmp_path / "bin")
    for name in ("podman", "docker"):
        programs.add(name, "echo no such image >&2; exit 125")
    monkeypatch.setenv("PATH", programs.path)
    return programs


def test_save_with_real_podman_keeps_the_image_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: Programs
) -> None:
    real = shutil.which("podman", path=os.environ["PATH"].partition(":")[2])
    assert real, "podman is missing: make setup installs it"
    (tmp_path / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/root"\nrunroot = "{tmp_path}/run"\n'
    )
    as_root = "" if os.geteuid() == 0 else "sudo -n "
    storage = shlex.quote(f"CONTAINERS_STORAGE_CONF={tmp_path}/storage.conf")
    programs.add("podman", f'exec {as_root}env {storage} {real} "$@"')
    layers = [made.layer("base", 100_000), made.layer("top")]
    config = made.configuration(layers)
    (tmp_path / "oci.tar").write_bytes(made.tar(made.oci_files({IMAGE.reference: (layers, config)})))
    loaded = push._run("podman", "load", "--quiet", "--input", str(tmp_path / "oci.tar"), seconds=60)
    assert loaded.ok, loaded.output_tail

    saved = image_archive.read(push.save("backend", IMAGE, tmp_path), IMAGE, tmp_path, "amd64")

    assert saved.id == made.digest(config)
    assert [layer.digest for layer in saved.layers] == [made.digest(layer) for layer in layers]
    push._run("podman", "rmi", "--all", "--force", seconds=60)


def test_save_image_that_only_docker_has_uses_docker(tmp_path: Path, programs: Programs) -> None:
    programs.add("docker", '[ "$1" = image ] || echo saved >"$3"')

    assert push.save("backend", IMAGE, tmp_path).read_text() == "saved\n"
    assert [call[1:] for call in programs.calls("docker")][1] == [
        "save", "--output", str(tmp_path / "backend.tar"), IMAGE.reference,
    ]  # fmt: skip


def test_save_missing_image_is_refused_with_the_reason_of_each_tool(tmp_path: Path, programs: Programs) -> None:
    with pytest.raises(PreflightError, match=r"podman: no such image; docker: no such image") as refused:
        push.save("backend", IMAGE, tmp_path)
    assert "--image backend=FILE" in refused.value.next_step


def test_failed_save_is_refused_with_its_reason(tmp_path: Path, programs: Programs) -> None:
    programs.add("podman", '[ "$1" = image ] || { echo disk full >&2; exit 1; }')

    with pytest.raises(PreflightError, match="podman save: disk full"):
        push.save("backend", IMAGE, tmp_path)


def test_save_without_any_tool_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(PreflightError, match="neither podman nor docker is installed"):
        push.save("backend", IMAGE, tmp_path)
