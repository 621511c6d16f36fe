"""Which digest a tag has, and whether a registry has an image: asked from here, else of two hosts that must agree.

A host says what its deploy user's own registries.conf makes of a name. So one host's word decides for another only
where there is no second to ask.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from rolling_upgrade.engine import local_command, parallel, podman, stage
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.model import HostState, Image
from rolling_upgrade.engine.untrusted import Malformed
from rolling_upgrade.errors import HostUnreachable, PreflightError
from rolling_upgrade.ssh.fleet import Fleet

#: The time limit for a registry that may be unreachable from here.
LOCAL_SECONDS = 10.0
#: The time limit for a host that asks its registries.
HOST_SECONDS = 120.0
#: A registry's definite no, which no host's answer outweighs. Source: OCI distribution specification, error codes.
_UNKNOWN = re.compile(r"manifest unknown|MANIFEST_UNKNOWN|NAME_UNKNOWN|repository name not known")


@dataclass(frozen=True)
class Resolved:
    """Images with their digests, keyed by `Image.exact`, and lines of the plan that name the source of the digests."""

    images: Mapping[str, Image]
    notes: tuple[str, ...] = ()


def resolve(fleet: Fleet, states: Mapping[str, HostState], images: Sequence[Image]) -> Resolved:
    """Resolve each image at its registry; an image with a digest must exist there.

    Raises PreflightError if nobody can ask, a registry refuses, or two hosts disagree.
    """
    wanted = {image.exact: image for image in images}
    if not wanted:
        return Resolved({})
    found = _from_here(list(wanted.values()))
    notes = ["digests: this workstation asked the registry"] if found else []
    missing = [image for name, image in wanted.items() if name not in found]
    if missing:
        asked = _from_hosts(fleet, states, missing)
        found |= asked.images
        notes += asked.notes
    return Resolved(found, tuple(notes))


def can_ask_here() -> bool:
    """Whether the workstation has skopeo, which asks a registry."""
    return shutil.which("skopeo") is not None


def _from_here(images: Sequence[Image]) -> dict[str, Image]:
    """The answers to the workstation's own skopeo, with the operator's login; empty where it cannot ask.

    Raises PreflightError if a registry answers that it does not have an image.
    """
    if not can_ask_here():
        return {}
    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = zip(images, pool.map(_ask_here, images), strict=True)
        return {image.exact: answer for image, answer in answers if answer is not None}


def _ask_here(image: Image) -> Image | None:
    ended = local_command.answer(podman.ask_registry(image, "--override-os", "linux"), timeout_seconds=LOCAL_SECONDS)
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


def _from_hosts(fleet: Fleet, states: Mapping[str, HostState], images: Sequence[Image]) -> Resolved:
    able = [host for host in fleet.hosts if states[host.name].fact("has_skopeo") == "yes"]
    if not able:
        raise PreflightError(
            "neither this workstation nor a host can ask a registry for a digest: skopeo is missing.",
            next_step="apt-get install skopeo here or on a host, or name images by digest",
        )
    witnesses = able[:WITNESSES]
    answers = parallel.on_each(witnesses, len(witnesses), lambda host: resolve_on_host(host, images))
    said = {}
    for name, answer in answers.items():
        if isinstance(answer, HostUnreachable):
            raise answer
        said[name] = answer
    refuse_disagreement(said)
    return Resolved(dict(next(iter(said.values()))), (witnessed(list(said), len(able)),))


def resolve_on_host(host: Host, images: Sequence[Image]) -> dict[str, Image]:
    """Resolve the digest of each image on one host; the result is keyed by `Image.exact`. Raises PreflightError."""
    answer = host.run(stage.direct(podman.resolve(images)), timeout_seconds=HOST_SECONDS)
    lines = answer.output.splitlines()
    failures = [line.removeprefix("! ") for line in lines if line.startswith("! ")]
    rows = {row[0]: row[1:] for line in lines if len(row := line.split(" ")) > 1 and row[1].startswith("sha256:")}
    found = {image.exact: _with_digest(image, *rows[image.exact]) for image in images if image.exact in rows}
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


def _with_digest(image: Image, digest: str, revision: str = "", *_: str) -> Image:
    """The image with the digest and revision from its registry."""
    return replace(image, digest=digest, revision="" if revision.startswith("<") else revision)


def refuse_disagreement(said: Answers) -> None:
    """Raise PreflightError with each image, both digests and both hosts, if hosts disagree."""
    if lines := disagreements(said):
        listed = "\n  ".join(lines)
        raise PreflightError(
            f"hosts disagree about the digest of an image; nothing was touched.\n  {listed}",
            next_step="the same command again where the tag was moved just now; else compare what the two read: "
            "/etc/containers/registries.conf and ~/.config/containers/registries.conf of the deploy user",
        )


def compare_with_source(
    fleet: Fleet,
    states: Mapping[str, HostState],
    source: str,
    ran: Mapping[str, Image],
    confirmed: Collection[str],
) -> tuple[str, ...]:
    """Lines for the plan on how what another environment says it ran compares with its registry's tags today.

    `ran` has each service's image in that environment's own repository, `confirmed` what was asked for already. The
    tag is what that environment's hosts recorded: one that is missing, or that its registry no longer has, is told.
    Raises PreflightError where that registry does not confirm the digest itself, or cannot be asked.
    """
    notes = []
    for service, image in ran.items():
        if image.exact not in confirmed:
            resolve(fleet, states, [image])
        if not image.tag:
            notes.append(f"{service}: {source} recorded no tag of {image.digest}: there is nothing to compare it with")
            continue
        tag = replace(image, digest="")
        try:
            now = resolve(fleet, states, [tag]).images[tag.exact]
        except PreflightError as error:
            reason = error.message.splitlines()[-1].strip()
            notes.append(f"{service}: not compared with the registry of {source}: {reason}")
            continue
        if now.digest == image.digest:
            notes.append(f"{service}: {source} ran what its tag {image.tag} names in its registry")
        else:
            notes.append(f"{service}: {source} ran {image.digest}, its tag {image.tag} names {now.digest} now")
    return tuple(notes)


#: The number of hosts to ask if the workstation cannot.
WITNESSES = 2

#: The answers by witness: each image with its digest, keyed by `Image.exact`.
Answers = Mapping[str, Mapping[str, Image]]


def disagreements(answers: Answers) -> tuple[str, ...]:
    """A line for each image to which two witnesses give different digests."""
    asked = dict.fromkeys(name for said in answers.values() for name in said)
    lines = []
    for name in asked:
        digests = {witness: said[name].digest for witness, said in answers.items() if name in said}
        if len(set(digests.values())) > 1:
            each = ", ".join(f"{witness} says {digest}" for witness, digest in digests.items())
            lines.append(f"{name}: {each}")
    return tuple(lines)


def witnessed(names: Sequence[str], able: int) -> str:
    """The source of the digests, in words; `able` is the number of hosts that could have been asked."""
    if len(names) > 1:
        return f"digests: {' and '.join(names)} agree"
    others = "no other host can ask a registry" if able < WITNESSES else "no other was asked"
    return f"digests: {names[0]} alone says so; {others}"
