"""What a push finds before any host is changed: images that fit, hosts of one kind, layers that are lacking."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolling_upgrade.engine.image_archive import Layer, Piece, SavedImage
from rolling_upgrade.engine.model import Application, Environment, Image, Target
from rolling_upgrade.errors import ConfigError, PreflightError
from rolling_upgrade.features.deploy import push as pushing
from rolling_upgrade.features.deploy.push import Pushing
from rolling_upgrade.ssh.fleet import Fleet
from tests.support.sample import application, backend, frontend


def layer(name: str, size: int, path: Path = Path("/nowhere")) -> Layer:
    return Layer(name, size * 3, Piece(path, 0, size), gzipped=True)


def saved(name: str, *layers: Layer, architecture: str = "amd64") -> SavedImage:
    return SavedImage(Image(f"r/{name}", "v2", f"sha256:{name}"), f"id-{name}", architecture, b"", b"", layers)


def fleet(app: Application) -> Fleet:
    return Fleet(Environment("production", (Target("web1", "web1", "deploy", app),)), ())


def test_pushes_count_what_each_host_lacks_and_shared_layers_once() -> None:
    base, one, two = layer("base", 100), layer("one", 10), layer("two", 1)
    images = {"r/a:v2": saved("a", base, one), "r/b:v2": saved("b", base, two)}
    layers = {found.digest: found for found in (base, one, two)}
    present = {"new": frozenset[str](), "old": frozenset({"base", "two"})}
    found = Pushing({"r/a:v2": "a", "r/b:v2": "b"}, images, layers, present, {})

    assert [(push.service, push.layers, push.lacking, push.bytes) for push in found.pushes("new")] == [
        ("a", 2, 2, 110),
        ("b", 2, 1, 1),
    ]
    assert [(push.lacking, push.bytes) for push in found.pushes("old")] == [(1, 10), (0, 0)]


def test_packed_layers_that_every_host_has_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_bytes(b"0" * 9000)
    plain = [Layer(name, 9000, Piece(path, 0, 9000), gzipped=False) for name in ("sha256:here", "sha256:missing")]
    present = [frozenset({"sha256:here", "sha256:missing"}), frozenset({"sha256:here"})]

    packed = pushing._packed([saved("a", *plain)], present, tmp_path)

    assert [(digest, found.gzipped) for digest, found in packed.items()] == [
        ("sha256:here", False),
        ("sha256:missing", True),
    ]


def test_hosts_of_two_architectures_are_refused() -> None:
    with pytest.raises(PreflightError, match=r"web1 amd64, web2 arm64"):
        pushing._one_architecture({"web1": "amd64", "web2": "arm64"})


def test_image_for_another_processor_is_refused_with_a_way_out() -> None:
    with pytest.raises(PreflightError, match="is built for arm64, the hosts are amd64") as refused:
        pushing._fit(saved("a", architecture="arm64"), "amd64")
    assert refused.value.next_step == "build it with --platform linux/amd64"


def test_image_named_by_digest_cannot_be_pushed() -> None:
    with pytest.raises(ConfigError, match="a digest can only be had from a registry"):
        pushing._wanted(fleet(application()))


def test_wanted_images_by_service() -> None:
    services = [made(image=Image(f"r/{made.__name__}", "v2")) for made in (backend, frontend)]

    assert pushing._wanted(fleet(application(*services))) == {
        "backend": Image("r/backend", "v2"),
        "frontend": Image("r/frontend", "v2"),
    }


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({"worker": Path("/")}, "a service of: backend"),
        ({"backend": Path("/nowhere/image.tar")}, "nothing there"),
    ],
)
def test_wrong_sources_are_refused(sources: dict[str, Path], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pushing._check({"backend": Image("r/backend", "v2")}, sources)
