"""Images out of the workstation's own Podman, really, and what is said when there is none."""

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
from tests.support.running import Programs

IMAGE = Image("registry.test/shop/backend", "v1")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Nothing but the test's own Podman and Docker, and what a shell needs."""
    found = Programs(tmp_path / "bin")
    for name in ("podman", "docker"):
        found.add(name, "echo no such image >&2; exit 125")
    monkeypatch.setenv("PATH", found.path)
    return found


def test_save_real_podman_gives_the_image_with_its_id(
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
    assert loaded.returncode == 0, loaded.stderr

    saved = image_archive.read(push.save("backend", IMAGE, tmp_path), IMAGE, tmp_path, "amd64")

    assert saved.id == made.digest(config)
    assert [layer.digest for layer in saved.layers] == [made.digest(layer) for layer in layers]
    push._run("podman", "rmi", "--all", "--force", seconds=60)


def test_save_image_that_only_docker_has_comes_from_docker(tmp_path: Path, programs: Programs) -> None:
    programs.add("docker", '[ "$1" = image ] || echo saved >"$3"')

    assert push.save("backend", IMAGE, tmp_path).read_text() == "saved\n"
    assert [call[1:] for call in programs.calls("docker")][1] == [
        "save", "--output", str(tmp_path / "backend.tar"), IMAGE.reference,
    ]  # fmt: skip


def test_save_image_that_nobody_has_is_refused_with_each_reason(tmp_path: Path, programs: Programs) -> None:
    with pytest.raises(PreflightError, match=r"podman: no such image; docker: no such image") as refused:
        push.save("backend", IMAGE, tmp_path)
    assert "--image backend=FILE" in refused.value.next_step


def test_save_that_fails_is_refused_with_its_reason(tmp_path: Path, programs: Programs) -> None:
    programs.add("podman", '[ "$1" = image ] || { echo disk full >&2; exit 1; }')

    with pytest.raises(PreflightError, match="podman save: disk full"):
        push.save("backend", IMAGE, tmp_path)


def test_save_without_any_tool_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(PreflightError, match="neither podman nor docker is installed"):
        push.save("backend", IMAGE, tmp_path)
