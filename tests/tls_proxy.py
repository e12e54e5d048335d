"""A reverse proxy with TLS, as nginx is set up in front of Airflow.

It hands on what it gets, with the browser's Host, and names the client and itself in ``X-Forwarded-…``:
https://airflow.apache.org/docs/apache-airflow/stable/howto/run-behind-proxy.html
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

from receivers import serving

PIECE_BYTES = 65_536
# Of one connection, not of what is sent: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"),
    "upgrade",
}


@dataclass(frozen=True)
class Proxy:
    """Where it listens, and the file with the certificate of its authority, for clients that check it."""

    url: str
    authority: Path


@contextmanager
def tls_proxy(folder: Path, upstream_port: int) -> Iterator[Proxy]:
    """Listen with TLS on localhost and hand on to ``upstream_port`` of 127.0.0.1, while the block lasts."""
    authority, settings = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(settings)
    file = folder / "authority.pem"
    authority.cert_pem.write_to_path(file)
    server = _Server(upstream_port, settings)
    with serving(server):
        yield Proxy(f"https://localhost:{server.server_port}", file)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, upstream_port: int, settings: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream_port, self._settings = upstream_port, settings

    def finish_request(self, request: Any, client_address: Any) -> None:
        # Here, in the connection's own thread: a client that is slow to shake hands then holds up no other.
        request.settimeout(60)
        with self._settings.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser closes connections when a page is left."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _hand_on(self) -> None:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        headers |= {
            "X-Forwarded-For": self.client_address[0],
            "X-Forwarded-Host": self.headers["Host"],
            "X-Forwarded-Proto": "https",
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream_port, timeout=120)
        try:
            upstream.request(self.command, self.path, body or None, headers)
            self._answer(upstream.getresponse())
        finally:
            upstream.close()

    def _answer(self, answer: http.client.HTTPResponse) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        has_body = self.command != "HEAD" and answer.status not in (204, 304)
        in_chunks = has_body and answer.getheader("Content-Length") is None
        if in_chunks:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while has_body and (piece := answer.read1(PIECE_BYTES)):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if in_chunks else piece)
        if in_chunks:
            self.wfile.write(b"0\r\n\r\n")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _hand_on  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Log nothing."""
