"""Pulling signed images: the policy and the settings that Podman gets."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Image
from rolling_upgrade.features.deploy.shell import LOOKASIDE, pull_signed
from tests.support.shell import Programs, sh

KEY = "-----BEGIN PUBLIC KEY-----\n…\n-----END PUBLIC KEY-----\n"
IMAGES = tuple(Image(name, "v1", f"sha256:{'a' * 64}") for name in ("shop/backend", "registry:5000/shop/frontend"))
COPY_POLICY = 'case $1 in pull) shift 3; cp "$1" "$COPY" ;; image) exit ${MISSING:-0} ;; esac\n'


def run(programs: Programs, home: Path, *, verify_present: bool, missing: bool = False) -> list[list[str]]:
    programs.add("podman", COPY_POLICY)
    settings = f"export HOME='{home}' COPY='{home}/policy.json' MISSING={int(missing)}\n"
    done = sh(
        settings + "set -eu\n" + pull_signed([*IMAGES, IMAGES[0]], KEY, verify_present=verify_present).text,
        path=programs.path,
    )
    assert done.returncode == 0, done.stderr
    return [call[1:] for call in programs.calls() if call[1] != "info"]


def test_pull_signed_accepts_only_these_repositories_with_this_key(programs: Programs, tmp_path: Path) -> None:
    calls = run(programs, tmp_path, verify_present=True)

    assert [call[-1] for call in calls] == [image.pinned for image in IMAGES]
    policy = json.loads((tmp_path / "policy.json").read_text())
    assert policy["default"] == [{"type": "reject"}]
    assert set(policy["transports"]) == {"docker"}
    rules = policy["transports"]["docker"]
    assert set(rules) == {"docker.io/shop/backend", "registry:5000/shop/frontend"}
    for ((rule,),) in zip(rules.values(), strict=True):
        assert (rule["type"], base64.b64decode(rule["keyData"]).decode()) == ("sigstoreSigned", KEY)
    policies = {call[-2] for call in calls}
    assert [Path(path).exists() for path in policies] == [False]


def test_pull_signed_configures_where_podman_finds_signatures(programs: Programs, tmp_path: Path) -> None:
    run(programs, tmp_path, verify_present=True)
    run(programs, tmp_path, verify_present=True)

    files = sorted((tmp_path / LOOKASIDE).iterdir())
    settings = [json.loads(path.read_text())["docker"] for path in files]
    assert {name: rule for setting in settings for name, rule in setting.items()} == {
        "docker.io/shop/backend": {"use-sigstore-attachments": True},
        "registry:5000/shop/frontend": {"use-sigstore-attachments": True},
    }
    assert len(files) == 2


@pytest.mark.parametrize(("missing", "pulls"), [(False, 0), (True, 2)])
def test_pull_signed_in_a_rollback_pulls_only_missing_images(
    programs: Programs, tmp_path: Path, missing: bool, pulls: int
) -> None:
    calls = run(programs, tmp_path, verify_present=False, missing=missing)

    assert sum(call[0] == "pull" for call in calls) == pulls
