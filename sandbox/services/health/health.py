"""Serves GET /health: the repository and the commit that this image was built from."""

import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8080
BUILD = "/opt/sandbox/services/health/build.json"


class Health(BaseHTTPRequestHandler):
    """Handles requests, and closes connections that are idle for 5 seconds."""

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
        """Logs only failures, because health checks are frequent."""
        if code != 200:
            super().log_request(code, size)


def build():
    """Returns the repository and the commit that the image was built from."""
    with open(BUILD, encoding="utf-8") as file:
        return json.load(file)


class Server(ThreadingHTTPServer):
    daemon_threads = True  # exit without waiting for requests

    def handle_error(self, request, client_address):
        """Logs errors, except that a client has disconnected."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Server(("", PORT), Health).serve_forever()
