"""Image archives on the workstation: find one image in an archive, and verify every byte before a push.

This module reads archives of `podman save` and `docker save`, OCI archives and OCI layout directories. From each
format it makes a manifest that names layers by the digest of the uncompressed tar. So equal images get equal digests,
and a host recognizes a layer that it already has.

Source: containers/storage finds layers by that digest (LayersByUncompressedDigest).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import posixpath
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.image_push import full_name
from rolling_upgrade.engine.model import Image
from rolling_upgrade.errors import PreflightError

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar"
_INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: The largest manifest or configuration, in bytes.
_SMALL = 8 << 20


@dataclass(frozen=True)
class SavedImage:
    """A verified image: `id` is the digest of the configuration, `image` has the digest of the manifest."""

    image: Image
    id: str
    architecture: str
    manifest: bytes
    configuration: bytes
    layers: tuple[Layer, ...]


class _Archive:
    """The files of an archive by name, in a tar or in a directory."""

    def __init__(self, source: Path, scratch: Path) -> None:
        self.source = source
        self._members: dict[str, ByteRange] = {}
        if not source.is_dir():
            self._read_tar(_decompressed(source, scratch))

    def file(self, name: str) -> ByteRange:
        """A file of the archive. Raises PreflightError if it is missing."""
        file = self._find(name)
        if file is None:
            raise self.damaged(f"{name} is missing")
        return file

    def has(self, name: str) -> bool:
        """Whether the archive has that file."""
        return self._find(name) is not None

    def blob(self, digest: object) -> ByteRange:
        """A file of an OCI layout by its digest."""
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise self.damaged(f"{str(digest)[:80]!r} is not a sha256 digest")
        return self.file(f"blobs/sha256/{digest.removeprefix('sha256:')}")

    def text(self, piece: ByteRange, digest: str = "") -> bytes:
        """The bytes of a small file, verified against the digest if one is given."""
        if piece.size > _SMALL:
            raise self.damaged(f"a metadata file of {piece.size} bytes")
        content = b"".join(piece.chunks())
        if digest and _sha256(content) != digest:
            raise self.damaged(f"{digest[:19]}… does not match its digest")
        return content

    def json(self, content: bytes) -> Any:
        """Parse a JSON file of the archive."""
        try:
            return untrusted.json_value(content.decode(), max_bytes=_SMALL)
        except ValueError as error:
            raise self.damaged(f"a metadata file cannot be parsed ({error})") from error

    def damaged(self, reason: str) -> PreflightError:
        """The error for an unusable archive."""
        return _damaged(self.source, reason)

    def _find(self, name: str) -> ByteRange | None:
        if not self.source.is_dir():
            return self._members.get(name)
        path = self.source / name
        return ByteRange(path, 0, path.stat().st_size) if path.is_file() else None

    def _read_tar(self, path: Path) -> None:
        links: dict[str, str] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    name = posixpath.normpath(member.name)
                    if member.isreg():
                        self._members[name] = ByteRange(path, member.offset_data, member.size)
                    elif member.issym():
                        links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                    elif member.islnk():
                        links[name] = posixpath.normpath(member.linkname)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise self.damaged(str(error)) from error
        self._members |= {name: self._members[to] for name, to in links.items() if to in self._members}


def read(source: Path, image: Image, scratch: Path, architecture: str) -> SavedImage:
    """The image with that reference in an archive, or the only image; `scratch` is for decompressed files.

    `architecture` selects from a multi-platform image. Raises PreflightError unless every layer is intact.
    """
    archive = _Archive(source, scratch)
    try:
        if archive.has("manifest.json"):
            configuration, files = _docker(archive, image)
        else:
            configuration, files = _oci(archive, image, architecture)
        described = archive.json(configuration)
        digests = described["rootfs"]["diff_ids"]
        if len(digests) != len(files):
            raise archive.damaged(f"{len(files)} layers instead of {len(digests)}")
        layers = tuple(verify_layer(source, digest, file) for digest, file in zip(digests, files, strict=True))
        labels = (described.get("config") or {}).get("Labels") or {}
        manifest = _manifest(configuration, layers)
        return SavedImage(
            Image(image.repository, image.tag, _sha256(manifest), labels.get("org.opencontainers.image.revision", "")),
            _sha256(configuration),
            described.get("architecture", ""),
            manifest,
            configuration,
            layers,
        )
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise archive.damaged(f"a metadata file has an unexpected format ({error!r})") from error


def _docker(archive: _Archive, image: Image) -> tuple[bytes, list[ByteRange]]:
    """Configuration and layers of an archive of `docker save` or `podman save`."""
    entries = archive.json(archive.text(archive.file("manifest.json")))
    named = [(entry.get("RepoTags") or [], entry) for entry in entries]
    entry = _pick(archive, image, named)
    configuration = archive.text(archive.file(posixpath.normpath(entry["Config"])))
    return configuration, [archive.file(posixpath.normpath(name)) for name in entry["Layers"]]


def _oci(archive: _Archive, image: Image, architecture: str) -> tuple[bytes, list[ByteRange]]:
    """Configuration and layers of an OCI layout. Source: the OCI image layout specification."""
    entries = archive.json(archive.text(archive.file("index.json")))["manifests"]
    keys = ("org.opencontainers.image.ref.name", "io.containerd.image.name")
    named = [([(e.get("annotations") or {}).get(key, "") for key in keys], e) for e in entries]
    chosen = _platform(entries, architecture) if len(entries) > 1 and not any(any(n) for n, _ in named) else None
    chosen = chosen or _pick(archive, image, named)
    manifest = archive.json(archive.text(archive.blob(chosen["digest"]), chosen["digest"]))
    if chosen.get("mediaType") in _INDEX_TYPES or "manifests" in manifest:
        chosen = _platform(manifest["manifests"], architecture)
        if chosen is None:
            raise PreflightError(f"{archive.source} has no image for linux/{architecture}. Nothing was touched.")
        manifest = archive.json(archive.text(archive.blob(chosen["digest"]), chosen["digest"]))
    configuration = archive.text(archive.blob(manifest["config"]["digest"]), manifest["config"]["digest"])
    return configuration, [archive.blob(layer["digest"]) for layer in manifest["layers"]]


def _platform(entries: Iterable[Mapping[str, Any]], architecture: str) -> Mapping[str, Any] | None:
    wanted = {"os": "linux", "architecture": architecture}
    for entry in entries:
        if wanted.items() <= (entry.get("platform") or {}).items():
            return entry
    return None


def _pick(archive: _Archive, image: Image, named: list[tuple[list[str], Mapping[str, Any]]]) -> Mapping[str, Any]:
    """The entry with that reference, or the only entry."""
    full = f"{full_name(image.repository)}:{image.tag or 'latest'}"
    wanted = {image.reference, full, f"localhost/{image.reference}"}
    for candidates in (wanted, {image.tag or "latest"}):
        matching = [entry for names, entry in named if candidates & {*names}]
        if len(matching) == 1:
            return matching[0]
    if len(named) == 1:
        return named[0][1]
    listed = ", ".join(sorted({name for names, _ in named for name in names if name})) or "images without a name"
    raise PreflightError(
        f"{archive.source} does not have {image.reference}; it has: {listed}. Nothing was touched.",
        next_step=f"save that image: podman save --output FILE {image.reference}",
    )


def _manifest(configuration: bytes, layers: Iterable[Layer]) -> bytes:
    """The manifest of the image; equal images get equal bytes."""
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": _CONFIG_TYPE, "size": len(configuration), "digest": _sha256(configuration)},
        "layers": [{"mediaType": _LAYER_TYPE, "size": layer.size, "digest": layer.digest} for layer in layers],
    }
    return json.dumps(content, sort_keys=True).encode()


def _decompressed(source: Path, scratch: Path) -> Path:
    """The archive, decompressed into `scratch` if it is compressed as a whole."""
    with source.open("rb") as file:
        if file.read(2) != GZIP:
            return source
    path = scratch / f"{_sha256(str(source).encode())[7:19]}.tar"
    try:
        with gzip.open(source) as packed, path.open("wb") as out:
            shutil.copyfileobj(packed, out, CHUNK)
    except (OSError, EOFError, zlib.error) as error:
        raise PreflightError(f"{source} cannot be unpacked ({error}). Nothing was touched.") from error
    return path


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
CHUNK = 1 << 20


@dataclass(frozen=True)
class ByteRange:
    """A range of bytes in a file."""

    path: Path
    offset: int
    size: int

    def chunks(self) -> Iterator[bytes]:
        """The bytes in order; fewer if the file is cut short."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            remaining = self.size
            while remaining and (chunk := file.read(min(remaining, CHUNK))):
                remaining -= len(chunk)
                yield chunk


@dataclass(frozen=True)
class Layer:
    """One layer: the digest and size of its uncompressed tar, and its bytes, compressed if `gzipped`."""

    digest: str
    size: int
    piece: ByteRange
    gzipped: bool

    def packed(self, directory: Path) -> Layer:
        """The layer as it is sent: an uncompressed one is compressed into a file of `directory`."""
        if self.gzipped:
            return self
        path = directory / f"{self.digest.removeprefix('sha256:')}.gz"
        # Level 4 is half again as fast as the default, and the file is a few per cent larger.
        with gzip.GzipFile(path, "wb", compresslevel=4, mtime=0) as out:
            for chunk in self.piece.chunks():
                out.write(chunk)
        return Layer(self.digest, self.size, ByteRange(path, 0, path.stat().st_size), gzipped=True)


def _damaged(source: Path, reason: str) -> PreflightError:
    return PreflightError(
        f"{source} is damaged or not an image archive: {reason}. Nothing was touched.",
        next_step="save the image again: podman save --output FILE IMAGE",
    )


def verify_layer(source: Path, digest: str, piece: ByteRange) -> Layer:
    """Read a layer of the archive `source` once and compare it with the digest in the image."""
    head = next(ByteRange(piece.path, piece.offset, min(piece.size, 4)).chunks(), b"")
    if head == ZSTD:
        raise PreflightError(
            f"{source} has a layer compressed with zstd, which cannot be pushed. Nothing was touched.",
            next_step="load the image and save it again with podman save, which writes plain layers",
        )
    gzipped = head[:2] == GZIP
    hashed, size = hashlib.sha256(), 0
    try:
        for chunk in _gunzipped(piece.chunks()) if gzipped else piece.chunks():
            hashed.update(chunk)
            size += len(chunk)
    except (zlib.error, EOFError) as error:
        raise _damaged(source, f"layer {digest[:19]}… cannot be unpacked ({error})") from error
    if f"sha256:{hashed.hexdigest()}" != digest:
        raise _damaged(source, f"layer {digest[:19]}… does not match its digest")
    return Layer(digest, size, piece, gzipped)


def _gunzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The content of a gzip stream with one or more members, in bounded pieces. Raises zlib.error or EOFError."""
    unpack = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        rest = chunk
        while rest:
            if unpack.eof:
                unpack = zlib.decompressobj(wbits=31)
            yield unpack.decompress(rest, CHUNK)
            rest = unpack.unconsumed_tail or unpack.unused_data
    yield unpack.flush()
    if not unpack.eof:
        raise EOFError("it is truncated")
