"""Images for a deploy without a registry: found and proved on the workstation, compared with what each host has.

It changes no host: the plan's own step does, to which this offers the images.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rolling_upgrade.engine import image_archive, process_environment, transfer
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.image_archive import Layer, SavedImage
from rolling_upgrade.engine.model import Event, Image, Phase
from rolling_upgrade.engine.plan import Step
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.engine.transfer import Push
from rolling_upgrade.errors import ConfigError, ConfigIssue, PreflightError, usage_error
from rolling_upgrade.ssh.fabric_host import FabricHost
from rolling_upgrade.ssh.fleet import Fleet
from rolling_upgrade.ssh.image_server import Offer

LOOK_SECONDS = 60.0
#: The interval of progress reports.
TOLD_SECONDS = 0.25


@dataclass(frozen=True)
class Pushing:
    """The images of a run by reference, their layers as sent, and the layers that each host had at the start."""

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
        """The layers that the host lacks of each image, in the order of the services."""
        there, found = set(self.present[host]), []
        for reference, saved in self.saved.items():
            lacking = {layer.digest for layer in saved.layers} - there
            size = sum(self.layers[digest].piece.size for digest in lacking)
            service = self.services[reference]
            found.append(Push(service, saved.image, saved.id, len(saved.layers), len(lacking), size))
            there |= lacking
        return tuple(found)

    def offer(self, context: RunContext) -> Callable[[Host, Step], AbstractContextManager[Script]]:
        """Serve the images of a step to its host, reporting progress."""
        by_digest = {saved.image.digest: saved for saved in self.saved.values()}

        @contextmanager
        def offer(host: Host, step: Step) -> Iterator[Script]:
            lacking = frozenset(self.layers) - self.present[host.name]
            offered = Offer(by_digest, self.layers, _telling(host.name, step, context), lacking)
            total = sum(push.bytes for push in step.pushes)
            with self.hosts[host.name].offer(offered) as prologue:
                yield prologue
            title = f"{offered.sent / 1e6:.1f} MB pushed"
            context.on_event(
                Event(context.clock(), Phase.NOTE, title, host.name, step.id, sent=offered.sent, total=total)
            )

        return offer


def _telling(host: str, step: Step, context: RunContext) -> Callable[[int], None]:
    """Report the progress of a step a few times a second and at its end."""
    began = told = context.clock()
    total = sum(push.bytes for push in step.pushes)

    def tell(sent: int) -> None:
        nonlocal told
        now = context.clock()
        if now - told >= TOLD_SECONDS or sent == total:
            told = now
            context.on_event(Event(now, Phase.PROGRESS, step.title, host, step.id, now - began, sent=sent, total=total))

    return tell


@contextmanager
def prepared(fleet: Fleet, sources: Mapping[str, Path], tell: Callable[[str], None]) -> Iterator[Pushing]:
    """Find, verify and compress the images, for as long as the context is open.

    Args:
        sources: an archive for each of some services.

    Raises:
        ConfigError: a source is not usable.
        PreflightError: an image or a host does not fit.
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
            source = sources.get(service) or save(service, image, folder)
            saved[image.reference] = _fit(image_archive.read(source, image, folder, architecture), architecture)
        present = {name: look[1] for name, look in looks.items()}
        layers = _packed(saved.values(), present.values(), folder)
        services = {image.reference: service for service, image in reversed(images.items())}
        yield Pushing(services, saved, layers, present, {host.name: host for host in fleet.hosts})


def _wanted(fleet: Fleet) -> dict[str, Image]:
    """The images by service. Raises ConfigError for one that only a registry can provide."""
    services = [service for target in fleet.environment.targets for service in target.application.services]
    issues = [
        ConfigIssue(service.name, "image", service.image.pinned, "a tag: a digest can only be had from a registry")
        for service in services
        if service.image.digest
    ]
    if issues:
        raise ConfigError("An image cannot be pushed; nothing was touched.", list(dict.fromkeys(issues)))
    return {service.name: service.image for service in services}


def _check(images: Mapping[str, Image], sources: Mapping[str, Path]) -> None:
    issues = [
        ("--image", repr(name), f"SERVICE=PATH with a service of: {', '.join(images)}")
        for name in sources
        if name not in images
    ]
    issues += [
        ("--image", f"{name}={path}: nothing there", "an image archive or an OCI layout")
        for name, path in sources.items()
        if not path.exists()
    ]
    if issues:
        raise usage_error(*issues, nothing="touched")


def _look(fleet: Fleet) -> dict[str, tuple[str, frozenset[str]]]:
    """The architecture and layers of each host, after a check that it lets the workstation serve images."""
    hosts = {host.name: host for host in fleet.hosts}

    def look(host: Host) -> tuple[str, frozenset[str]]:
        with hosts[host.name].offer(Offer({}, {}, lambda _: None)):
            answer = host.run(transfer.read_layers(), timeout_seconds=LOOK_SECONDS)
        if not answer.ok:
            raise PreflightError(f"{host.name}: its images cannot be listed.\n{answer.output_tail}")
        return transfer.parse(answer.output)

    return fleet.on_all(look)


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
    """Every layer in order; those that some host lacks in compressed form."""
    layers = {layer.digest: layer for image in saved for layer in image.layers}
    everywhere = frozenset.intersection(*present)
    lacking = [layer for digest, layer in layers.items() if digest not in everywhere]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        packed = {layer.digest: layer for layer in pool.map(lambda layer: layer.packed(folder), lacking)}
    return {digest: packed.get(digest, layer) for digest, layer in layers.items()}


#: Tried in this order. Both save the archive format that keeps the image's id.
TOOLS = ("podman", "docker")
_LOOK_SECONDS = 60
_SAVE_SECONDS = 1800


def save(service: str, image: Image, folder: Path) -> Path:
    """Save the image into a new file in `folder`. Raises PreflightError if no tool has it, or saving fails."""
    path = folder / f"{service}.tar"
    asked = [tool for tool in TOOLS if shutil.which(tool)]
    reasons = []
    for tool in asked:
        found = _run(tool, "image", "inspect", "--format", "{{.Id}}", image.reference, seconds=_LOOK_SECONDS)
        if found.returncode != 0:
            reasons.append(f"{tool}: {_last_line(found)}")
            continue
        form = ["--format", "docker-archive"] if tool == "podman" else []
        saved = _run(tool, "save", *form, "--output", str(path), image.reference, seconds=_SAVE_SECONDS)
        if saved.returncode == 0:
            return path
        reasons.append(f"{tool} save: {_last_line(saved)}")
    why = "; ".join(reasons) or f"neither {' nor '.join(TOOLS)} is installed"
    raise PreflightError(
        f"{service}: {image.reference} is not on this workstation ({why}). Nothing was touched.",
        next_step=f"build or pull it here, or name its archive: --image {service}=FILE",
    )


def _run(*words: str, seconds: float) -> subprocess.CompletedProcess[str]:
    environment = process_environment.for_engine(os.environ)
    try:
        return subprocess.run(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(words, 1, "", str(error))


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()[-1][:300]
