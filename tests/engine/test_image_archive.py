"""Read image archives of every format; refuse damaged, missing and other images."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rolling_upgrade.engine.image_archive import SavedImage, read
from rolling_upgrade.engine.model import Image
from rolling_upgrade.errors import PreflightError
from tests.support import saved_images as made

IMAGE = Image("registry.test/shop/backend", "v1")
BASE, TOP = made.layer("base", 3_000_000), made.layer("top")
CONFIG = made.configuration([BASE, TOP])


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    return made.docker_archive(tmp_path / "image.tar", {IMAGE.reference: [BASE, TOP]}, {IMAGE.reference: CONFIG})


def of(source: Path, scratch: Path, image: Image = IMAGE) -> SavedImage:
    return read(source, image, scratch, "amd64")


def test_read_docker_archive_gives_id_layers_and_revision(docker: Path, scratch: Path) -> None:
    saved = of(docker, scratch)

    assert saved.id == made.digest(CONFIG)
    assert [(layer.digest, layer.size) for layer in saved.layers] == [
        (made.digest(one), len(one)) for one in (BASE, TOP)
    ]
    assert (saved.image.reference, saved.image.revision) == (IMAGE.reference, "commit-of-v1")
    assert saved.image.digest == made.digest(saved.manifest)


def test_read_gives_the_same_digest_for_every_archive_format(tmp_path: Path, docker: Path, scratch: Path) -> None:
    files = made.oci_files({IMAGE.reference: ([BASE, TOP], CONFIG)})
    packed = tmp_path / "image.tar.gz"
    packed.write_bytes(gzip.compress(docker.read_bytes()))
    oci_archive = tmp_path / "oci.tar"
    oci_archive.write_bytes(made.tar(files))

    sources = (docker, packed, oci_archive, made.oci_layout(tmp_path / "layout", files))

    assert len({(of(source, scratch).image.digest, of(source, scratch).id) for source in sources}) == 1


def test_read_selects_the_image_with_the_reference(tmp_path: Path, scratch: Path) -> None:
    other = made.configuration([BASE], "other")
    names = {"registry.test/shop/other:v1": [BASE], IMAGE.reference: [BASE, TOP]}
    source = made.docker_archive(
        tmp_path / "two.tar", names, {"registry.test/shop/other:v1": other, IMAGE.reference: CONFIG}
    )

    assert of(source, scratch).id == made.digest(CONFIG)


def test_read_without_a_matching_image_lists_the_images(tmp_path: Path, scratch: Path) -> None:
    names = {"shop/one:v7": [BASE], "shop/two:v8": [TOP]}
    configs = {name: made.configuration(layers) for name, layers in names.items()}

    with pytest.raises(PreflightError, match=r"it has: shop/one:v7, shop/two:v8"):
        of(made.docker_archive(tmp_path / "two.tar", names, configs), scratch)


def test_read_accepts_a_single_unnamed_image(tmp_path: Path, scratch: Path) -> None:
    source = made.docker_archive(tmp_path / "one.tar", {"": [BASE, TOP]}, {"": CONFIG})

    assert of(source, scratch).id == made.digest(CONFIG)


@pytest.mark.parametrize("nested", [False, True])
def test_read_selects_the_platform_of_the_host(tmp_path: Path, scratch: Path, nested: bool) -> None:
    arm = made.configuration([BASE, TOP], architecture="arm64")
    images = {"": ([BASE, TOP], arm), IMAGE.reference if not nested else "amd": ([BASE, TOP], CONFIG)}
    source = made.oci_layout(tmp_path / "layout", made.oci_files(images, nested=nested))

    assert of(source, scratch).architecture == "amd64"


def test_read_without_the_platform_of_the_host_is_refused(tmp_path: Path, scratch: Path) -> None:
    arm = made.configuration([BASE], architecture="arm64")
    files = made.oci_files({"": ([BASE], arm)}, nested=True)

    with pytest.raises(PreflightError, match="no image for linux/amd64"):
        of(made.oci_layout(tmp_path / "layout", files), scratch)


def _flipped(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def test_read_one_wrong_byte_in_a_plain_layer_is_refused(docker: Path, scratch: Path) -> None:
    _flipped(docker, 2_000_000)

    with pytest.raises(PreflightError, match=r"image\.tar is damaged .* does not match its digest"):
        of(docker, scratch)


@pytest.mark.parametrize("place", [300, -3])
def test_read_one_wrong_byte_in_a_gzipped_layer_is_refused(tmp_path: Path, scratch: Path, place: int) -> None:
    layout = made.oci_layout(tmp_path / "layout", made.oci_files({"": ([TOP, BASE], made.configuration([TOP, BASE]))}))
    _flipped(layout / "blobs" / "sha256" / made.digest(gzip.compress(BASE, mtime=0))[7:], place)

    with pytest.raises(PreflightError, match="damaged"):
        of(layout, scratch)


@pytest.mark.parametrize("kept", [0, 100, 1_000_000])
def test_read_truncated_archive_is_refused(docker: Path, scratch: Path, kept: int) -> None:
    docker.write_bytes(docker.read_bytes()[:kept])

    with pytest.raises(PreflightError, match="Nothing was touched"):
        of(docker, scratch)


def test_read_truncated_gzipped_layer_is_refused(tmp_path: Path, scratch: Path) -> None:
    layout = made.oci_layout(tmp_path / "layout", made.oci_files({"": ([BASE], made.configuration([BASE]))}))
    blob = layout / "blobs" / "sha256" / made.digest(gzip.compress(BASE, mtime=0))[7:]
    blob.write_bytes(blob.read_bytes()[:-9])

    with pytest.raises(PreflightError, match="cannot be unpacked"):
        of(layout, scratch)


def test_read_truncated_gzipped_archive_is_refused(docker: Path, scratch: Path, tmp_path: Path) -> None:
    packed = tmp_path / "image.tar.gz"
    packed.write_bytes(gzip.compress(docker.read_bytes())[:-20])

    with pytest.raises(PreflightError, match="cannot be unpacked"):
        of(packed, scratch)


def test_read_layout_with_a_wrong_configuration_digest_is_refused(tmp_path: Path, scratch: Path) -> None:
    layout = made.oci_layout(tmp_path / "layout", made.oci_files({"": ([TOP], made.configuration([TOP]))}))
    (layout / "blobs" / "sha256" / made.digest(made.configuration([TOP]))[7:]).write_bytes(made.configuration([BASE]))

    with pytest.raises(PreflightError, match="does not match its digest"):
        of(layout, scratch)


@pytest.mark.parametrize(
    "entries",
    [b"[]", b"{}", b"null", b"[{}]", b"\xff", b'[{"Config": "../../etc/passwd", "RepoTags": null, "Layers": []}]'],
)
def test_read_malformed_metadata_is_refused(tmp_path: Path, scratch: Path, entries: bytes) -> None:
    path = tmp_path / "odd.tar"
    path.write_bytes(made.tar({"manifest.json": entries}))

    with pytest.raises(PreflightError, match="Nothing was touched"):
        of(path, scratch)


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "md5:aa", 7])
def test_read_layout_that_names_no_digest_is_refused(tmp_path: Path, scratch: Path, digest: object) -> None:
    index = {"manifests": [{"digest": digest}]}
    layout = made.oci_layout(tmp_path / "layout", {"index.json": json.dumps(index).encode()})

    with pytest.raises(PreflightError, match="not a sha256 digest"):
        of(layout, scratch)


def test_read_zstd_layer_is_refused_with_a_next_step(tmp_path: Path, scratch: Path) -> None:
    content = b"\x28\xb5\x2f\xfd and more"
    source = made.docker_archive(tmp_path / "image.tar", {"": [content]}, {"": made.configuration([content])})

    with pytest.raises(PreflightError, match="zstd") as refused:
        of(source, scratch)
    assert "podman save" in refused.value.next_step


def test_packed_plain_layer_is_gzipped_without_changes(docker: Path, scratch: Path) -> None:
    layer = of(docker, scratch).layers[0]

    packed = layer.packed(scratch)

    content = b"".join(packed.piece.chunks())
    assert (packed.gzipped, gzip.decompress(content), packed.piece.size) == (True, BASE, len(content))
    assert packed.packed(scratch) is packed
