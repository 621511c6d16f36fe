"""A strict HTTP load client: it never retries, and every deviation counts as a failure.

wire      a strict HTTP/1.1 client
expect    checks of the sample application's answers
traffic   the workers and their rates
records   one record per request, and figures computed from records
process   `Load`, which runs the traffic in another process
"""

from lab.load.process import Load, LoadDied, Progress
from lab.load.records import Kind, LoadResult, Record, Sighting, Window
from lab.load.traffic import LoadProfile, WorkerGroup
from lab.load.wire import Cause, Server

__all__ = [
    "Cause",
    "Kind",
    "Load",
    "LoadDied",
    "LoadProfile",
    "LoadResult",
    "Progress",
    "Record",
    "Server",
    "Sighting",
    "Window",
    "WorkerGroup",
]
