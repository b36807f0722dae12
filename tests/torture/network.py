"""A TCP proxy before Postgres whose network can stall, and whose connections can be reset or hung up."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from types import TracebackType

from tests.crash.support.proxy import Proxy

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no time: close() sends RST


@dataclass(eq=False)
class _Link:
    client: socket.socket
    server: socket.socket
    passes: threading.Event = field(default_factory=threading.Event)  # what the client says


class BadNetwork(Proxy):
    """Passes on what it may."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._flows = threading.Event()
        self._flows.set()
        self._open: set[_Link] = set()
        self._held: list[_Link] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flow()
        self.deliver()
        self.reset()
        super().__exit__(kind, error, trace)

    def stall(self) -> None:
        """Nothing arrives until `flow`."""
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    def reset(self) -> None:
        """Cut every connection."""
        with self._lock:
            for link in self._open:
                _cut(link.client)
                _cut(link.server)

    def hold(self) -> None:
        """What clients say on the connections of now goes no further until `deliver`."""
        with self._lock:
            self._held = list(self._open)
        for link in self._held:
            link.passes.clear()

    def hang_up(self) -> None:
        """The clients of the held connections lose them; the server does not learn of it before `deliver`."""
        for link in self._held:
            _cut(link.client)

    def deliver(self) -> None:
        """The server reads what they had said."""
        for link in self._held:
            link.passes.set()
        self._held = []

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._server) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(client, server)
            link.passes.set()
            with self._lock:
                self._open.add(link)
            back = threading.Thread(target=self._pass_on, args=(link, server, client), daemon=True)
            back.start()
            self._pass_on(link, client, server)
            back.join()
            with self._lock:
                self._open.discard(link)

    def _pass_on(self, link: _Link, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                if source is link.client:
                    link.passes.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _cut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.shutdown(socket.SHUT_RDWR)
