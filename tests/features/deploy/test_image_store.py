"""Saving images with the workstation's real Podman or Docker, and refusals without them."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest

from rolling_upgrade.engine import image_archive
from rolling_upgrade.engine.model import Image
from rolling_upgrade.errors import PreflightError
from rolling_upgrade.features.deploy import push
from tests.support import saved_images as made
from tests.support.shell import Programs

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
