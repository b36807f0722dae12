"""A connection pooler in transaction mode before Postgres: each transaction of a client is on whatever server
connection is free.

Protocol: https://www.postgresql.org/docs/current/protocol-flow.html
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
from types import TracebackType

from tests.crash.support.proxy import Proxy

_NO_ENCRYPTION = (80877103, 80877104)  # codes of SSLRequest and GSSENCRequest
_READY, _KEY, _QUERY, _SYNC, _END = b"Z", b"K", b"Q", b"S", b"X"


class TransactionPooler(Proxy):
    """Tells each client a pid of its own making, as poolers do.

    `retire` closes the server connections it has by then.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.transactions = 0
        self._free: list[tuple[int, socket.socket]] = []
        self._generation = 0
        self._clients: set[socket.socket] = set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            for client in self._clients:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
        self.retire()
        super().__exit__(kind, error, trace)

    def retire(self) -> None:
        """As `server_lifetime` does: idle ones at once, the others after their transaction."""
        with self._lock:
            self._generation += 1
            for _, server in self._free:
                server.close()
            self._free.clear()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, EOFError):
            with self._lock:
                self._clients.add(client)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            start = _start_of(client)
            generation, server, greeting = self._connect(start)
            self._give_back(generation, server)
            client.sendall(greeting)
            while (message := _message(client))[:1] != _END:
                generation, server = self._take(start)
                try:
                    _pass_transaction(client, server, message)
                except BaseException:
                    server.close()
                    raise
                self._give_back(generation, server)
        with self._lock:
            self._clients.discard(client)

    def _connect(self, start: bytes) -> tuple[int, socket.socket, bytes]:
        server = socket.create_connection(self._server)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.sendall(start)
        greeting, message = b"", b""
        while message[:1] != _READY:
            message = _message(server)
            greeting += _KEY + struct.pack("!III", 12, 429367734, 1) if message[:1] == _KEY else message
        return self._generation, server, greeting

    def _take(self, start: bytes) -> tuple[int, socket.socket]:
        with self._lock:
            self.transactions += 1
            if self._free:
                return self._free.pop(0)
        return self._connect(start)[:2]

    def _give_back(self, generation: int, server: socket.socket) -> None:
        with self._lock:
            if generation == self._generation:
                self._free.append((generation, server))
            else:
                server.close()


def _start_of(client: socket.socket) -> bytes:
    """The startup message of a client, which is told that nothing is encrypted here."""
    while True:
        (length,) = struct.unpack("!I", head := _exactly(client, 4))
        body = _exactly(client, length - 4)
        if struct.unpack("!I", body[:4])[0] not in _NO_ENCRYPTION:
            return head + body
        client.sendall(b"N")


def _pass_transaction(client: socket.socket, server: socket.socket, first: bytes) -> None:
    """Until the server has answered everything and says that no transaction is open."""
    unanswered = first[:1] in (_QUERY, _SYNC)
    server.sendall(first)
    with selectors.DefaultSelector() as ready:
        ready.register(client, selectors.EVENT_READ)
        ready.register(server, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is client:
                    message = _message(client)
                    unanswered += message[:1] in (_QUERY, _SYNC)
                    server.sendall(message)
                    continue
                message = _message(server)
                client.sendall(message)
                if message[:1] == _READY:
                    unanswered -= 1
                    if not unanswered and message.endswith(b"I"):
                        return


def _message(source: socket.socket) -> bytes:
    head = _exactly(source, 5)
    return head + _exactly(source, struct.unpack("!I", head[1:])[0] - 4)


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = source.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data
