"""`python -m lab.load --url http://ADDRESS --seconds 10`: load servers and print what happened.

Exit code 0 when no request failed and no write was lost, 1 otherwise, 2 for an unreadable command line.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from urllib.parse import urlsplit

from lab.load.process import Progress, run_until
from lab.load.records import LoadResult
from lab.load.traffic import LoadProfile, Traffic
from lab.load.wire import Server

MAX_FAILURES_SHOWN = 20


def server_at(url: str) -> Server:
    """Parse a URL. Raises ArgumentTypeError for anything but http://ADDRESS[:PORT]."""
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{url!r}: {error}") from None
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise argparse.ArgumentTypeError(f"found {url!r}, expected http://ADDRESS or http://ADDRESS:PORT")
    return Server(parts.netloc, parts.hostname, port)


def report(result: LoadResult) -> str:
    """Return the figures as text."""
    total = result.window()
    kinds = ", ".join(f"{count} x {kind.value}" for kind, count in result.kinds().items())
    lines = [
        f"requests  {total.requests} in {result.ended - result.started:.1f} s ({kinds})",
        f"latency   p50 {total.p50_ms} ms, p99 {total.p99_ms} ms, max {total.max_ms} ms (slow ones aside)",
        f"writes    {result.writes_acknowledged} acknowledged, {result.writes_lost} lost",
    ]
    for seen in result.sightings():
        lines.append(f"version   {seen.server} {seen.service} {seen.version}: {seen.answers} answers")
    lines += [f"cause     {count} x {cause}" for cause, count in result.causes.items()]
    for record in result.failures[:MAX_FAILURES_SHOWN]:
        lines.append(f"failed    {record.ended - result.started:7.2f} s  {record}")
    lines += [f"lost      {lost}" for lost in result.lost[:MAX_FAILURES_SHOWN]]
    lines.append(f"failed    {total.failed}")
    return "\n".join(lines)


async def load_for(servers: list[Server], domain: str, seconds: float) -> LoadResult:
    """Load the servers for a time and show the progress on stderr."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stopping.set)

    def show(progress: Progress) -> None:
        print(f"{progress.requests} requests, {progress.failed} failed", file=sys.stderr, flush=True)

    return await run_until(Traffic(servers, domain, LoadProfile()), stopping, show)


def main() -> int:
    """Run the load. Return 1 after a failed request or a lost write."""
    parser = argparse.ArgumentParser("python -m lab.load", description="Load servers strictly: no retries.")
    parser.add_argument("--url", action="append", required=True, type=server_at, dest="servers", metavar="URL")
    parser.add_argument("--host-name", default="", help="for the Host header (default: the first address)")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    domain = options.host_name or options.servers[0].address
    result = asyncio.run(load_for(options.servers, domain, options.seconds))
    print(report(result))
    return 1 if result.failures or result.lost else 0


if __name__ == "__main__":
    sys.exit(main())
