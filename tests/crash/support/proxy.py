"""TCP proxies before Postgres; one cuts connections at COMMIT: before the server got it, or after it has
answered.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

COMMIT = b"COMMIT\x00"  # the end of a simple query message


class Proxy(ABC):
    """Listens on a free port of its own; each client is served in a thread."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._links: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in [self._thread, *self._links]:
            link.join(30)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            link = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._links.append(link)
            link.start()

    @abstractmethod
    def _serve(self, client: socket.socket) -> None:
        """Pass on what a client and the server say, until one of them ends it."""


class CuttingProxy(Proxy):
    """`cut(n)` arms it: from then on it cuts every n-th COMMIT, in turns of both ways.

    After "the server got it" means: its answer has arrived here, and goes no further.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.cuts = {"not committed": 0, "committed": 0}
        self._every = 0
        self._seen = 0

    def cut(self, every: int) -> None:
        self._every = every

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server, selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            with contextlib.suppress(OSError):
                while self._pass_on(ready, client, server):
                    pass

    def _pass_on(
        self, ready: selectors.DefaultSelector, client: socket.socket, server: socket.socket
    ) -> bool:
        for key, _ in ready.select():
            source, target = key.fileobj, key.data
            assert isinstance(source, socket.socket)
            data = source.recv(65536)
            if not data:
                return False
            if source is client and data.endswith(COMMIT) and self._is_cut(client, server, data):
                return False
            target.sendall(data)
        return True

    def _is_cut(self, client: socket.socket, server: socket.socket, data: bytes) -> bool:
        """Whether the connection ends with this COMMIT, which then has been dealt with."""
        way = self._way()
        if way == "committed":
            server.sendall(data)
            server.recv(65536)  # it has gone in
        return way is not None

    def _way(self) -> str | None:
        with self._lock:
            self._seen += 1
            if not self._every or self._seen % self._every:
                return None
            way = "committed" if self._seen // self._every % 2 else "not committed"
            self.cuts[way] += 1
            return way


class LateProxy(CuttingProxy):
    """Keeps every n-th transaction that comes whole and hangs up on its client.

    The server gets it when `LATER` other COMMITs have passed.
    """

    LATER = 3

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.refused = 0
        self._whole = 0
        self._later = threading.Condition(self._lock)

    def _is_cut(self, client: socket.socket, server: socket.socket, data: bytes) -> bool:
        is_kept = self._is_kept(data)
        if is_kept:
            client.shutdown(socket.SHUT_RDWR)
            self._hand_over(server, data)
        return is_kept

    def _is_kept(self, data: bytes) -> bool:
        with self._later:
            self._seen += 1
            self._later.notify_all()
            is_whole = data[5:].startswith(b"BEGIN")
            self._whole += is_whole
            return is_whole and self._every > 0 and self._whole % self._every == 0

    def _hand_over(self, server: socket.socket, data: bytes) -> None:
        with self._later:
            until = self._seen + self.LATER
            assert self._later.wait_for(lambda: self._seen >= until, 30)
        server.sendall(data)
        answer = server.recv(65536)
        with self._lock:
            self.refused += b"C22012" in answer or b"C23505" in answer


class KeepingProxy(CuttingProxy):
    """Keeps the next transaction that comes whole and hangs up on its client; the server gets it when
    `hand_over` is called.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.must_keep = False
        self._go, self._is_over = threading.Event(), threading.Event()
        self._answer = b""

    def hand_over(self) -> bytes:
        """The server reads what was kept; what it answers."""
        self._go.set()
        assert self._is_over.wait(30)
        return self._answer

    def _is_cut(self, client: socket.socket, server: socket.socket, data: bytes) -> bool:
        with self._lock:
            is_kept = self.must_keep and data[5:].startswith(b"BEGIN")
            self.must_keep = self.must_keep and not is_kept
        if is_kept:
            client.shutdown(socket.SHUT_RDWR)
            assert self._go.wait(30)
            server.sendall(data)
            self._answer = server.recv(65536)
            self._is_over.set()
        return is_kept
