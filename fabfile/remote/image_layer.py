"""One layer of an image, as bytes of a file on the workstation: read, proved, packed. It knows no host."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fabfile.errors import PreflightError

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Piece:
    """Some bytes of a file."""

    path: Path
    offset: int
    size: int

    def chunks(self) -> Iterator[bytes]:
        """The bytes in order; fewer when the file is cut short."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            left = self.size
            while left and (chunk := file.read(min(left, CHUNK))):
                left -= len(chunk)
                yield chunk


@dataclass(frozen=True)
class Layer:
    """One layer: the digest of its plain tar, that tar's size, and where its bytes are, `gzipped` or plain."""

    digest: str
    size: int
    piece: Piece
    gzipped: bool

    def packed(self, folder: Path) -> Layer:
        """The layer as it travels: what is plain is compressed into a file of `folder`."""
        if self.gzipped:
            return self
        path = folder / f"{self.digest.removeprefix('sha256:')}.gz"
        # Faster than the usual level by a half, and larger by a few per cent.
        with gzip.GzipFile(path, "wb", compresslevel=4, mtime=0) as out:
            for chunk in self.piece.chunks():
                out.write(chunk)
        return Layer(self.digest, self.size, Piece(path, 0, path.stat().st_size), gzipped=True)


def damaged(source: Path, why: str) -> PreflightError:
    """The error for an archive that cannot be used."""
    return PreflightError(
        f"{source} is damaged or no image archive: {why}. Nothing was touched.",
        next_step="save the image again: podman save --output FILE IMAGE",
    )


def prove(source: Path, digest: str, piece: Piece) -> Layer:
    """A layer of the archive `source`, read once from end to end and found to be what the image names."""
    head = next(Piece(piece.path, piece.offset, min(piece.size, 4)).chunks(), b"")
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
        raise damaged(source, f"layer {digest[:19]}… cannot be unpacked ({error})") from error
    if f"sha256:{hashed.hexdigest()}" != digest:
        raise damaged(source, f"layer {digest[:19]}… has other content than its digest says")
    return Layer(digest, size, piece, gzipped)


def _gunzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What a gzip stream of one or more members holds, in pieces of bounded size. Raises zlib.error or EOFError."""
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
        raise EOFError("it is cut short")
