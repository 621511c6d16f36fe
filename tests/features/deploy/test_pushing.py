"""Images of the workstation for a push: which fit, which layers a host lacks, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolling_upgrade.engine.image_archive import ByteRange, Layer, SavedImage
from rolling_upgrade.engine.model import Application, Environment, Image, Target
from rolling_upgrade.errors import ConfigError, PreflightError
from rolling_upgrade.features.deploy import push
from rolling_upgrade.features.deploy.push import LocalImages
from rolling_upgrade.ssh.fleet import Fleet
from tests.support.sample import application, backend, frontend


def layer(name: str, size: int, path: Path = Path("/nowhere")) -> Layer:
    return Layer(name, size * 3, ByteRange(path, 0, size), gzipped=True)


def saved(name: str, *layers: Layer, architecture: str = "amd64") -> SavedImage:
    return SavedImage(Image(f"r/{name}", "v2", f"sha256:{name}"), f"id-{name}", architecture, b"", b"", layers)


def fleet(app: Application) -> Fleet:
    return Fleet(Environment("production", (Target("web1", "web1", "deploy", app),)), ())


def test_pushes_count_the_lacking_layers_and_shared_ones_once() -> None:
    base, one, two = layer("base", 100), layer("one", 10), layer("two", 1)
    images = {"r/a:v2": saved("a", base, one), "r/b:v2": saved("b", base, two)}
    layers = {layer.digest: layer for layer in (base, one, two)}
    present = {"new": frozenset[str](), "old": frozenset({"base", "two"})}
    local = LocalImages({"r/a:v2": "a", "r/b:v2": "b"}, images, layers, present, {})

    assert [(push.service, push.layers, push.lacking, push.bytes) for push in local.pushes("new")] == [
        ("a", 2, 2, 110),
        ("b", 2, 1, 1),
    ]
    assert [(push.lacking, push.bytes) for push in local.pushes("old")] == [(1, 10), (0, 0)]


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
