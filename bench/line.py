"""A line with a delay: a proxy that hands every byte on a fixed time after it came.

The delay is that of a long cable. What is under way is not bounded (up to WINDOW_BYTES), so the
delay takes nothing from the throughput; and it counts connections. Run by hand:

    python3 bench/line.py TARGET_HOST:PORT DELAY_MS        prints the address to use instead
"""

import asyncio
import sys
import threading
import time

PIECE_BYTES = 256 << 10
# What one direction of one connection may hold: 64 MiB in 25 ms are 2.6 GB/s.
WINDOW_BYTES = 64 << 20


class Line:
    """A proxy before `target` ("host:port") that runs in a thread of its own until the end."""

    def __init__(self, target, delay_s):
        self.target, self.delay_s = target, delay_s
        self.open_now = self.open_max = self.bytes_up = self.bytes_down = 0
        self.address = None
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        thread.start()
        started.wait()

    def forget(self):
        """Counts from here on anew."""
        self.open_max, self.bytes_up, self.bytes_down = self.open_now, 0, 0

    def _run(self, started):
        asyncio.set_event_loop(self._loop)
        serve = asyncio.start_server(self._accept, "127.0.0.1", 0, limit=PIECE_BYTES)
        server = self._loop.run_until_complete(serve)
        self.address = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()

    async def _accept(self, reader, writer):
        host, port = self.target.rsplit(":", 1)
        try:
            their_reader, their_writer = await asyncio.open_connection(
                host, int(port), limit=PIECE_BYTES)
        except OSError:
            writer.close()
            return
        self.open_now += 1
        self.open_max = max(self.open_max, self.open_now)

        def closed():
            self.open_now -= 1

        # Open for as long as the client holds it, not until all that was under way arrived.
        await asyncio.gather(self._carry(reader, their_writer, True, closed),
                             self._carry(their_reader, writer, False, lambda: None))

    async def _carry(self, reader, writer, is_up, closed):
        """Takes bytes off one side at once, and gives them to the other when it is time."""
        under_way = asyncio.Queue()
        room = asyncio.Semaphore(WINDOW_BYTES // PIECE_BYTES)

        async def take():
            piece = b"?"
            while piece:
                await room.acquire()
                try:
                    piece = await reader.read(PIECE_BYTES)
                except OSError:
                    piece = b""
                if not piece:
                    closed()
                under_way.put_nowait((time.monotonic() + self.delay_s, piece))

        taking = asyncio.create_task(take())
        try:
            while True:
                due, piece = await under_way.get()
                early = due - time.monotonic()
                if early > 0:
                    await asyncio.sleep(early)
                room.release()
                if not piece:
                    break
                writer.write(piece)
                await writer.drain()
                if is_up:
                    self.bytes_up += len(piece)
                else:
                    self.bytes_down += len(piece)
        except OSError:
            pass
        if not taking.done():
            taking.cancel()
            closed()
        # The end of one direction ends both: HTTP closes a connection as a whole.
        writer.close()


if __name__ == "__main__":
    line = Line(sys.argv[1], float(sys.argv[2]) / 1000)
    print(line.address, flush=True)
    threading.Event().wait()
