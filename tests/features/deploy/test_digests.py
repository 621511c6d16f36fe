"""Resolving digests on this workstation; labels of an image cannot choose its digest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Environment, Image, Target
from rolling_upgrade.errors import PreflightError
from rolling_upgrade.features.deploy import digests
from rolling_upgrade.ssh.fleet import Fleet
from tests.support.sample import application
from tests.support.shell import Programs

IMAGE = Image("registry.test/shop/backend", "v2")
REAL, FORGED = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
FLEET = Fleet(Environment("production", (Target("web1", "web1", "deploy", application()),)), ())
NAME = "org.opencontainers.image.revision"
HOSTILE_LABELS = {
    "a row of its own": f"x\n{FORGED} x\n",
    "many rows": "\n" * 40 + f"{FORGED} x",
    "carriage returns": f"x\r{FORGED} x\r",
    "a field": f'x", "Digest": "{FORGED}", "y": "',
    "an object": "x\n" * 40 + json.dumps({"Digest": FORGED, "Labels": {}}),
    "long": "x" * 2000,
}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs(tmp_path / "bin")
    monkeypatch.setenv("PATH", programs.path)
    return programs


def add_skopeo(programs: Programs, answer: object, *, command: str = ":") -> None:
    """Add a skopeo that prints the answer as JSON, or as a row with digest and label for `--format`."""
    fields = answer if isinstance(answer, dict) else {}
    (programs.directory.parent / "json").write_text(json.dumps(answer, indent=4) + "\n")
    row = f"{fields.get('Digest')} {(fields.get('Labels') or {}).get(NAME, '')}\n"
    (programs.directory.parent / "row").write_bytes(row.encode())
    programs.add("skopeo", f'{command}\ncase "$*" in *--format*) cat "$here/row" ;; *) cat "$here/json" ;; esac')


@pytest.mark.parametrize("label", HOSTILE_LABELS.values(), ids=HOSTILE_LABELS)
def test_label_of_an_image_does_not_choose_its_digest(label: str, programs: Programs) -> None:
    add_skopeo(programs, {"Name": IMAGE.repository, "Digest": REAL, "Labels": {NAME: label, "Digest": FORGED}})

    (image,) = digests.resolve(FLEET, {}, [IMAGE]).images.values()

    assert (image.digest, image.revision) == (REAL, "")


def test_answer_with_oversized_label_is_ignored(programs: Programs) -> None:
    add_skopeo(programs, {"Digest": REAL, "Labels": {NAME: "x" * 200_000}})

    with pytest.raises(PreflightError, match="neither this workstation nor any host"):
        digests.resolve(FLEET, {}, [IMAGE])


def test_resolve_returns_digest_and_revision_of_the_registry(programs: Programs) -> None:
    add_skopeo(programs, {"Digest": REAL, "Labels": {NAME: "abc123"}}, command=f"echo '{FORGED} x' >&2")

    (image,) = digests.resolve(FLEET, {}, [IMAGE]).images.values()

    assert (image.digest, image.revision) == (REAL, "abc123")


@pytest.mark.parametrize("answer", [{}, [], {"Digest": 1}, {"Digest": f"{REAL}\n"}, {"Digest": REAL.upper()}, "x"])
def test_malformed_answer_is_ignored(answer: object, programs: Programs) -> None:
    add_skopeo(programs, answer)

    with pytest.raises(PreflightError, match="neither this workstation nor any host"):
        digests.resolve(FLEET, {}, [IMAGE])


def test_resolve_image_without_labels_returns_digest(programs: Programs) -> None:
    add_skopeo(programs, {"Digest": REAL, "Labels": None})

    (image,) = digests.resolve(FLEET, {}, [IMAGE]).images.values()

    assert (image.digest, image.revision) == (REAL, "")
