"""Digests that this workstation asks for itself: an image's label chooses none of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Environment, Image, Target
from rolling_upgrade.errors import PreflightError
from rolling_upgrade.features.deploy import digests
from rolling_upgrade.ssh.fleet import Fleet
from tests.support.running import Programs
from tests.support.sample import application

ASKED = Image("registry.test/shop/backend", "v2")
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
    found = Programs(tmp_path / "bin")
    monkeypatch.setenv("PATH", found.path)
    return found


def answer(programs: Programs, said: object, *, aside: str = ":") -> None:
    """A skopeo whose registry holds this: as JSON, or in the rows of a format that names digest and label."""
    told = said if isinstance(said, dict) else {}
    (programs.directory.parent / "json").write_text(json.dumps(said, indent=4) + "\n")
    row = f"{told.get('Digest')} {(told.get('Labels') or {}).get(NAME, '')}\n"
    (programs.directory.parent / "row").write_bytes(row.encode())
    programs.add("skopeo", f'{aside}\ncase "$*" in *--format*) cat "$here/row" ;; *) cat "$here/json" ;; esac')


@pytest.mark.parametrize("label", HOSTILE_LABELS.values(), ids=HOSTILE_LABELS)
def test_label_of_an_image_does_not_choose_its_digest(label: str, programs: Programs) -> None:
    answer(programs, {"Name": ASKED.repository, "Digest": REAL, "Labels": {NAME: label, "Digest": FORGED}})

    (found,) = digests.resolve(FLEET, {}, [ASKED]).images.values()

    assert (found.digest, found.revision) == (REAL, "")


def test_label_that_is_too_long_leaves_the_answer_to_the_hosts(programs: Programs) -> None:
    answer(programs, {"Digest": REAL, "Labels": {NAME: "x" * 200_000}})

    with pytest.raises(PreflightError, match="neither this workstation nor a host"):
        digests.resolve(FLEET, {}, [ASKED])


def test_digest_and_revision_are_those_of_the_registry(programs: Programs) -> None:
    answer(programs, {"Digest": REAL, "Labels": {NAME: "abc123"}}, aside=f"echo '{FORGED} x' >&2")

    (found,) = digests.resolve(FLEET, {}, [ASKED]).images.values()

    assert (found.digest, found.revision) == (REAL, "abc123")


@pytest.mark.parametrize("said", [{}, [], {"Digest": 1}, {"Digest": f"{REAL}\n"}, {"Digest": REAL.upper()}, "x"])
def test_answer_of_another_form_is_none(said: object, programs: Programs) -> None:
    answer(programs, said)

    with pytest.raises(PreflightError, match="neither this workstation nor a host"):
        digests.resolve(FLEET, {}, [ASKED])


def test_image_without_labels_has_a_digest(programs: Programs) -> None:
    answer(programs, {"Digest": REAL, "Labels": None})

    (found,) = digests.resolve(FLEET, {}, [ASKED]).images.values()

    assert (found.digest, found.revision) == (REAL, "")
