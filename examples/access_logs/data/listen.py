"""Stands in for a pager: `python data/listen.py` shows what is posted to http://127.0.0.1:9999."""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Shown(BaseHTTPRequestHandler):
    """Answers 200 to every POST."""

    def do_POST(self) -> None:
        """Write its body to the terminal."""
        sys.stdout.write(self.rfile.read(int(self.headers["Content-Length"])).decode() + "\n")
        sys.stdout.flush()
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing else."""


HTTPServer(("127.0.0.1", 9999), Shown).serve_forever()
