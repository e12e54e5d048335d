"""Servers that take messages: one that speaks Slack's API and its webhooks, and one that speaks SMTP."""

from __future__ import annotations

import email
import email.policy
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Slack(ThreadingHTTPServer):
    """Keeps each message as Slack got it; ``refuse`` makes it answer as it does to a wrong channel."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _SlackHandler)
        self.messages: list[dict[str, Any]] = []
        self.refuse = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.messages]

    def api_connection(self) -> str:
        return json.dumps({"conn_type": "slack", "password": "xoxb-token", "extra": {"base_url": f"{self.url}/api/"}})

    def webhook_connection(self) -> str:
        return json.dumps(
            {"conn_type": "slackwebhook", "host": f"{self.url}/services", "password": "T0/B0/webhook-token"}
        )


class _SlackHandler(BaseHTTPRequestHandler):
    server: Slack

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_api = self.path == "/api/chat.postMessage"
        if is_api:
            answer = {"ok": False, "error": "channel_not_found"} if self.server.refuse else {"ok": True}
            status, body = 200, json.dumps(answer).encode()
            allowed = self.headers["Authorization"] == "Bearer xoxb-token"
        else:
            status, body = (404, b"channel_not_found") if self.server.refuse else (200, b"ok")
            allowed = self.path == "/services/T0/B0/webhook-token"
        if not allowed:
            status, body = 403, b"invalid_token"
        elif not self.server.refuse:
            self.server.messages.append(message)
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if is_api else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Mail(socketserver.ThreadingTCPServer):
    """Takes mail by plain SMTP."""

    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MailHandler)
        self.messages: list[EmailMessage] = []

    @property
    def texts(self) -> list[str]:
        """The HTML of each message."""
        bodies = [message.get_body(("html",)) for message in self.messages]
        return [body.get_content() for body in bodies if body is not None]

    def connection(self) -> str:
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.com"}
        port = self.server_address[1]
        return json.dumps({"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": extra})


class _MailHandler(socketserver.StreamRequestHandler):
    server: Mail

    def handle(self) -> None:
        self.wfile.write(b"220 test\r\n")
        while line := self.rfile.readline():
            command = line[:4].upper()
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                body = b"".join(one.removeprefix(b".") if one.startswith(b"..") else one for one in lines)
                parsed = email.message_from_bytes(body, policy=email.policy.default)
                assert isinstance(parsed, EmailMessage)
                self.server.messages.append(parsed)
                self.wfile.write(b"250 taken\r\n")
            elif command == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 fine\r\n")
