"""A small TCP proxy whose connections can be cut, refused or held up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

_CHUNK = 65_536


class Proxy:
    """Passes bytes between 127.0.0.1:`port` and 127.0.0.1:`target`; its methods may be called from any thread."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.target = target
        self.cuts = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {port}", daemon=True)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._refusals = 0

    def cut(self, seconds: float) -> None:
        """Reset every connection, and new ones for so long; returns at once."""
        self.cuts += 1
        self._ask(self._refuse(seconds))

    def stall(self, seconds: float) -> None:
        """Keep every connection and pass nothing on for so long; returns at once."""
        self.cuts += 1
        self._ask(self._hold(seconds))

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._flows.set)

    def stop(self) -> None:
        """End every connection and the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def _ask(self, doing: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(doing, self._loop)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def _refuse(self, seconds: float) -> None:
        # It goes on listening: asyncio leaks a connection that is accepted while its server closes.
        self._refusals += 1
        self._reset()
        await asyncio.sleep(seconds)
        self._refusals -= 1

    async def _hold(self, seconds: float) -> None:
        self._flows.clear()
        await asyncio.sleep(seconds)
        self._flows.set()

    async def _close(self) -> None:
        self._refusals += 1
        if self._server is not None:
            for listening in self._server.sockets:
                self._loop.remove_reader(listening.fileno())
            # What was just accepted gets to where it cleans up after itself.
            await asyncio.sleep(0.05)
            self._server.close()
        self._reset()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _reset(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusals:
            writer.transport.abort()
            return
        mine = [writer]
        self._open.add(writer)
        # Cancelled only by `stop`; asyncio's streams would print that as an error of their own.
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
                mine.append(far_writer)
                self._open.add(far_writer)
                await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        finally:
            for one in mine:
                one.transport.abort()
                self._open.discard(one)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()


@contextlib.contextmanager
def proxied(free_port: Callable[[], int], target: int) -> Iterator[Proxy]:
    """A proxy in front of the port `target`."""
    proxy = Proxy(free_port(), target)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
