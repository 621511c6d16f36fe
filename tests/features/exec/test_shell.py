"""The end of a command in a container when the connection ends early."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from rolling_upgrade.features.exec import shell as inside
from tests.support.sample import application
from tests.support.shell import Programs


def test_execute_disconnected_before_podman_starts_the_command_ends_it(tmp_path: Path, programs: Programs) -> None:
    # As Podman under load: the command begins a second after the call, and the mark is in its environment only then.
    programs.add("podman", 'case "$1" in container) echo true ;; *) sleep 1; exec env "$3" "$5" "$6" ;; esac')
    text = inside.execute(application(), "backend", ["sleep", "61"]).text
    text = text.replace("PATH=/usr", f"PATH={shlex.quote(str(programs.directory))}:/usr", 1)
    program = tmp_path / "exec.sh"
    program.write_text(text)

    done = subprocess.run(
        ["sh", "-c", f"exec sh {shlex.quote(str(program))} 3</dev/null"],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 128 + 15, done.stderr
    assert [call[1] for call in programs.calls("podman")] == ["container", "exec"]
