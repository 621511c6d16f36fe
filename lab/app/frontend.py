"""The sample application's frontend: one static page that shows the version."""

from __future__ import annotations

import html
import os
import sys
from urllib.parse import urlsplit

from drain import DrainingServer, Handler, log

VERSION = os.environ.get("VERSION", "unknown")
PAGE = f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>MemoryArk {html.escape(VERSION)}</title></head>
<body>
<h1>MemoryArk</h1>
<p>Frontend <strong id="version">{html.escape(VERSION)}</strong>, backend <strong id="backend">…</strong></p>
<script>
fetch("/api/version").then(r => r.json()).then(v => {{
  document.getElementById("backend").textContent = v.version;
}});
</script>
</body>
</html>
"""


class Frontend(Handler):
    """A health path and the page."""

    def respond(self) -> None:
        """Answer one request."""
        path = urlsplit(self.path).path
        if self.headers.get("Content-Length", "0") != "0":
            self.close_connection = True
            self.answer_json(405, error="static content takes no body")
        elif path == "/health":
            self.answer_json(200, status="ok", version=VERSION)
        elif path in ("/", "/index.html"):
            self.answer(200, PAGE.encode(), "text/html; charset=utf-8")
        else:
            self.answer_json(404, error="no such page")


def main() -> int:
    """Serve until drained."""
    log(f"frontend {VERSION} starts")
    return DrainingServer(int(os.environ.get("PORT", "7001")), Frontend).run()


if __name__ == "__main__":
    sys.exit(main())
