"""The strict load client: many visitors at once, and every irregularity is a failure.

wire      exact HTTP/1.1: what ends or bends an answer without notice is irregular
expect    what the sample application must answer
traffic   the workers and their pace
records   what they saw, and the figures drawn from it
process   `Load`: the whole of it in a process of its own
"""

from lab.load.process import Load, LoadDied, Progress
from lab.load.records import Kind, LoadResult, Record, Sighting, Window
from lab.load.traffic import Crew, Mix
from lab.load.wire import Cause, Server

__all__ = [
    "Cause",
    "Crew",
    "Kind",
    "Load",
    "LoadDied",
    "LoadResult",
    "Mix",
    "Progress",
    "Record",
    "Server",
    "Sighting",
    "Window",
]
