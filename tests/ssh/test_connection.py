"""The error of the system as the reason of a failed connection."""

from __future__ import annotations

import socket

import pytest
from paramiko.ssh_exception import NoValidConnectionsError

from rolling_upgrade.ssh.connection import failure_reason

REFUSED = OSError(111, "Connection refused")
UNROUTED = OSError(113, "No route to host")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NoValidConnectionsError({("192.0.2.1", 22): REFUSED}), "Connection refused"),
        (NoValidConnectionsError({("192.0.2.1", 22): REFUSED, ("::1", 22): REFUSED}), "Connection refused"),
        (
            NoValidConnectionsError({("192.0.2.1", 22): REFUSED, ("::1", 22): UNROUTED}),
            "Connection refused, No route to host",
        ),
        (UNROUTED, "No route to host"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (TimeoutError("timed out"), "timed out"),
        (EOFError(), "connection closed"),
    ],
)
def test_failure_reason_is_the_text_of_the_system(error: Exception, reason: str) -> None:
    assert failure_reason(error) == reason
