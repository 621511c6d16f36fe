"""PostgreSQL, Redis and MariaDB as images that are used like the official ones, from Debian's packages.

They read the environment variables of the official images, keep their data in the same directories, start as root, and
change to a user without privileges. A test that needs them publishes them; each is built once per machine.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.images import CONFIGURATION, Blob, Layer, Registry, architecture, layer, push, tree_layer
from lab.machine import Machine

_ENTRYPOINTS = Path(__file__).parent / "accessories"
_UID = 999
_SYSTEM = "base-files,libc-bin,dash,coreutils,util-linux,grep,sed"
_LEFT_OUT = (
    *(f"/usr/share/{part}/*" for part in ("doc", "man", "locale", "lintian", "perl", "i18n")),
    *(f"/usr/lib/*/{part}" for part in ("perl/*", "libLLVM*", "libz3*", "libperl*")),
    *(f"/usr/lib/postgresql/*/lib/{part}" for part in ("bitcode/*", "llvmjit*")),
)


@dataclass(frozen=True)
class AccessoryImage:
    """One image: its packages, its user and data directory, its command.

    The tags of an image differ in the variable VERSION. A container of the tag `broken` exits at once.
    """

    packages: str
    user: str
    data: str
    port: int
    command: tuple[str, ...]
    tags: tuple[str, ...]
    env: tuple[str, ...] = ()
    path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


IMAGES: Mapping[str, AccessoryImage] = {
    "postgres": AccessoryImage(
        packages="postgresql",
        user="postgres",
        data="/var/lib/postgresql/data",
        port=5432,
        command=("postgres",),
        tags=("17", "17.1", "broken"),
        env=("PGDATA=/var/lib/postgresql/data", "TZ=UTC"),
        path="/usr/lib/postgresql/17/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    "redis": AccessoryImage(
        packages="redis-server",
        user="redis",
        data="/data",
        port=6379,
        command=("redis-server",),
        tags=("8", "8.1", "broken"),
    ),
    "mariadb": AccessoryImage(
        packages="mariadb-server-core,mariadb-client",
        user="mysql",
        data="/var/lib/mysql",
        port=3306,
        command=("mariadbd",),
        tags=("11",),
    ),
}


def publish_accessories(registry: Registry, machine: Machine, *names: str) -> None:
    """Push the images with these names to the registry, unless it has them: `registry:5000/postgres:17`."""
    for name in names:
        image = IMAGES[name]
        layers = (_tree(machine, name, image), _files(name, image))
        for tag in image.tags:
            push(registry, name, tag, layers, _configuration(name, image, tag, layers))


def _silent(_: str) -> None:
    """Discard a progress message."""


def _tree(machine: Machine, name: str, image: AccessoryImage, log: Callable[[str], None] = _silent) -> Layer:
    excluded = [f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT]
    arguments = ["--variant=extract", f"--include={_SYSTEM},{image.packages}", *excluded]
    return tree_layer(machine, name, arguments, log)


def _files(name: str, image: AccessoryImage) -> Layer:
    """Return the layer with the user, the data directory and the entrypoint."""
    files = {
        "etc/passwd": f"root:x:0:0:root:/root:/bin/sh\n{image.user}:x:{_UID}:{_UID}::{image.data}:/bin/sh\n",
        "etc/group": f"root:x:0:\n{image.user}:x:{_UID}:\n",
        "usr/local/bin/entrypoint": (_ENTRYPOINTS / f"{name}.sh").read_text(),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content.encode()), 0o755 if path.endswith("entrypoint") else 0o644
            tar.addfile(entry, io.BytesIO(content.encode()))
        # As the script of Debian's package does, which did not run.
        run = tarfile.TarInfo("var/run")
        run.type, run.linkname = tarfile.SYMTYPE, "/run"
        tar.addfile(run)
        directory = tarfile.TarInfo(image.data.lstrip("/"))
        directory.type, directory.mode, directory.uid, directory.gid = tarfile.DIRTYPE, 0o1777, _UID, _UID
        tar.addfile(directory)
    return layer(out.getvalue())


def _configuration(name: str, image: AccessoryImage, tag: str, layers: tuple[Layer, ...]) -> Blob:
    content = {
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Env": [f"PATH={image.path}", "LANG=C.UTF-8", f"VERSION={tag}", *image.env],
            "Entrypoint": ["/usr/local/bin/entrypoint"],
            "Cmd": ["false"] if tag == "broken" else list(image.command),
            "WorkingDir": image.data if name == "redis" else "/",
            "ExposedPorts": {f"{image.port}/tcp": {}},
            "Volumes": {image.data: {}},
            # PostgreSQL stops without waiting for its clients, as in the official image.
            "StopSignal": "SIGINT" if name == "postgres" else "SIGTERM",
        },
        "rootfs": {"type": "layers", "diff_ids": [part.tar_digest for part in layers]},
        "history": [{"created_by": "lab"} for _ in layers],
    }
    return Blob(json.dumps(content, sort_keys=True).encode(), CONFIGURATION)
