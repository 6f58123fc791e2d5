"""Answers GET /health with the repository and the commit that this image was built from."""

import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8080
BUILD = "/opt/sandbox/services/health/build.json"


class Health(BaseHTTPRequestHandler):
    """One request; a client that says nothing for 5 seconds is cut off."""

    timeout = 5
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.split("?")[0] == "/health":
            self.answer(200, {"status": "ok", **build()})
        else:
            self.answer(404, {"status": "not found", "try": "/health"})

    do_HEAD = do_GET

    def answer(self, code, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_request(self, code="-", size="-"):
        """Says nothing of what went well: a health check comes every few seconds."""
        if code != 200:
            super().log_request(code, size)


def build():
    """What the image was built from. Read each time: it is small, and the file cannot be stale."""
    with open(BUILD, encoding="utf-8") as file:
        return json.load(file)


class Server(ThreadingHTTPServer):
    daemon_threads = True  # a request under way does not hold up the end


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Server(("", PORT), Health).serve_forever()
