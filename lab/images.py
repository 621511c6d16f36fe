"""OCI images without a build tool, the sample application as such images, and the lab's registry.

The images are written without a build tool, so that equal content has equal digests on every machine. Blobs that the
registry has are not sent again. Source: the OCI image and distribution specifications.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import platform
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.base_image import debian_tree
from lab.files import cache_directory, locked, replace_file
from lab.host import Host, wait_for
from lab.machine import Machine
from rolling_upgrade.errors import PreflightError

APPLICATION = Path(__file__).parent / "app"
REPOSITORY = "memoryark"
PORT = 5000
#: Tags of both services; the value is the backend's fault.
TAGS: Mapping[str, str] = {
    "v1": "",
    "v2": "",
    "v3": "",
    "v3-broken": "broken",
    "never-healthy": "never-healthy",
    "crash-later": "crash-later",
    "slow-start": "slow-start",
    "flapping": "flapping",
    "exits-at-once": "exits-at-once",
    "wrong-chain": "wrong-chain",
}

_RELEASE = "trixie"
_PACKAGES = "python3,dash,base-files"
#: Compiled in the image, so that containers start faster.
_COMPILE = "python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3.*"
#: `extract` unpacks packages without running their scripts. The tree has a third of the size of `minbase`.
_TREE = [
    "--variant=extract",
    f"--include={_PACKAGES}",
    *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "lintian")),
    f'--extract-hook=chroot "$1" sh -c "{_COMPILE}"',
]
_EXCLUDED = ("./dev", "./proc", "./sys", "./var/cache", "./var/lib", "./usr/share/perl5", "./boot")
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIGURATION = "application/vnd.oci.image.config.v1+json"


@dataclass(frozen=True)
class Blob:
    """Content with its digest as its name."""

    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """The digest of the content."""
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"

    @property
    def descriptor(self) -> dict[str, object]:
        """The descriptor for manifests."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content)}


@dataclass(frozen=True)
class Layer:
    """A compressed tar, and the digest of the uncompressed tar for the image's configuration."""

    blob: Blob
    tar_digest: str


@dataclass(frozen=True)
class Registry:
    """The registry host and the service on it."""

    host: Host

    @property
    def address(self) -> str:
        """The address for this machine. Hosts use `registry:5000`."""
        return f"{self.host.address}:{PORT}"

    def stop(self) -> None:
        """Stop the registry."""
        self.host.sh("systemctl stop docker-registry")

    def start(self) -> None:
        """Start the registry. Returns when it answers."""
        self.host.sh("systemctl start docker-registry")
        self.wait_until_up()

    def wait_until_up(self) -> None:
        """Wait until the registry answers. Raises HostUnreachable after 30 seconds."""
        wait_for(self._answers, 30, f"the registry at {self.address}")

    def digest(self, service: str, tag: str) -> str:
        """Return the digest of a tag of the sample application, or '' when there is no such tag."""
        return self.digest_of(f"{REPOSITORY}/{service}", tag)

    def digest_of(self, repository: str, tag: str) -> str:
        """Return the digest of a tag of any repository, or '' when there is no such tag."""
        response, _ = self.request("HEAD", f"/v2/{repository}/manifests/{tag}", {"Accept": _MANIFEST})
        return response.headers.get("Docker-Content-Digest", "") if response.status == 200 else ""

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Send one HTTP request. Return the response and its body."""
        connection = http.client.HTTPConnection(self.host.address, PORT, timeout=60)
        try:
            connection.request(method, path, body=body or None, headers=dict(headers or {}))
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def _answers(self) -> bool:
        try:
            return self.request("GET", "/v2/")[0].status == 200
        except (OSError, http.client.HTTPException):
            return False


def publish(registry: Registry, machine: Machine, log: Callable[[str], None]) -> None:
    """Push every tag of both services, unless the registry has the same content."""
    application = _application_layer()
    stamp = cache_directory() / f"images-{_recipe(_TREE)}-{_source()}-{application.blob.digest[7:19]}.json"
    wanted = json.loads(stamp.read_text()) if stamp.exists() else {}
    if wanted and all(registry.digest(*name.split(":")) == digest for name, digest in wanted.items()):
        return
    layers = (_base_layer(machine, log), application)
    log(f"Publishing {len(TAGS)} tags of the sample application")
    published = {
        f"{service}:{tag}": push(
            registry,
            f"{REPOSITORY}/{service}",
            tag,
            layers,
            _configuration(service, tag, layers),
            f"{REPOSITORY}/backend",
        )
        for tag in TAGS
        for service in ("backend", "frontend")
    }
    replace_file(stamp, json.dumps(published, indent=1))


def write_layout(directory: Path, machine: Machine, service: str, tag: str, extra: Mapping[str, bytes]) -> str:
    """Write an image as an OCI layout, with one layer per extra file. Return the image id."""
    more = tuple(layer(_tar({f"srv/{name}": content})) for name, content in extra.items())
    layers = (_base_layer(machine, lambda _: None), _application_layer(), *more)
    configuration = _configuration(service, tag, layers)
    manifest = _manifest(layers, configuration)
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for blob in (*(part.blob for part in layers), configuration, manifest):
        (blobs / blob.digest.removeprefix("sha256:")).write_bytes(blob.content)
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest.descriptor]}))
    return configuration.digest


def _configuration(service: str, tag: str, layers: tuple[Layer, ...]) -> Blob:
    """Return the image's configuration: entrypoint and environment."""
    fault = TAGS[tag] if service == "backend" else ""
    port = "8080" if service == "backend" else "7001"
    environment = ["PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LANG=C.UTF-8", "PYTHONUNBUFFERED=1"]
    environment += [f"VERSION={tag}", f"FAULT={fault}", f"PORT={port}"]
    content = {
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Env": environment,
            "Entrypoint": ["/usr/bin/python3", f"/srv/{service}.py"],
            "WorkingDir": "/srv",
            "ExposedPorts": {f"{port}/tcp": {}},
            "Labels": {"org.opencontainers.image.version": tag},
            "StopSignal": "SIGTERM",
        },
        "rootfs": {"type": "layers", "diff_ids": [part.tar_digest for part in layers]},
        "history": [{"created_by": "lab"} for _ in layers],
    }
    return Blob(json.dumps(content, sort_keys=True).encode(), CONFIGURATION)


def push(
    registry: Registry, repository: str, tag: str, layers: tuple[Layer, ...], configuration: Blob, mount_from: str = ""
) -> str:
    """Push the missing blobs of an image and then its manifest. Return the digest.

    The registry mounts blobs that the repository `mount_from` has.
    """
    for blob in (*(part.blob for part in layers), configuration):
        _push_blob(registry, repository, blob, mount_from)
    manifest = _manifest(layers, configuration)
    path = f"/v2/{repository}/manifests/{tag}"
    response, body = registry.request("PUT", path, {"Content-Type": _MANIFEST}, manifest.content)
    _expect(response.status, 201, f"PUT {path}", body)
    return manifest.digest


def _manifest(layers: tuple[Layer, ...], configuration: Blob) -> Blob:
    content = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": configuration.descriptor,
        "layers": [part.blob.descriptor for part in layers],
    }
    return Blob(json.dumps(content, sort_keys=True).encode(), _MANIFEST)


def _push_blob(registry: Registry, repository: str, blob: Blob, mount_from: str) -> None:
    blobs = f"/v2/{repository}/blobs"
    if registry.request("HEAD", f"{blobs}/{blob.digest}")[0].status == 200:
        return
    start = f"{blobs}/uploads/"
    if mount_from and mount_from != repository:
        start += f"?mount={blob.digest}&from={mount_from}"
    response, body = registry.request("POST", start, {"Content-Length": "0"})
    if response.status == 201:
        return
    _expect(response.status, 202, f"POST {start}", body)
    location = response.headers["Location"].split(registry.address, 1)[-1]
    target = f"{location}{'&' if '?' in location else '?'}digest={blob.digest}"
    response, body = registry.request("PUT", target, {"Content-Type": "application/octet-stream"}, blob.content)
    _expect(response.status, 201, f"PUT {blobs}", body)


def _expect(status: int, expected: int, what: str, body: bytes) -> None:
    if status != expected:
        raise PreflightError(
            f"The lab's registry answered {status} to {what}: {body[:300].decode(errors='replace')}",
            next_step="inv lab.down, then inv lab.up",
        )


def _application_layer() -> Layer:
    """Return the layer with the application's files."""
    return layer(_tar({f"srv/{path.name}": path.read_bytes() for path in sorted(APPLICATION.glob("*.py"))}))


def _tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _base_layer(machine: Machine, log: Callable[[str], None]) -> Layer:
    """Return the layer with Python, from the cache or built in about ten seconds."""
    return tree_layer(machine, "application", _TREE, log)


def tree_layer(machine: Machine, name: str, arguments: list[str], log: Callable[[str], None]) -> Layer:
    """Return a layer with a Debian tree, from the cache or built in seconds. The name is that of its cached file."""
    compressed = cache_directory() / f"{name}-{_recipe(arguments)}.tar.gz"
    with locked(name):
        if not compressed.exists():
            log(f"Building the base layer of {name}, once per machine: about ten seconds")
            tree = compressed.with_suffix(".tree")
            debian_tree(machine, tree, arguments, _RELEASE, log)
            replace_file(compressed, layer(_stripped(tree)).blob.content)
            tree.unlink()
            for stale in cache_directory().glob(f"{name}-*.tar.gz"):
                if stale != compressed:
                    stale.unlink()
    content = compressed.read_bytes()
    tar_digest = hashlib.sha256(gzip.decompress(content)).hexdigest()
    return Layer(Blob(content, _LAYER), f"sha256:{tar_digest}")


def _stripped(tree: Path) -> bytes:
    """Return the tree without devices, package lists and build times."""
    out = io.BytesIO()
    with tarfile.open(tree) as source, tarfile.open(fileobj=out, mode="w") as target:
        for entry in source:
            if not entry.isdev() and not entry.name.startswith(_EXCLUDED):
                entry.mtime = 0
                target.addfile(entry, source.extractfile(entry) if entry.isreg() else None)
    return out.getvalue()


def layer(tar: bytes) -> Layer:
    """Return the layer of a tar."""
    blob = Blob(gzip.compress(tar, compresslevel=6, mtime=0), _LAYER)
    return Layer(blob, f"sha256:{hashlib.sha256(tar).hexdigest()}")


def _recipe(arguments: list[str]) -> str:
    return hashlib.sha256("\n".join((_RELEASE, *arguments, *_EXCLUDED)).encode()).hexdigest()[:12]


def architecture() -> str:
    """Return this machine's architecture as images name it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _source() -> str:
    """Return the hash of this file, because it determines the images too."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
