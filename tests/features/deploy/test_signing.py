"""Tests of pulling signed images alone: what Podman is told, and in what order."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Image
from rolling_upgrade.features.deploy.steps import LOOKASIDE, pull_signed
from tests.support.running import Programs, sh

KEY = "-----BEGIN PUBLIC KEY-----\n…\n-----END PUBLIC KEY-----\n"
IMAGES = tuple(Image(name, "v1", f"sha256:{'a' * 64}") for name in ("shop/backend", "registry:5000/shop/frontend"))
KEEP = 'case $1 in pull) shift 3; cp "$1" "$KEPT" ;; image) exit ${MISSING:-0} ;; esac\n'


def run(programs: Programs, home: Path, *, again: bool, missing: bool = False) -> list[list[str]]:
    programs.add("podman", KEEP)
    settings = f"export HOME='{home}' KEPT='{home}/policy.json' MISSING={int(missing)}\n"
    done = sh(settings + "set -eu\n" + pull_signed([*IMAGES, IMAGES[0]], KEY, again=again).text, path=programs.path)
    assert done.returncode == 0, done.stderr
    return [call[1:] for call in programs.calls()]


def test_pull_signed_accepts_these_repositories_with_this_key_and_nothing_else(
    programs: Programs, tmp_path: Path
) -> None:
    calls = run(programs, tmp_path, again=True)

    assert [call[-1] for call in calls] == [image.pinned for image in IMAGES]
    policy = json.loads((tmp_path / "policy.json").read_text())
    assert policy["default"] == [{"type": "reject"}]
    assert set(policy["transports"]) == {"docker"}
    found = policy["transports"]["docker"]
    assert set(found) == {"docker.io/shop/backend", "registry:5000/shop/frontend"}
    for ((rule,),) in zip(found.values(), strict=True):
        assert (rule["type"], base64.b64decode(rule["keyData"]).decode()) == ("sigstoreSigned", KEY)
    policies = {call[-2] for call in calls}
    assert [Path(path).exists() for path in policies] == [False]


def test_pull_signed_tells_podman_where_signatures_lie(programs: Programs, tmp_path: Path) -> None:
    run(programs, tmp_path, again=True)
    run(programs, tmp_path, again=True)

    files = sorted((tmp_path / LOOKASIDE).iterdir())
    told = [json.loads(path.read_text())["docker"] for path in files]
    assert {name: rule for one in told for name, rule in one.items()} == {
        "docker.io/shop/backend": {"use-sigstore-attachments": True},
        "registry:5000/shop/frontend": {"use-sigstore-attachments": True},
    }
    assert len(files) == 2


@pytest.mark.parametrize(("missing", "pulls"), [(False, 0), (True, 2)])
def test_pull_signed_on_the_way_back_asks_for_what_is_missing_alone(
    programs: Programs, tmp_path: Path, missing: bool, pulls: int
) -> None:
    calls = run(programs, tmp_path, again=False, missing=missing)

    assert sum(call[0] == "pull" for call in calls) == pulls
