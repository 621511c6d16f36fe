"""Serve images from this workstation for a deploy without a registry: find, verify and compress them.

The push step of the plan makes the host fetch the layers that it lacks.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rolling_upgrade.engine import image_archive, image_push, local_command
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.image_archive import Layer, SavedImage
from rolling_upgrade.engine.image_push import Push
from rolling_upgrade.engine.local_command import CommandResult
from rolling_upgrade.engine.model import Application, Event, Image, Phase
from rolling_upgrade.engine.plan import Step
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import ConfigError, ConfigIssue, PreflightError, usage_error
from rolling_upgrade.ssh.fabric_host import FabricHost
from rolling_upgrade.ssh.fleet import Fleet
from rolling_upgrade.ssh.image_server import Offer

QUERY_SECONDS = 60.0
SAVE_SECONDS = 1800
#: The interval of progress reports.
PROGRESS_SECONDS = 0.25
#: Tried in this order. Both save the archive format that keeps the image's id.
TOOLS = ("podman", "docker")


@dataclass(frozen=True)
class LocalImages:
    """The images of a run on this workstation.

    Attributes:
        services: one service that uses each image, by reference.
        saved: the images by reference.
        layers: the layers in the form that a host gets, by digest.
        present: the digests of the layers that each host had at the start.
        hosts: the connected hosts by name.
    """

    services: Mapping[str, str]
    saved: Mapping[str, SavedImage]
    layers: Mapping[str, Layer]
    present: Mapping[str, frozenset[str]]
    hosts: Mapping[str, FabricHost]

    @property
    def images(self) -> dict[str, Image]:
        """Every image with its digest, by reference."""
        return {reference: saved.image for reference, saved in self.saved.items()}

    def pushes(self, host: str, app: Application) -> tuple[Push, ...]:
        """Return the layers that the host lacks of each image of its application, in the order of the services."""
        present, pushes = set(self.present[host]), []
        needed = {service.image.reference for service in app.services}
        for reference, saved in ((name, saved) for name, saved in self.saved.items() if name in needed):
            lacking = {layer.digest for layer in saved.layers} - present
            size = sum(self.layers[digest].piece.size for digest in lacking)
            service = self.services[reference]
            pushes.append(Push(service, saved.image, saved.id, len(saved.layers), len(lacking), size))
            present |= lacking
        return tuple(pushes)

    def offer(self, context: RunContext) -> Callable[[Host, Step], AbstractContextManager[Script]]:
        """Return a function that serves the images of a step to its host and reports the progress."""
        by_digest = {saved.image.digest: saved for saved in self.saved.values()}

        @contextmanager
        def offer(host: Host, step: Step) -> Iterator[Script]:
            lacking = frozenset(self.layers) - self.present[host.name]
            offered = Offer(by_digest, self.layers, _progress_reporter(host.name, step, context), lacking)
            total = sum(push.bytes for push in step.pushes)
            with self.hosts[host.name].offer(offered) as prologue:
                yield prologue
            title = f"{offered.sent / 1e6:.1f} MB pushed"
            context.on_event(
                Event(context.clock(), Phase.NOTE, title, host.name, step.id, sent=offered.sent, total=total)
            )

        return offer


def _progress_reporter(host: str, step: Step, context: RunContext) -> Callable[[int], None]:
    """Return a function that reports the progress of a step at most once per interval, and at the end."""
    started_at = reported_at = context.clock()
    total = sum(push.bytes for push in step.pushes)

    def report(sent: int) -> None:
        nonlocal reported_at
        now = context.clock()
        if now - reported_at >= PROGRESS_SECONDS or sent == total:
            reported_at = now
            seconds = now - started_at
            context.on_event(Event(now, Phase.PROGRESS, step.title, host, step.id, seconds, sent=sent, total=total))

    return report


@contextmanager
def prepared(fleet: Fleet, archives: Mapping[str, Path], log: Callable[[str], None]) -> Iterator[LocalImages]:
    """Find, verify and compress the images, and keep them while the context is open.

    Args:
        archives: the image archives that the operator named, by service.
        log: receives a line for each image.

    Raises:
        ConfigError: an archive is not usable.
        PreflightError: an image or a host does not fit.
    """
    images = _images_by_service(fleet)
    _check_archives(images, archives)
    stores = _query_stores(fleet)
    architecture = _common_architecture({name: store[0] for name, store in stores.items()})
    present = {name: store[1] for name, store in stores.items()}
    with tempfile.TemporaryDirectory(prefix="rolling-images-") as temporary:
        directory = Path(temporary)
        saved: dict[str, SavedImage] = {}
        for service, image in images.items():
            if image.reference in saved:
                continue
            log(f"{service}: reading {image.reference} from {archives.get(service, 'this workstation')}")
            archive = archives.get(service) or save(service, image, directory)
            saved[image.reference] = image_archive.read(archive, image, directory, architecture)
            _check_architecture(saved[image.reference], architecture)
        layers = _compressed(saved.values(), present.values(), directory)
        services = {image.reference: service for service, image in reversed(images.items())}
        yield LocalImages(services, saved, layers, present, {host.name: host for host in fleet.hosts})


def _images_by_service(fleet: Fleet) -> dict[str, Image]:
    """Return the images by service. Raises ConfigError for an image with a digest, which only a registry has."""
    services = [service for target in fleet.environment.targets for service in target.application.services]
    issues = [
        ConfigIssue(service.name, "image", service.image.pinned, "a tag: only a registry has an image by its digest")
        for service in services
        if service.image.digest
    ]
    if issues:
        raise ConfigError("An image cannot be pushed; nothing was touched.", list(dict.fromkeys(issues)))
    return {service.name: service.image for service in services}


def _check_archives(images: Mapping[str, Image], archives: Mapping[str, Path]) -> None:
    issues = [
        ("--image", repr(name), f"SERVICE=PATH with a service of: {', '.join(images)}")
        for name in archives
        if name not in images
    ]
    issues += [
        ("--image", f"{name}={path}: no such file", "an image archive or an OCI layout")
        for name, path in archives.items()
        if not path.exists()
    ]
    if issues:
        raise usage_error(*issues, nothing="touched")


def _query_stores(fleet: Fleet) -> dict[str, tuple[str, frozenset[str]]]:
    """Return the architecture and layers of each host; check that each lets the workstation serve images."""
    hosts = {host.name: host for host in fleet.hosts}

    def query(host: Host) -> tuple[str, frozenset[str]]:
        with hosts[host.name].offer(Offer({}, {}, lambda _: None)):
            answer = host.run(image_push.read_layers(), timeout_seconds=QUERY_SECONDS)
        if not answer.ok:
            raise PreflightError(f"{host.name}: its images cannot be listed.\n{answer.output_tail}")
        return image_push.parse(answer.output)

    return fleet.on_all(query)


def _common_architecture(by_host: Mapping[str, str]) -> str:
    architectures = sorted(set(by_host.values()))
    if len(architectures) > 1:
        listed = ", ".join(f"{name} {architecture}" for name, architecture in by_host.items())
        raise PreflightError(
            f"the hosts have more than one architecture ({listed}); nothing was touched.",
            next_step="push to the hosts of one architecture at a time: --hosts",
        )
    return architectures[0]


def _check_architecture(saved: SavedImage, architecture: str) -> None:
    if saved.architecture not in {"", architecture}:
        raise PreflightError(
            f"{saved.image.reference} is built for {saved.architecture}, the hosts are {architecture}. "
            "Nothing was touched.",
            next_step=f"build it with --platform linux/{architecture}",
        )


def _compressed(saved: Iterable[SavedImage], present: Iterable[frozenset[str]], directory: Path) -> dict[str, Layer]:
    """Return every layer in order, compressed if a host lacks it."""
    layers = {layer.digest: layer for image in saved for layer in image.layers}
    everywhere = frozenset.intersection(*present)
    lacking = [layer for digest, layer in layers.items() if digest not in everywhere]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compressed = {layer.digest: layer for layer in pool.map(lambda layer: layer.packed(directory), lacking)}
    return {digest: compressed.get(digest, layer) for digest, layer in layers.items()}


def save(service: str, image: Image, directory: Path) -> Path:
    """Save the image into a new file in the directory. Raises PreflightError if no tool has it or can save it."""
    path = directory / f"{service}.tar"
    reasons = []
    for tool in filter(shutil.which, TOOLS):
        inspected = _run(tool, "image", "inspect", "--format", "{{.Id}}", image.reference, seconds=QUERY_SECONDS)
        if not inspected.ok:
            reasons.append(f"{tool}: {_reason(inspected)}")
            continue
        archive_format = ["--format", "docker-archive"] if tool == "podman" else []
        saved = _run(tool, "save", *archive_format, "--output", str(path), image.reference, seconds=SAVE_SECONDS)
        if saved.ok:
            return path
        reasons.append(f"{tool} save: {_reason(saved)}")
    reason = "; ".join(reasons) or f"neither {' nor '.join(TOOLS)} is installed"
    raise PreflightError(
        f"{service}: {image.reference} is not on this workstation ({reason}). Nothing was touched.",
        next_step=f"build or pull it here, or name its archive: --image {service}=FILE",
    )


def _run(*argv: str, seconds: float) -> CommandResult:
    base = local_command.engine_environment(os.environ)
    return local_command.capture(argv, timeout_seconds=seconds, base=base)


def _reason(ended: CommandResult) -> str:
    if ended.timed_out:
        return f"stopped after {ended.seconds:.0f} s"
    return (ended.output_tail.strip() or "no output").splitlines()[-1][:300]
