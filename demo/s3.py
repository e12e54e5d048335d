"""``python -m demo.s3``: runs the cluster's S3 server, with the demo's buckets, until it is terminated.

It saves the bucket of the tables to a folder; see ``demo.stack``.
"""

from __future__ import annotations

import logging
import signal
import threading

from moto.server import ThreadedMotoServer

from demo.stack import client, fill, keep, say

PORT = 5000


def main() -> None:
    """Serve on all addresses of the container."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    end = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: end.set())
    server = ThreadedMotoServer(ip_address="0.0.0.0", port=PORT, verbose=False)  # noqa: S104  # in a network of containers
    server.start()
    s3 = client(f"http://127.0.0.1:{PORT}")
    say(f"{fill(s3)} sample calls in s3://recordings/support/")
    end.wait()
    keep(s3)
    server.stop()


if __name__ == "__main__":
    main()
