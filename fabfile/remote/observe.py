"""Looking at many hosts at once: one round trip each, bounded in number. It changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from fabfile.commands import journal, podman, state
from fabfile.errors import ConnectionDropped, HostUnreachable, PreflightError
from fabfile.model import Application, HostState, Image, Target
from fabfile.remote.host import Host

OBSERVE_SECONDS = 60.0
RESOLVE_SECONDS = 120.0

T = TypeVar("T")


def on_each(hosts: Sequence[Host], parallel: int, do: Callable[[Host], T]) -> dict[str, T | HostUnreachable]:
    """Do something on every host at the same time; a host that cannot be reached gives its error instead."""

    def one(host: Host) -> T | HostUnreachable:
        try:
            return do(host)
        except HostUnreachable as error:
            return error
        except ConnectionDropped as error:
            return HostUnreachable(error.message, next_step=error.next_step)

    with ThreadPoolExecutor(max_workers=max(1, parallel)) as pool:
        return dict(zip((host.name for host in hosts), pool.map(one, hosts), strict=True))


def observe(host: Host, app: Application, *, ask: bool = True) -> HostState:
    """One look at one host; `ask` asks the application too. Raises HostUnreachable or PreflightError."""
    answer = host.run(state.observe(app, ask=ask), timeout_seconds=OBSERVE_SECONDS)
    return read(app, host.name, answer.output, answer.last_words)


def read(app: Application, name: str, output: str, last_words: str) -> HostState:
    """The observation that a script printed. Raises PreflightError when it is incomplete."""
    try:
        return state.parse(app, name, output)
    except ValueError as error:
        raise PreflightError(f"{error}: {last_words}", next_step=f"log in to {name} and look") from error


def observe_all(hosts: Sequence[Host], targets: Mapping[str, Target], parallel: int) -> dict[str, HostState]:
    """Look at every host. Raises one HostUnreachable that names all that could not be reached."""
    found = observe_reachable(hosts, targets, parallel)
    lost = [error for error in found.values() if isinstance(error, HostUnreachable)]
    if lost:
        raise HostUnreachable("\n".join(str(error) for error in lost))
    return {name: look for name, look in found.items() if isinstance(look, HostState)}


def observe_reachable(
    hosts: Sequence[Host], targets: Mapping[str, Target], parallel: int
) -> dict[str, HostState | HostUnreachable]:
    """Look at every host; one that cannot be reached gives its error."""
    return on_each(hosts, parallel, lambda host: observe(host, targets[host.name].application))


def resolve(host: Host, images: Sequence[Image]) -> dict[str, Image]:
    """Each image with its digest, by reference, asked of the registry by one host, once. Raises PreflightError."""
    answer = host.run(journal.direct(podman.resolve(images)), timeout_seconds=RESOLVE_SECONDS)
    lines = answer.output.splitlines()
    failures = [line.removeprefix("! ") for line in lines if line.startswith("! ")]
    found = {row[0]: row[1:] for line in lines if len(row := line.split(" ")) > 1 and row[1].startswith("sha256:")}
    missing = [image.reference for image in images if image.reference not in found]
    if failures or missing or not answer.ok:
        said = "\n  ".join(failures) or answer.last_words or ", ".join(missing)
        raise PreflightError(
            f"{host.name}: the digest of an image cannot be had; nothing was touched.\n  {said}",
            next_step="check the tag, the registry and the login: skopeo inspect docker://IMAGE on the host",
        )
    return {image.reference: _resolved(image, *found[image.reference]) for image in images}


def prove(host: Host, images: Sequence[Image]) -> None:
    """Ask the registry, by one host, for each image by its digest. Raises PreflightError for those that it has not."""
    answer = host.run(journal.direct(podman.reachable(images)), timeout_seconds=RESOLVE_SECONDS)
    failures = [line.removeprefix("! ") for line in answer.output.splitlines() if line.startswith("! ")]
    if failures or not answer.ok:
        said = "\n  ".join(failures) or answer.last_words
        raise PreflightError(
            f"{host.name}: an image cannot be had from its registry by its digest; nothing was touched.\n  {said}",
            next_step="push it there, by its digest: skopeo copy --all docker://FROM@DIGEST docker://TO:TAG",
        )


def _resolved(image: Image, digest: str, revision: str = "", *_: str) -> Image:
    return replace(image, digest=digest, revision="" if revision.startswith("<") else revision)
