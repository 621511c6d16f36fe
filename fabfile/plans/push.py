"""The step that brings images from the workstation to one host. Pure."""

from __future__ import annotations

from fabfile.commands import transfer
from fabfile.commands.transfer import Push
from fabfile.model import Application
from fabfile.plans.step import Step

#: How long the transfer may take: a first image over a slow line.
PUSH_SECONDS = 3600


def push(app: Application, release: str, pushes: tuple[Push, ...]) -> Step:
    """Fetch what the host lacks of each image from the workstation and prove each image's id."""
    said = ", ".join(
        f"{one.service} {one.image.tag or 'latest'} ({one.lacking} of {one.layers} layers, {_size(one.bytes)})"
        for one in pushes
    )
    script = transfer.fetch(pushes, f"{app.home}/journal/{release}/images")
    return Step("push", f"push {said}", script, PUSH_SECONDS, pushes=pushes)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
