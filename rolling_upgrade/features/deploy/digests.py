"""Resolve tags to digests at their registries: from the workstation, else from two hosts that must agree.

The answer of a host depends on the registries.conf of its deploy user. So one host decides for the others only if no
second host can query a registry.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Thread

from rolling_upgrade.engine import local_command, podman
from rolling_upgrade.engine.host import Answer, Cancelled, Host
from rolling_upgrade.engine.model import HostState, Image
from rolling_upgrade.engine.shell import direct
from rolling_upgrade.engine.untrusted import Malformed
from rolling_upgrade.errors import PreflightError, RollingError
from rolling_upgrade.ssh.fleet import Fleet

#: The time limit for a registry that may be unreachable from here.
LOCAL_SECONDS = 10.0
#: The time limit for a host that queries its registries.
HOST_SECONDS = 120.0
#: The definite refusal of a registry; no answer of a host overrides it. Source: OCI distribution spec, error codes.
_UNKNOWN = re.compile(r"manifest unknown|MANIFEST_UNKNOWN|NAME_UNKNOWN|repository name not known")
#: The number of hosts to query if the workstation cannot.
WITNESSES = 2

#: The answers by host: each image with its digest, keyed by `Image.exact`.
Answers = Mapping[str, Mapping[str, Image]]


@dataclass(frozen=True)
class Resolved:
    """Images with their digests, keyed by `Image.exact`, and lines of the plan that name the source of the digests."""

    images: Mapping[str, Image]
    notes: tuple[str, ...] = ()


class EarlyAnswers:
    """Lets the first hosts query their registries while they are observed, which saves their round trips.

    Without images, it asks no host.
    """

    def __init__(self, hosts: Sequence[Host], images: Sequence[Image]) -> None:
        self._images = {image.exact: image for image in images}
        self._asked = {host.name for host in hosts[:WITNESSES]} if images else set()
        self._answers: dict[str, Future[Answer]] = {}

    def ask(self, host: Host) -> None:
        """Ask a connected host in a thread, if it is one of the first."""
        if host.name in self._asked:
            answer: Future[Answer] = Future()
            self._answers[host.name] = answer
            Thread(target=_answer, args=(answer, host, list(self._images.values())), daemon=True).start()

    def of(self, host: Host, images: Sequence[Image]) -> Answer | None:
        """Wait for the answer of a host; None if it was not asked for exactly these images, or did not answer."""
        answer = self._answers.get(host.name)
        if answer is None or self._images.keys() != {image.exact for image in images}:
            return None
        try:
            return answer.result()
        except (RollingError, Cancelled):
            return None


def _answer(answer: Future[Answer], host: Host, images: Sequence[Image]) -> None:
    try:
        answer.set_result(_ask_host(host, images))
    except BaseException as error:  # noqa: BLE001 - raised again where the answer is needed
        answer.set_exception(error)


def resolve(
    fleet: Fleet, states: Mapping[str, HostState], images: Sequence[Image], early: EarlyAnswers | None = None
) -> Resolved:
    """Resolve each image at its registry; an image with a digest must exist there.

    `early` has answers of hosts, which are used if the workstation cannot ask. Raises PreflightError if no machine can
    query a registry, a registry refuses, or two hosts disagree.
    """
    requested = {image.exact: image for image in images}
    if not requested:
        return Resolved({})
    resolved = _from_here(list(requested.values()))
    notes = ["digests: resolved by this workstation"] if resolved else []
    missing = [image for name, image in requested.items() if name not in resolved]
    if missing:
        from_hosts = _from_hosts(fleet, states, missing, early)
        resolved |= from_hosts.images
        notes += from_hosts.notes
    return Resolved(resolved, tuple(notes))


def can_ask_here() -> bool:
    """Whether the workstation has skopeo, which queries a registry."""
    return shutil.which("skopeo") is not None


def _from_here(images: Sequence[Image]) -> dict[str, Image]:
    """Query the registries with the workstation's skopeo and the operator's login; omit images without an answer.

    Raises PreflightError if a registry answers that it does not have an image.
    """
    if not can_ask_here():
        return {}
    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = zip(images, pool.map(_ask_here, images), strict=True)
        return {image.exact: answer for image, answer in answers if answer is not None}


def _ask_here(image: Image) -> Image | None:
    ended = local_command.capture(podman.ask_registry(image, "--override-os", "linux"), timeout_seconds=LOCAL_SECONDS)
    if not ended.ok and _UNKNOWN.search(ended.output_tail):
        raise PreflightError(
            f"the registry has no {image.exact}, asked from this workstation; nothing was touched.",
            next_step=f"check the tag, or push the image: skopeo inspect docker://{image.exact}",
        )
    try:
        digest, revision = podman.registry_answer(ended.output)
    except Malformed:
        return None
    if not ended.ok or image.digest not in {"", digest}:
        return None
    return _with_digest(image, digest, revision)


def _from_hosts(
    fleet: Fleet, states: Mapping[str, HostState], images: Sequence[Image], early: EarlyAnswers | None
) -> Resolved:
    capable = [host for host in fleet.hosts if states[host.name].fact("has_skopeo") == "yes"]
    if not capable:
        raise PreflightError(
            "neither this workstation nor any host can query a registry: skopeo is missing.",
            next_step="apt-get install skopeo here or on a host, or name images by digest",
        )
    answers = fleet.on_all(
        lambda host: resolve_on_host(host, images, early.of(host, images) if early else None), hosts=capable[:WITNESSES]
    )
    if lines := disagreements(answers):
        listed = "\n  ".join(lines)
        raise PreflightError(
            f"hosts disagree about the digest of an image; nothing was touched.\n  {listed}",
            next_step="run the same command again if the tag has just moved; else compare, on both hosts, "
            "/etc/containers/registries.conf and ~/.config/containers/registries.conf of the deploy user",
        )
    note = f"digests: {' and '.join(answers)} agree"
    if len(answers) == 1:
        others = "no other host can query a registry" if len(capable) < WITNESSES else "no other host was asked"
        note = f"digests: resolved by {next(iter(answers))} alone; {others}"
    return Resolved(dict(next(iter(answers.values()))), (note,))


def _ask_host(host: Host, images: Sequence[Image]) -> Answer:
    return host.run(direct(podman.resolve(images)), timeout_seconds=HOST_SECONDS)


def resolve_on_host(host: Host, images: Sequence[Image], answer: Answer | None = None) -> dict[str, Image]:
    """Resolve the digest of each image on one host, or from its early answer.

    The result is keyed by `Image.exact`. Raises PreflightError.
    """
    answer = answer or _ask_host(host, images)
    lines = answer.output.splitlines()
    failures = [line.removeprefix("! ") for line in lines if line.startswith("! ")]
    rows = {row[0]: row[1:] for line in lines if len(row := line.split(" ")) > 1 and row[1].startswith("sha256:")}
    resolved = {image.exact: _with_digest(image, *rows[image.exact]) for image in images if image.exact in rows}
    failures += [
        f"{image.exact}: the registry returned {resolved[image.exact].digest}"
        for image in images
        if image.digest and image.exact in resolved and resolved[image.exact].digest != image.digest
    ]
    missing = [image.exact for image in images if image.exact not in resolved]
    if failures or missing or not answer.ok:
        problem = "\n  ".join(failures) or answer.output_tail or ", ".join(missing)
        raise PreflightError(
            f"{host.name}: an image could not be resolved to a digest; nothing was touched.\n  {problem}",
            next_step="check the tag, the registry and the login: skopeo inspect docker://IMAGE on the host; where "
            "another registry has the digest: skopeo copy --all docker://FROM@DIGEST docker://TO:TAG",
        )
    return resolved


def _with_digest(image: Image, digest: str, revision: str = "", *_: str) -> Image:
    """Return the image with the digest and revision from its registry."""
    return replace(image, digest=digest, revision="" if revision.startswith("<") else revision)


def disagreements(answers: Answers) -> tuple[str, ...]:
    """Return a line for each image to which two hosts give different digests."""
    names = dict.fromkeys(name for answer in answers.values() for name in answer)
    lines = []
    for name in names:
        digests = {host: answer[name].digest for host, answer in answers.items() if name in answer}
        if len(set(digests.values())) > 1:
            each = ", ".join(f"{host} says {digest}" for host, digest in digests.items())
            lines.append(f"{name}: {each}")
    return tuple(lines)


def compare_with_source(
    fleet: Fleet,
    states: Mapping[str, HostState],
    source: str,
    images: Mapping[str, Image],
    confirmed: Collection[str],
) -> tuple[str, ...]:
    """Compare the images of a promotion's source environment with the tags in its registry; return lines for the plan.

    The hosts of the source recorded the tags. Each line has the result for one service, or why it has no comparison
    (no recorded tag, no answer). Raises PreflightError if no machine can query the registry or it lacks a digest.

    Args:
        source: the name of the source environment.
        images: the image of each service in the source's own repository.
        confirmed: the images, by `Image.exact`, that a registry has confirmed already.
    """
    notes = []
    for service, image in images.items():
        if image.exact not in confirmed:
            resolve(fleet, states, [image])
        if not image.tag:
            notes.append(f"{service}: {source} recorded no tag for {image.digest}, so it cannot be compared")
            continue
        tag = replace(image, digest="")
        try:
            now = resolve(fleet, states, [tag]).images[tag.exact]
        except PreflightError as error:
            reason = error.message.splitlines()[-1].strip()
            notes.append(f"{service}: not compared with the registry of {source}: {reason}")
            continue
        if now.digest == image.digest:
            notes.append(f"{service}: {source} runs the image that its tag {image.tag} points to in its registry")
        else:
            notes.append(f"{service}: {source} runs {image.digest}, but its tag {image.tag} now points to {now.digest}")
    return tuple(notes)
