"""A network link that a test can cut: a TCP proxy that can stop forwarding."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator


class Link:
    """Forwards connections to a port of this machine.

    While the link is cut, data stays in transit, on existing and new connections. Once it is mended all of it arrives,
    even if the sender has given up meanwhile, as with TCP retransmission.

    Attributes:
        port: to connect to.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._loop = asyncio.new_event_loop()
        self._whole = asyncio.Event()
        self._whole.set()
        server = self._loop.run_until_complete(asyncio.start_server(self._forward, "127.0.0.1", 0, backlog=1024))
        self.port = int(server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Stop forwarding."""
        self._loop.call_soon_threadsafe(self._whole.clear)

    def mend(self) -> None:
        """Resume forwarding."""
        self._loop.call_soon_threadsafe(self._whole.set)

    @contextlib.contextmanager
    def up(self) -> Iterator[Link]:
        """Run the proxy while the block lasts."""
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        yield self
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread.join()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await self._whole.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            await self._whole.wait()
            with contextlib.suppress(OSError):
                writer.close()
