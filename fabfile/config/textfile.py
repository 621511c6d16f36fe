"""Reading a file of this machine: its bytes, and the text in them. It knows no form."""

from __future__ import annotations

from pathlib import Path

from fabfile.config.findings import Findings


def read_bytes(path: Path, findings: Findings, *, remedy: str) -> bytes | None:
    """The bytes of a file, or None and a mistake; that of a missing file expects the `remedy`."""
    file = findings.name(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        findings.add(file, "", found="no such file", expected=remedy)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        findings.add(file, "", found=f"a file that cannot be read ({reason})", expected="a readable file")
    return None


def decoded(data: bytes, file: str, findings: Findings) -> str | None:
    """The text of UTF-8 bytes with any line ends, or None and a mistake."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        findings.add(file, f"byte {error.start}", found="bytes that are not UTF-8", expected="UTF-8 text")
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")
