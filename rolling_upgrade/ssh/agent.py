"""An SSH agent with the key of DEPLOY_SSH_KEY, for the rest of this process.

Every process of this user can use an agent, so it starts only after the application's own code has finished.
"""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rolling_upgrade.errors import PreflightError

KEY = "DEPLOY_SSH_KEY"
_SECONDS = 30.0


def check_deploy_key() -> None:
    """Validate DEPLOY_SSH_KEY before anything starts. Raises PreflightError."""
    if os.environ.get(KEY):
        _check_key(["ssh-keygen", "-y", "-P", "", "-f", "/dev/stdin"], os.environ[KEY])


@contextlib.contextmanager
def with_deploy_key() -> Iterator[None]:
    """Run an agent with the key of DEPLOY_SSH_KEY during the block; without a key, run none. Raises PreflightError.

    The agent also ends when this process dies: ssh-agent ends with the program that it started, here a `cat` that
    reads until this process closes its standard input.
    """
    key = os.environ.pop(KEY, "")
    if not key:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="rolling-agent-") as directory:
        path = str(Path(directory) / "agent")
        command = ["ssh-agent", "-a", path, "sh", "-c", "echo; exec cat"]
        try:
            # In its own session: Ctrl-C must only reach this process, which may still have to undo something.
            agent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        except OSError as error:
            raise PreflightError(f"ssh-agent cannot be started: {error}. No host was contacted.") from None
        with agent:
            try:
                if agent.stdout is not None:
                    agent.stdout.readline()  # The program prints this line; the agent starts it once its socket exists.
                os.environ["SSH_AUTH_SOCK"] = path
                _check_key(["ssh-add", "-q", "-"], key)
                yield
            finally:
                os.environ.pop("SSH_AUTH_SOCK", None)
                agent.terminate()


def private_key(text: str) -> bytes:
    """Return the key in the format of OpenSSH; it may be one line of base64, because GitLab masks single lines only."""
    key = text.strip().encode()
    if not key.startswith(b"-----BEGIN"):
        with contextlib.suppress(ValueError):
            key = base64.b64decode(key)
    return key.replace(b"\r", b"").strip() + b"\n"


def _check_key(command: list[str], key: str) -> None:
    """Pass the key to a program of OpenSSH on standard input. Raises PreflightError."""
    try:
        done = subprocess.run(command, input=private_key(key), capture_output=True, timeout=_SECONDS, check=False)
        error_text = done.stderr.decode(errors="replace").strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        error_text = str(error)
    if error_text:
        raise PreflightError(
            f"{command[0]} rejects the private key in {KEY} ({error_text}). No host was contacted.",
            next_step=f"set {KEY} to the whole key without a passphrase, as text or encoded by `base64 -w0`",
        )
