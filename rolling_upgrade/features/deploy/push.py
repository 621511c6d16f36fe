"""Images for a deploy without a registry: found and proved on the workstation, compared with what each host has.

It changes no host: the plan's own step does, to which this offers the images.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fabfile.commands import transfer
from fabfile.commands.shell import Script
from fabfile.commands.transfer import Push
from fabfile.errors import ConfigError, HostUnreachable, Mistake, PreflightError
from fabfile.model import Event, Image, Phase
from fabfile.plans.step import Step
from fabfile.remote import image_archive, image_store, observe
from fabfile.remote.execute import Run
from fabfile.remote.fabric_host import FabricHost
from fabfile.remote.host import Host
from fabfile.remote.image_archive import SavedImage
from fabfile.remote.image_layer import Layer
from fabfile.remote.image_server import Offer
from fabfile.workflows.fleet import Fleet

LOOK_SECONDS = 60.0
#: How often a transfer's progress is told.
TOLD_SECONDS = 0.25


@dataclass(frozen=True)
class Pushing:
    """The images of a run by reference, the layers as they travel, and what each host had of them at the start."""

    services: Mapping[str, str]
    saved: Mapping[str, SavedImage]
    layers: Mapping[str, Layer]
    present: Mapping[str, frozenset[str]]
    hosts: Mapping[str, FabricHost]

    @property
    def images(self) -> dict[str, Image]:
        """Every image with its digest, by reference."""
        return {reference: saved.image for reference, saved in self.saved.items()}

    def pushes(self, host: str) -> tuple[Push, ...]:
        """What each image needs sent to the host, in the order of the services."""
        there, found = set(self.present[host]), []
        for reference, saved in self.saved.items():
            lacking = {layer.digest for layer in saved.layers} - there
            size = sum(self.layers[digest].piece.size for digest in lacking)
            service = self.services[reference]
            found.append(Push(service, saved.image, saved.id, len(saved.layers), len(lacking), size))
            there |= lacking
        return tuple(found)

    def offer(self, run: Run) -> Callable[[Host, Step], AbstractContextManager[Script]]:
        """How a step of this run gets at the images: it tells the progress while it sends."""
        by_digest = {saved.image.digest: saved for saved in self.saved.values()}

        @contextmanager
        def offer(host: Host, step: Step) -> Iterator[Script]:
            lacking = frozenset(self.layers) - self.present[host.name]
            offered = Offer(by_digest, self.layers, _telling(host.name, step, run), lacking)
            total = sum(push.bytes for push in step.pushes)
            with self.hosts[host.name].offer(offered) as prologue:
                yield prologue
            title = f"{offered.sent / 1e6:.1f} MB pushed"
            run.tell(Event(run.clock(), Phase.NOTE, title, host.name, step.id, sent=offered.sent, total=total))

        return offer


def _telling(host: str, step: Step, run: Run) -> Callable[[int], None]:
    """Tell how far a step is, a few times a second and at its end."""
    began = told = run.clock()
    total = sum(push.bytes for push in step.pushes)

    def tell(sent: int) -> None:
        nonlocal told
        now = run.clock()
        if now - told >= TOLD_SECONDS or sent == total:
            told = now
            run.tell(Event(now, Phase.PROGRESS, step.title, host, step.id, now - began, sent=sent, total=total))

    return tell


@contextmanager
def prepared(fleet: Fleet, sources: Mapping[str, Path], tell: Callable[[str], None]) -> Iterator[Pushing]:
    """Find, prove and pack the images while the block runs; `sources` names an archive per service.

    Raises ConfigError for a source that cannot be meant, PreflightError for an image or a host that is not fit.
    """
    images = _wanted(fleet)
    _check(images, sources)
    looks = _look(fleet)
    architecture = _one_architecture({name: look[0] for name, look in looks.items()})
    with tempfile.TemporaryDirectory(prefix="rolling-images-") as made:
        folder = Path(made)
        saved = {}
        for service, image in images.items():
            if image.reference in saved:
                continue
            tell(f"{service}: reading {image.reference} from {sources.get(service, 'this workstation')}")
            source = sources.get(service) or image_store.save(service, image, folder)
            saved[image.reference] = _fit(image_archive.read(source, image, folder, architecture), architecture)
        present = {name: look[1] for name, look in looks.items()}
        layers = _packed(saved.values(), present.values(), folder)
        services = {image.reference: service for service, image in reversed(images.items())}
        yield Pushing(services, saved, layers, present, {host.name: host for host in fleet.hosts})


def _wanted(fleet: Fleet) -> dict[str, Image]:
    """The images by service. Raises ConfigError for one that only a registry can give."""
    services = [service for target in fleet.environment.targets for service in target.application.services]
    mistakes = [
        Mistake(service.name, "image", service.image.pinned, "a tag: a digest can only be had from a registry")
        for service in services
        if service.image.digest
    ]
    if mistakes:
        raise ConfigError("An image cannot be pushed; nothing was touched.", list(dict.fromkeys(mistakes)))
    return {service.name: service.image for service in services}


def _check(images: Mapping[str, Image], sources: Mapping[str, Path]) -> None:
    mistakes = [
        Mistake("command line", "--image", repr(name), f"SERVICE=PATH with a service of: {', '.join(images)}")
        for name in sources
        if name not in images
    ]
    mistakes += [
        Mistake("command line", "--image", f"{name}={path}: nothing there", "an image archive or an OCI layout")
        for name, path in sources.items()
        if not path.exists()
    ]
    if mistakes:
        raise ConfigError("The command line has a mistake; nothing was touched.", mistakes)


def _look(fleet: Fleet) -> dict[str, tuple[str, frozenset[str]]]:
    """Each host's architecture and layers, having proved that it lets the workstation offer images."""
    hosts = {host.name: host for host in fleet.hosts}

    def look(host: Host) -> tuple[str, frozenset[str]]:
        with hosts[host.name].offer(Offer({}, {}, lambda _: None)):
            answer = host.run(transfer.look(), timeout_seconds=LOOK_SECONDS)
        if not answer.ok:
            raise PreflightError(f"{host.name}: its images cannot be listed.\n{answer.last_words}")
        return transfer.parse(answer.output)

    found = observe.on_each(fleet.hosts, fleet.environment.rollout.parallel, look)
    lost = [look for look in found.values() if isinstance(look, HostUnreachable)]
    if lost:
        raise HostUnreachable("\n".join(str(error) for error in lost))
    return {name: look for name, look in found.items() if not isinstance(look, HostUnreachable)}


def _one_architecture(found: Mapping[str, str]) -> str:
    kinds = sorted(set(found.values()))
    if len(kinds) > 1:
        listed = ", ".join(f"{name} {kind}" for name, kind in found.items())
        raise PreflightError(
            f"the hosts have more than one architecture ({listed}); nothing was touched.",
            next_step="push to each kind by itself: --hosts",
        )
    return kinds[0]


def _fit(saved: SavedImage, architecture: str) -> SavedImage:
    if saved.architecture not in {"", architecture}:
        raise PreflightError(
            f"{saved.image.reference} is built for {saved.architecture}, the hosts are {architecture}. "
            "Nothing was touched.",
            next_step=f"build it with --platform linux/{architecture}",
        )
    return saved


def _packed(saved: Iterable[SavedImage], present: Iterable[frozenset[str]], folder: Path) -> dict[str, Layer]:
    """Every layer in order; those that some host lacks as they travel."""
    layers = {layer.digest: layer for image in saved for layer in image.layers}
    everywhere = frozenset.intersection(*present)
    lacking = [layer for digest, layer in layers.items() if digest not in everywhere]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        packed = {layer.digest: layer for layer in pool.map(lambda layer: layer.packed(folder), lacking)}
    return {digest: packed.get(digest, layer) for digest, layer in layers.items()}
