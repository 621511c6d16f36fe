"""Observe many hosts at once, with one round trip and one error per host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from threading import Event
from typing import TypeVar

from rolling_upgrade.engine import observation, podman, stage
from rolling_upgrade.engine.host import Cancelled, Host, given_up
from rolling_upgrade.engine.model import Application, HostState, Image, Target
from rolling_upgrade.engine.parallel import at_once
from rolling_upgrade.engine.untrusted import Malformed
from rolling_upgrade.errors import ConnectionDropped, HostUnreachable, PreflightError, RollingError, unexpected

OBSERVE_SECONDS = 60.0
RESOLVE_SECONDS = 120.0

T = TypeVar("T")


def on_each(
    hosts: Sequence[Host], parallel: int, do: Callable[[Host], T], *, finish: bool = False
) -> dict[str, T | HostUnreachable]:
    """Call `do` for every host at once. A host that is unreachable or answers nonsense gets its error as the result.

    Ctrl-C ends the calls at once. With `finish`, for calls that change hosts, the first Ctrl-C waits for those that
    began.
    """
    ended = Event()

    def one(host: Host) -> T | HostUnreachable:
        given_up.set(ended)
        try:
            return do(host)
        except HostUnreachable as error:
            return error
        except ConnectionDropped as error:
            return HostUnreachable(error.message, next_step=error.next_step)
        except Malformed as error:
            return _senseless(host.name, f"{host.name}: its answer makes no sense: {error}")
        except (Cancelled, RollingError):
            raise
        except Exception as error:  # noqa: BLE001 - the border between one host and the others
            return unexpected(host.name, error, HostUnreachable, next_step=f"--hosts leaves {host.name} out")

    results = at_once([partial(one, host) for host in hosts], parallel, ended, finish=finish)
    return dict(zip((host.name for host in hosts), results, strict=True))


def _senseless(host: str, message: str) -> HostUnreachable:
    return HostUnreachable(message, next_step=f"log in to {host} and look; --hosts leaves it out")


def observe(host: Host, app: Application, *, ask: bool = True) -> HostState:
    """Observe one host; `ask` probes the application too. Raises HostUnreachable, also for an incomplete answer."""
    answer = host.run(observation.observe(app, ask=ask), timeout_seconds=OBSERVE_SECONDS)
    try:
        return observation.parse(app, host.name, answer.output)
    except Malformed as error:
        raise _senseless(host.name, f"{host.name}: {error}: {answer.output_tail}") from error


def read(app: Application, name: str, output: str, output_tail: str) -> HostState:
    """Parse the observation in the output of a script. Raises PreflightError if it is incomplete."""
    try:
        return observation.parse(app, name, output)
    except Malformed as error:
        raise PreflightError(f"{name}: {error}: {output_tail}", next_step=f"log in to {name} and look") from error


def observe_all(hosts: Sequence[Host], targets: Mapping[str, Target], parallel: int) -> dict[str, HostState]:
    """Observe every host. Raises one HostUnreachable that names all unreachable hosts."""
    found = observe_reachable(hosts, targets, parallel)
    lost = [error for error in found.values() if isinstance(error, HostUnreachable)]
    if lost:
        raise HostUnreachable("\n".join(str(error) for error in lost))
    return {name: look for name, look in found.items() if isinstance(look, HostState)}


def observe_reachable(
    hosts: Sequence[Host], targets: Mapping[str, Target], parallel: int
) -> dict[str, HostState | HostUnreachable]:
    """Observe every host; an unreachable one gets its error as the result."""
    return on_each(hosts, parallel, lambda host: observe(host, targets[host.name].application))


def resolve(host: Host, images: Sequence[Image]) -> dict[str, Image]:
    """Resolve the digest of each image on one host; the result is keyed by `Image.exact`. Raises PreflightError."""
    answer = host.run(stage.direct(podman.resolve(images)), timeout_seconds=RESOLVE_SECONDS)
    lines = answer.output.splitlines()
    failures = [line.removeprefix("! ") for line in lines if line.startswith("! ")]
    rows = {row[0]: row[1:] for line in lines if len(row := line.split(" ")) > 1 and row[1].startswith("sha256:")}
    found = {image.exact: resolved(image, *rows[image.exact]) for image in images if image.exact in rows}
    failures += [
        f"{image.exact}: the answer is {found[image.exact].digest}"
        for image in images
        if image.digest and image.exact in found and found[image.exact].digest != image.digest
    ]
    missing = [image.exact for image in images if image.exact not in found]
    if failures or missing or not answer.ok:
        said = "\n  ".join(failures) or answer.output_tail or ", ".join(missing)
        raise PreflightError(
            f"{host.name}: an image could not be resolved to a digest; nothing was touched.\n  {said}",
            next_step="check the tag, the registry and the login: skopeo inspect docker://IMAGE on the host; where "
            "another registry has the digest: skopeo copy --all docker://FROM@DIGEST docker://TO:TAG",
        )
    return found


def resolved(image: Image, digest: str, revision: str = "", *_: str) -> Image:
    """The image with the digest and revision from its registry."""
    return replace(image, digest=digest, revision="" if revision.startswith("<") else revision)
