"""The images of `examples/shop`, as its Containerfile builds them, from Debian's packages and without a build tool."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from lab.images import CONFIGURATION, Blob, Layer, Registry, architecture, layer, push, tree_layer
from lab.machine import Machine

SHOP = Path(__file__).parent.parent / "examples" / "shop"
REPOSITORY = "acme/shop"
_UID = 1000
_PACKAGES = "base-files,dash,coreutils,python3,python3-django,gunicorn,python3-psycopg2,python3-redis"
_LEFT_OUT = (
    *(f"/usr/share/{part}/*" for part in ("doc", "man", "locale", "lintian")),
    *(
        f"/usr/lib/python3/dist-packages/django/{part}"
        for part in ("contrib/*/locale/*", "conf/locale/*/LC_MESSAGES/*")
    ),
)
#: Compiled in the image, so that containers start faster.
_COMPILE = (
    "python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3.* /usr/lib/python3/dist-packages || :"
)


def publish_shop(registry: Registry, machine: Machine, tags: Mapping[str, Mapping[str, str]]) -> None:
    """Push one image for each tag to `registry:5000/acme/shop`; the value has files that the tag adds to the source."""
    arguments = [
        "--variant=extract",
        f"--include={_PACKAGES}",
        *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT),
        f'--extract-hook=chroot "$1" sh -c "{_COMPILE}"',
    ]
    tree = tree_layer(machine, "shop", arguments, lambda _: None)
    for tag, added in tags.items():
        layers = (tree, _source(added))
        push(registry, REPOSITORY, tag, layers, _configuration(tag, layers))


def _source(added: Mapping[str, str]) -> Layer:
    """Return the layer with the application, which its own user may read but not change."""
    paths = [SHOP / "manage.py", *sorted((SHOP / "shop").rglob("*.py"))]
    files = {str(path.relative_to(SHOP)): path.read_text() for path in paths} | dict(added)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"srv/{name}")
            entry.size, entry.mode = len(content.encode()), 0o644
            tar.addfile(entry, io.BytesIO(content.encode()))
    return layer(out.getvalue())


def _configuration(tag: str, layers: tuple[Layer, ...]) -> Blob:
    content = {
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LANG=C.UTF-8", "PYTHONUNBUFFERED=1", f"VERSION={tag}"],
            "Cmd": ["gunicorn", "--bind", "0.0.0.0:8000", "--workers", "2", "--threads", "4", "shop.wsgi"],
            "User": str(_UID),
            "WorkingDir": "/srv",
            "ExposedPorts": {"8000/tcp": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": [part.tar_digest for part in layers]},
        "history": [{"created_by": "lab"} for _ in layers],
    }
    return Blob(json.dumps(content, sort_keys=True).encode(), CONFIGURATION)
