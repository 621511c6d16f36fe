"""Images in this workstation's own Podman or Docker, saved to a file to be pushed. It contacts no host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from fabfile.errors import PreflightError
from fabfile.model import Image

#: Asked in this order. Both save the archive form that keeps the image's id.
TOOLS = ("podman", "docker")
_LOOK_SECONDS = 60
_SAVE_SECONDS = 1800


def save(service: str, image: Image, folder: Path) -> Path:
    """Save the image into a new file of `folder`. Raises PreflightError when no tool has it or saving fails."""
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
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(words, 1, "", str(error))


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()[-1][:300]
