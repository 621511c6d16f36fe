"""Fetching a pushed image, and listing the layers of a host, with a real `sh` and a `podman` stub."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import tomllib

from rolling_upgrade.engine import image_push
from rolling_upgrade.engine.image_push import Push
from rolling_upgrade.engine.model import Image
from rolling_upgrade.engine.shell import Script
from tests.support.sample import DIGEST, image
from tests.support.shell import Programs, sh

ID = "sha256:" + "e" * 64
PASSWORD = "a-word' of $the run"

#: Records the configuration of a pull; the test sets the result of `exists`.
PODMAN = """
case "$1 $2" in
  "image exists") exit 1 ;;
  "image inspect") echo {id} ;;
  "pull --quiet")
    cp "$CONTAINERS_REGISTRIES_CONF" "$here/registries.conf"
    cp "$4" "$here/auth.json"
    ls -l "$4" >"$here/mode" ;;
esac
"""


def push(name: str = "backend", reference: Image | None = None) -> Push:
    return Push(name, reference or image(name), ID, 3, 1, 5000)


def fetched(programs: Programs, folder: Path, *pushes: Push, id: str = ID) -> tuple[int, str]:
    programs.add("podman", PODMAN.format(id=id))
    script = image_push.fetch(pushes, str(folder))
    prologue = image_push.prologue(40001, PASSWORD)
    done = sh(Script(f"umask 077\n{prologue.text}\n{script.text}"), path=programs.path)
    return done.returncode, done.stdout + done.stderr


def test_fetch_missing_image_is_pulled_by_its_own_name_from_the_forwarded_port(
    programs: Programs, tmp_path: Path
) -> None:
    assert fetched(programs, tmp_path / "run", push()) == (0, "")

    pulled = [call for call in programs.calls("podman") if call[1] == "pull"]
    assert [call[-1] for call in pulled] == [f"registry.test:5000/shop/backend@{DIGEST['backend']}"]
    entries = tomllib.loads((tmp_path / "registries.conf").read_text())["registry"]
    assert entries == [
        {"prefix": "registry.test:5000/shop/backend", "location": "127.0.0.1:40001/image", "insecure": True}
    ]


def test_fetch_password_is_only_in_a_private_file_and_deleted_afterwards(programs: Programs, tmp_path: Path) -> None:
    fetched(programs, tmp_path / "run", push(), push("frontend"))

    login = json.loads((tmp_path / "auth.json").read_text())["auths"]["127.0.0.1:40001"]["auth"]
    assert base64.b64decode(login).decode() == f"deploy:{PASSWORD}"
    assert (tmp_path / "mode").read_text().startswith("-rw-------")
    assert not (tmp_path / "run").exists()
    assert not [call for call in programs.calls() if PASSWORD in " ".join(call) or login in " ".join(call)]


def test_fetch_does_not_pull_a_present_image(programs: Programs, tmp_path: Path) -> None:
    programs.add("podman", f'case "$1 $2" in "image inspect") echo {ID} ;; esac')

    script = image_push.fetch([push()], str(tmp_path / "run"))
    done = sh(Script(f"{image_push.prologue(1, 'x').text}\n{script.text}"), path=programs.path)

    assert done.returncode == 0
    assert not [call for call in programs.calls("podman") if call[1] == "pull"]


def test_fetch_fails_if_the_image_id_differs(programs: Programs, tmp_path: Path) -> None:
    status, said = fetched(programs, tmp_path / "run", push(), id="f" * 64)

    assert status == 1
    assert f"the image on the host is not the workstation's {ID}" in said


def test_fetch_id_without_its_algorithm_is_the_same(programs: Programs, tmp_path: Path) -> None:
    assert fetched(programs, tmp_path / "run", push(), id="e" * 64)[0] == 0


def test_fetch_without_a_prologue_does_nothing(programs: Programs, tmp_path: Path) -> None:
    programs.add("podman", "exit 1")

    assert sh(image_push.fetch([push()], str(tmp_path / "run")), path=programs.path).returncode != 0
    assert programs.calls("podman") == []
    assert not (tmp_path / "run").exists()


def test_fetch_short_name_is_pulled_with_its_registry(programs: Programs, tmp_path: Path) -> None:
    short = Image("shop/backend", "v2", DIGEST["backend"])

    fetched(programs, tmp_path / "run", push(reference=short))

    assert programs.calls("podman")[1][-1] == f"docker.io/shop/backend@{DIGEST['backend']}"


@pytest.mark.parametrize(
    ("repository", "full"),
    [
        ("nginx", "docker.io/library/nginx"),
        ("shop/backend", "docker.io/shop/backend"),
        ("localhost/backend", "localhost/backend"),
        ("registry.test/shop/backend", "registry.test/shop/backend"),
        ("registry:5000/backend", "registry:5000/backend"),
    ],
)
def test_full_name_follows_docker(repository: str, full: str) -> None:
    assert image_push.full_name(repository) == full


def test_read_layers_prints_architecture_and_every_layer(programs: Programs, tmp_path: Path) -> None:
    layers = [{"id": "x", "compressed-diff-digest": ID, "diff-digest": digest} for digest in DIGEST.values()]
    (tmp_path / "overlay-layers").mkdir()
    (tmp_path / "overlay-layers" / "layers.json").write_text(json.dumps(layers, separators=(",", ":")))
    programs.add("podman", f"echo '{tmp_path}/overlay-layers/layers.json'")
    programs.add("uname", "echo x86_64")
    text = image_push.read_layers().text.replace("PATH=/", "OTHER=/")

    done = sh(text, path=programs.path)

    assert image_push.parse(done.stdout) == ("amd64", frozenset(DIGEST.values()))


def test_read_layers_of_a_host_without_images_is_empty(programs: Programs) -> None:
    programs.add("podman", "echo /nowhere/layers.json")
    programs.add("uname", "echo aarch64")
    text = image_push.read_layers().text.replace("PATH=/", "OTHER=/")

    assert image_push.parse(sh(text, path=programs.path).stdout) == ("arm64", frozenset())
