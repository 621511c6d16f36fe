"""Small images in the formats of `podman save`, `docker save` and CI builds."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

REVISION = "org.opencontainers.image.revision"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer(name: str, size: int = 10_000) -> bytes:
    """Return an uncompressed tar with one file, whose content depends only on its name."""
    content = (hashlib.sha256(name.encode()).digest() * (size // 32 + 1))[:size]
    return tar({name: content})


def tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def configuration(layers: Iterable[bytes], version: str = "v1", architecture: str = "amd64") -> bytes:
    content = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": [f"VERSION={version}"], "Labels": {REVISION: f"commit-of-{version}"}},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
    }
    return json.dumps(content).encode()


def docker_archive(path: Path, images: Mapping[str, list[bytes]], configurations: Mapping[str, bytes]) -> Path:
    """Write images as `docker save` does, each with its layers and its configuration."""
    files: dict[str, bytes] = {}
    entries = []
    for reference, layers in images.items():
        config = configurations[reference]
        names = {f"{digest(layer)[7:]}.tar": layer for layer in layers}
        files |= names | {f"{digest(config)[7:]}.json": config}
        tags = [reference] if reference else []
        entries.append({"Config": f"{digest(config)[7:]}.json", "RepoTags": tags, "Layers": list(names)})
    path.write_bytes(tar({**files, "manifest.json": json.dumps(entries).encode()}))
    return path


def oci_files(images: Mapping[str, tuple[list[bytes], bytes]], *, nested: bool = False) -> dict[str, bytes]:
    """Return the files of an OCI layout with gzipped layers; with `nested`, of one multi-platform image."""
    files: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, object]:
        files[f"blobs/sha256/{digest(content)[7:]}"] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(content), "size": len(content)}

    entries = []
    for name, (layers, config) in images.items():
        manifest = {
            "schemaVersion": 2,
            "config": blob(config, "config.v1+json"),
            "layers": [blob(gzip.compress(layer, mtime=0), "layer.v1.tar+gzip") for layer in layers],
        }
        entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
        described = json.loads(config)
        platform = {"os": described["os"], "architecture": described["architecture"]}
        entries.append({**entry, "platform": platform, "annotations": {"org.opencontainers.image.ref.name": name}})
    if nested:
        index = {"schemaVersion": 2, "manifests": [{**entry, "annotations": {}} for entry in entries]}
        entries = [blob(json.dumps(index).encode(), "index.v1+json")]
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    return files


def oci_layout(directory: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory
