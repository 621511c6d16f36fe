"""Assets of earlier releases: copied out of images, linked into one directory, and pruned with their images."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine import assets
from rolling_upgrade.engine.model import Application, Assets, Image
from rolling_upgrade.engine.prune_entry import Mode, prune_entry
from rolling_upgrade.engine.shell import Script
from tests.support.sample import application, backend, frontend
from tests.support.shell import Programs, sh

DIGESTS = {name: "sha256:" + name * 64 for name in "abc"}
#: `podman cp` copies the directory below images/DIGEST that stands for the content of an image.
PODMAN = """\
case "$1" in
  create) for word; do case $word in *@sha256:*) echo "${word#*@sha256:}" > "$here/created" ;; esac; done ;;
  cp) shift; cp -a "$here/images/$(cat "$here/created")${1#*:}" "$2" ;;
esac"""


class Host:
    """A home of the application, and images whose files are in directories."""

    def __init__(self, root: Path, programs: Programs) -> None:
        self.root, self.programs = root, programs
        self.home = root / "home"
        self.home.mkdir()
        programs.add("podman", PODMAN)

    def image(self, name: str, **files: str) -> Image:
        """An image with files in /app/assets."""
        place = self.root / "images" / (name * 64) / "app/assets"
        for path, content in files.items():
            file = place / path.replace("__", "/").replace("_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return Image("registry.test/shop", name, DIGESTS[name])

    def app(self, image: Image) -> Application:
        service = frontend(image=image, assets=Assets("/app/assets", "/assets"))
        return application(backend(), service)

    def copy(self, image: Image, *running: Image) -> tuple[int, str]:
        """Copy the assets of an image while others run."""
        app = self.app(image)
        script = assets.copy(app, [(app.service("frontend"), one) for one in running])
        return self.run(script.text)

    def run(self, text: str) -> tuple[int, str]:
        done = sh(text.replace("/var/lib/shop", str(self.home)), path=self.programs.path)
        return done.returncode, done.stdout + done.stderr

    def prune(self, *kept: Image, mode: Mode = Mode.QUIET) -> str:
        text = "\n".join((prune_entry(mode), assets.prune("/var/lib/shop", [image.digest for image in kept], mode)))
        code, output = self.run(text)
        assert code == 0, output
        return output

    @property
    def files(self) -> dict[str, str]:
        """The files that Nginx serves."""
        place = self.home / "assets/frontend/files"
        return {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, Programs(tmp_path / "bin"))


def test_files_of_the_running_and_the_new_image_are_reachable(host: Host) -> None:
    old, new = host.image("a", old_js="1", app_js="old"), host.image("b", new_js="2", app_js="new", deep__x_css="3")

    assert host.copy(new, old) == (0, "")
    assert host.files == {"old.js": "1", "new.js": "2", "deep/x.css": "3", "app.js": "new"}


def test_rollback_serves_the_files_of_its_release_first(host: Host) -> None:
    old, new = host.image("a", app_js="old"), host.image("b", app_js="new")
    host.copy(new, old)
    os.utime(host.home / "assets/frontend/releases" / ("a" * 64), (1, 1))

    assert host.copy(old, new) == (0, "")
    assert host.files == {"app.js": "old"}


def test_image_is_copied_once(host: Host) -> None:
    image = host.image("a", app_js="1")
    host.copy(image)
    host.copy(image, image)

    assert [call[1] for call in host.programs.calls("podman")].count("cp") == 1


def test_running_image_without_assets_is_no_error_but_the_new_one_must_have_them(host: Host) -> None:
    without, new = host.image("a"), host.image("b", app_js="2")

    assert host.copy(new, without) == (0, "")
    code, output = host.copy(without)
    assert (code, "cannot copy the assets at /app/assets out of the image registry.test/shop@sha256:" in output) == (
        1,
        True,
    )
    assert not list(host.home.glob("assets/frontend/releases/*.new"))
    assert host.files == {"app.js": "2"}


def test_links_and_pipes_of_an_image_are_dropped_and_files_become_readable(host: Host) -> None:
    image = host.image("a", app_js="1")
    place = host.root / "images" / ("a" * 64) / "app/assets"
    (place / "link").symlink_to("/etc/passwd")
    (place / "directory").symlink_to("/etc")
    os.mkfifo(place / "pipe")
    (place / "app.js").chmod(0o400)

    assert host.copy(image) == (0, "")
    assert host.files == {"app.js": "1"}
    served = host.home / "assets/frontend/files"
    assert sorted(path.name for path in served.iterdir()) == ["app.js"]
    assert (served / "app.js").stat().st_mode & 0o777 == 0o644
    assert served.stat().st_mode & 0o005 == 0o005


def test_prune_removes_the_files_that_only_expired_images_have(host: Host) -> None:
    old, new = host.image("a", old_js="1", both_js="old"), host.image("b", new_js="2", both_js="new")
    host.copy(new, old)

    host.prune(new)

    assert host.files == {"new.js": "2", "both.js": "new"}
    assert [path.name for path in (host.home / "assets/frontend/releases").iterdir()] == ["b" * 64]


def test_prune_keeps_the_older_file_when_the_newer_release_expires(host: Host) -> None:
    old, new = host.image("a", both_js="old"), host.image("b", both_js="new", empty__new_js="2")
    host.copy(new, old)

    host.prune(old)

    assert host.files == {"both.js": "old"}
    assert not (host.home / "assets/frontend/files/empty").exists()


def test_dry_run_of_prune_lists_and_removes_nothing(host: Host) -> None:
    old, new = host.image("a", old_js="1"), host.image("b", new_js="2")
    host.copy(new, old)

    output = host.prune(new, mode=Mode.LIST)

    (row,) = output.splitlines()
    assert (row.split("\t")[:2], row.split("\t")[2].endswith("a" * 64)) == (["would go", "assets"], True)
    assert host.files == {"old.js": "1", "new.js": "2"}


def test_prune_without_assets_does_nothing(host: Host) -> None:
    assert host.prune() == ""


def test_services_without_assets_copy_nothing() -> None:
    app = application()

    assert "podman cp" not in assets.copy(app, []).text.replace(assets._COPY, "")
    assert replace(app.services[0], assets=None) == app.services[0]
    assert isinstance(assets.copy(app, []), Script)
