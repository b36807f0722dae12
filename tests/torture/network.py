"""A TCP proxy before Postgres whose network can stall and whose connections can be reset."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType

from tests.crash.support.proxy import Proxy

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no time: close() sends RST


class BadNetwork(Proxy):
    """Passes on what it may."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._flows = threading.Event()
        self._flows.set()
        self._open: set[socket.socket] = set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flow()
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
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    end.shutdown(socket.SHUT_RDWR)

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._server) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
            back.start()
            self._pass_on(client, server)
            back.join()
            with self._lock:
                self._open -= {client, server}

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
