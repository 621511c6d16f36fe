"""The requests of all checks, sent by the real curl to a server that behaves like a web framework."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rolling_upgrade.engine import health_gate, progress, request
from rolling_upgrade.engine.model import Application, Color, Gate, Probe, Route, Service, SiteOptions, Tls
from rolling_upgrade.engine.request import Request
from rolling_upgrade.engine.shell import script
from tests.support.sample import application, backend, frontend
from tests.support.servers import free_ports
from tests.support.shell import HOSTILE, Programs, sh

TLS = Tls("/c", "/k")
SECRET = 'Bearer s3cr3t\\token "it\'s" $(touch pwned) `x`'


@dataclass
class Framework:
    """Refuses foreign hosts with 400 and redirects plain requests to https, as a stock Django does."""

    port: int
    host: str = "shop.test"
    body: bytes = b"<h1>Bad Request (400)</h1>"
    seen: list[dict[str, str]] = field(default_factory=list)

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        self.seen.append({"path": path, **headers})
        if headers.get("host") != self.host:
            return 400, {}, self.body
        if headers.get("x-forwarded-proto") != "https":
            return 301, {"Location": f"https://{self.host}{path}?token=s3cr3t"}, b""
        return 200, {}, b"ok"


@contextmanager
def serving(framework: Framework) -> Iterator[Framework]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            code, more, body = framework.answer(self.path, headers)
            self.send_response(code)
            for name, value in {**more, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Write no log."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Ignore clients that close the connection after the start of a body."""

    server = Server(("127.0.0.1", framework.port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield framework
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def framework() -> Iterator[Framework]:
    # The candidate port of green is 20000 above the service port.
    with serving(Framework(free_ports(20_000) + 20_000)) as found:
        yield found


def service(framework: Framework, **changes: object) -> Service:
    rules = Gate("/up", passes=2, interval_seconds=0.01, start_period_seconds=0, retries=1, timeout_seconds=5)
    gate = replace(rules, **changes)  # type: ignore[arg-type]
    return backend(service_port=framework.port - 20_000, gate=gate)


def gate(app: Application, framework: Framework, programs: Programs, **changes: object) -> tuple[int, str]:
    programs.add("podman", 'if [ "$1" = logs ]; then echo "the log"; else echo "true 0 0 1"; fi')
    text = health_gate.gate(app, service(framework, **changes), Color.GREEN)
    done = sh(script(text, "echo passed"), path=programs.path)
    return done.returncode, progress.without_progress(done.stdout)


@pytest.mark.parametrize(
    ("app", "changes", "host", "scheme"),
    [
        (application(), {}, "shop.test", "http"),
        (application(http_port=8080), {}, "shop.test:8080", "http"),
        (application(http_port=443), {}, "shop.test:443", "http"),
        (application(tls=TLS), {}, "shop.test", "https"),
        (application(tls=TLS, https_port=8443), {}, "shop.test:8443", "https"),
        # A proxy in front of a plain site serves visitors over https on its default port.
        (application(http_port=8080), {"scheme": "https"}, "shop.test", "https"),
        (application(http_port=8080), {"scheme": "http"}, "shop.test:8080", "http"),
        (application(tls=TLS), {"host": "internal.test:9"}, "internal.test:9", "https"),
    ],
)
def test_to_service_sends_the_host_and_the_scheme_of_a_visitor(
    app: Application, changes: dict[str, str], host: str, scheme: str
) -> None:
    found = request.to_service(app, backend(gate=Gate("/up", **changes)), 28080)  # type: ignore[arg-type]

    assert found.url == "http://127.0.0.1:28080/up"
    assert found.headers == (("Host", host), ("X-Forwarded-Proto", scheme))


def test_to_service_of_another_domain_asks_for_that_domain() -> None:
    """An application that accepts only its own domain would answer 400."""
    limited = backend(routes=(Route("/", domains=("api.shop.test", "eu.shop.test")),))
    shared = frontend(routes=(Route("/"), Route("/v1/", domains=("api.shop.test",))))
    app = application(limited, shared, site=SiteOptions(domains=("api.shop.test", "eu.shop.test")))

    hosts = [dict(request.to_service(app, service, 8080).headers)["Host"] for service in app.services]
    assert hosts == ["api.shop.test", "shop.test"]


def test_gate_of_a_framework_that_checks_host_and_scheme_passes(framework: Framework, programs: Programs) -> None:
    assert gate(application(tls=TLS), framework, programs) == (0, "passed\n")

    sent = framework.seen[0]
    assert (sent["path"], sent["user-agent"]) == ("/up", "rolling-upgrade-probe")


def test_failed_gate_shows_the_request_the_status_and_the_body(framework: Framework, programs: Programs) -> None:
    status, output = gate(application(tls=TLS), framework, programs, host="other.test")

    (seconds,) = re.findall(r"health gate after (\d+) s", output)
    assert status == 1
    assert output.splitlines() == [
        f"backend: green failed its health gate after {seconds} s (last: HTTP 400 from /up)",
        f"asked again: GET http://127.0.0.1:{framework.port}/up with Host: other.test, X-Forwarded-Proto: https",
        "HTTP 400, body: <h1>Bad Request (400)</h1>",
        "last log lines of shop-backend-green:",
        "the log",
    ]


def test_failed_gate_shows_where_the_answer_redirects_without_its_query(
    framework: Framework, programs: Programs
) -> None:
    status, output = gate(application(), framework, programs)

    assert (status, "s3cr3t" in output) == (1, False)
    assert "(last: HTTP 301 from /up, a redirect to https://shop.test/up)\n" in output
    assert "HTTP 301, body: empty\n" in output


def test_failed_gate_without_an_answer_says_why_and_asks_no_more(programs: Programs) -> None:
    absent = Framework(free_ports(20_000) + 20_000)

    status, output = gate(application(), absent, programs)

    assert (status, "asked again" in output) == (1, False)
    assert "(last: no answer from /up (Failed to connect to 127.0.0.1 port " in output


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"\x1b]0;title\x07 red\x00\x1b[31m\r\n\r\ntext\t ", "]0;title red [31m text"),
        ("繁體中文".encode(), "繁體中文"),
        (b"word " * 1000, "word " * 80 + "..."),
        (b"key: " + b"s3cr3t" * 1000, "key: ..."),
        (b"x" * 10_000, "..."),
        (b"\n \r\n", "empty"),
        (b"a\n" * 5000, "a " * 200 + "..."),
    ],
)
def test_shown_body_is_short_printable_and_cuts_no_word(body: bytes, shown: str, framework: Framework) -> None:
    framework.body = body
    asked = Request(f"http://127.0.0.1:{framework.port}/")

    output = sh(script(request.print_answer(asked, 5))).stdout

    assert output.splitlines()[1].rstrip() == f"HTTP 400, body: {shown}".rstrip()


def test_headers_of_a_service_reach_it_and_no_argument_contains_them(framework: Framework, programs: Programs) -> None:
    programs.add("curl", '/usr/bin/curl "$@"')
    own = (("Authorization", SECRET), ("X-Empty-Not", "1"))

    assert gate(application(tls=TLS), framework, programs, headers=own)[0] == 0

    assert [sent["authorization"] for sent in framework.seen] == [SECRET] * 2
    assert not [word for call in programs.calls("curl") for word in call if "s3cr3t" in word]


@pytest.mark.parametrize(
    "value", [value for value in HOSTILE if value.strip() and "\n" not in value and value.isascii()]
)
def test_all_ways_to_send_a_request_send_the_same(value: str, framework: Framework) -> None:
    app = application(tls=TLS)
    asked = request.to_service(app, service(framework, headers=(("X-Own", value),)), framework.port)
    form = "%{http_code}\\n"

    single = sh(script(request.status(asked, 5, form)))
    together = sh(script(request.parallel([request.configuration(asked, 5, form)] * 3)))
    address, message = request.over_socket(asked)
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(message)
        raw = connection.recv(64)

    assert (single.stdout, together.stdout, together.stderr) == ("200\n", "200\n" * 3, "")
    assert raw.startswith(b"HTTP/1.0 200")
    kept = [
        {key: text.strip() for key, text in sent.items() if key not in ("accept", "connection")}
        for sent in framework.seen
    ]
    assert (
        kept
        == [
            {
                "path": "/up",
                "host": "shop.test",
                "x-forwarded-proto": "https",
                "user-agent": "rolling-upgrade-probe",
                "x-own": value.strip(),
            }
        ]
        * 5
    )


def test_parallel_requests_do_not_wait_for_each_other(framework: Framework) -> None:
    free = free_ports()
    with socket.create_server(("127.0.0.1", free)):
        hanging = Request(f"http://127.0.0.1:{free}/")
        good = request.to_service(application(tls=TLS), service(framework), framework.port)
        form = "%{http_code} %{url}\\n"

        done = sh(
            script(request.parallel([request.configuration(hanging, 0.5, form), request.configuration(good, 5, form)]))
        )

    assert done.stdout == f"200 {good.url}\n000 {hanging.url}\n"


def test_full_chain_has_the_request_of_its_service() -> None:
    app = application(backend(gate=Gate(host="api.test")))

    assert request.of_chain(app, Probe("backend", "/deep")) == Request(
        "http://127.0.0.1:8080/deep", (("Host", "api.test"), ("X-Forwarded-Proto", "http"))
    )


@pytest.mark.parametrize(
    ("code", "served", "location", "shown"),
    [
        ("200", "127.0.0.1:18080", "", "HTTP 200 from 127.0.0.1:18080"),
        ("000", "", "", "no answer"),
        ("201", "", "/new", "HTTP 201"),
        ("302", "", "", "HTTP 302, a redirect"),
        ("302", "", "https://shop.test/login?next=/#x", "HTTP 302, a redirect to https://shop.test/login"),
        ("302", "", "/\x1b[31m" + "x" * 500, "HTTP 302, a redirect to /" + "x" * 198 + "…"),
    ],
)
def test_described_answer(code: str, served: str, location: str, shown: str) -> None:
    assert request.described(code, served, location) == shown
