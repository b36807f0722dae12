"""The lease of this runtime: a row that says that its process is alive.

A thread of its own renews it three times in each lease period. On Postgres the lease uses the database's
clock and a connection of its own; the backend of that connection shows others that the process lives. On
SQLite it uses CLOCK_BOOTTIME and an OS lock, which the kernel frees when the process ends.

Between two heartbeats the thread reads what other processes tell over that connection
(`store.backends.notify`).
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from routilux.engine.clock import Clock, ServerClock
from routilux.engine.facts import Facts
from routilux.store.backends import notify, postgres_connection
from routilux.store.backends.database import Database
from routilux.store.backends.host_clock import boot_time_us, host_boot_id
from routilux.store.errors import Failure, classify
from routilux.store.types import Connection, Row
from routilux.store.writes import ownership

BACKEND_GONE_S = 0.8


class Lease:
    """Registers this process and keeps it alive."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        lease_s: float,
        version: str,
        *,
        facts: Facts,
        on_call: Callable[[], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._lease_s = lease_s
        self._version = version
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # Postgres: a connection of its own; its backend is a sign of life
        self._writer = database.connect_writer()
        # the engine comes back under a new identity while the heartbeat goes on
        self._writing = threading.Lock()
        self._bell: tuple[socket.socket, socket.socket] | None = None  # rung to end a rest
        self._facts = facts
        self._on_call = on_call  # another process has told of an inbox row
        self._gone_since: dict[tuple[int, int], float] = {}  # by backend
        self._renewed_at = 0.0  # monotonic, just before the last renewal that went in
        self._unbroken_since = 0.0
        self.key = 0
        self.is_dead = False

    def register(self) -> int:
        """A new identity; returns its key. Durable on return."""
        host_boot = host_boot_id()
        me = ownership.Identity(
            uuid.uuid4().hex,
            socket.gethostname(),
            host_boot,
            os.getpid(),
            self._version,
            round(self._lease_s * 1e6),
        )
        before = self._clock.monotonic()
        with self._writing:
            with self._writer.transaction() as connection:
                if isinstance(self._clock, ServerClock):
                    self._clock.ask(partial(self.clock_us, connection))
                until = self.clock_us(connection) + me.lease_us
                self.key = ownership.register(connection, me, until, self._clock.now_us())
                if self._database.is_postgres:
                    self._extend(connection)
            if self._database.lock_file is not None:
                self._database.lock_file.hold_alive(self.key)
            self._renewed_at = self._unbroken_since = before
            self.is_dead = False
        return self.key

    def start(self) -> None:
        if self._database.is_postgres:
            self._bell = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="routilux-heartbeat", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> bool:
        """Stop renewing; idempotent.

        False: a heartbeat was still under way after this time, by default a lease.
        """
        self._stop.set()
        bell, self._bell = self._bell, None
        if bell is not None:
            bell[1].close()
        if self._thread is None or self._thread is threading.current_thread():
            return True
        self._thread.join(self._lease_s if timeout_s is None else min(timeout_s, self._lease_s))
        return not self._thread.is_alive()

    def retire(self) -> None:
        """A clean end: workers and lease are given back at once."""
        try:
            self._give_back()
        except Exception as error:  # it rests between heartbeats, so this may be the first to find it dead
            if classify(error) is not Failure.LOST:
                raise
            self._writer.drop()
            self._give_back()
        self.drop_sign()
        if self._database.is_postgres:
            self._writer.drop()

    def _give_back(self) -> None:
        with self._writing, self._writer.transaction() as connection:
            ownership.retire(connection, self.key, self._clock.now_us())

    def drop_sign(self) -> None:
        if self._database.lock_file is not None:
            self._database.lock_file.release_alive(self.key)

    @property
    def is_good(self) -> bool:
        """By my own clock, nobody can have taken over yet."""
        return not self.is_dead and self._clock.monotonic() < self._renewed_at + self._lease_s

    @property
    def listens(self) -> bool:
        """Whether other processes are heard."""
        return self._writer.ear is not None

    def _run(self) -> None:
        bell = self._bell
        try:
            self._beat(None if bell is None else bell[0])
        finally:
            if bell is not None:
                bell[0].close()

    def _beat(self, bell: socket.socket | None) -> None:
        pause, failures = self._lease_s / 3, 0
        while True:
            try:
                if self._rest(pause, bell):
                    return
                self.renew()
                pause, failures = self._lease_s / 3, 0
            except Exception as error:  # a heartbeat that fails is tried again; the lease says how long
                self._unbroken_since = self._clock.monotonic()
                failures += 1
                # soon at first: without its backend it is dead for the others after `BACKEND_GONE_S`
                pause = min(0.025 * 2.0 ** min(failures, 10), 0.5, self._lease_s / 10)
                with self._writing:
                    self._writer.drop()
                self._facts.report("lease.renewal_failed", error=error)

    def _rest(self, pause_s: float, bell: socket.socket | None) -> bool:
        """Until it is time for a heartbeat; what is told meanwhile is heard. True: there is to be none."""
        until = time.monotonic() + pause_s
        while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
            ear = self._writer.ear
            if ear is None or bell is None:
                return self._stop.wait(left)
            driver: Any = ear.connection.driver_connection
            with selectors.DefaultSelector() as selector:
                selector.register(driver.fileno(), selectors.EVENT_READ)
                selector.register(bell, selectors.EVENT_READ)
                selector.select(left)
            self._hear()
        return self._stop.is_set()

    def _hear(self) -> None:
        with self._writing:
            ear = self._writer.ear
            has_heard = ear is not None and notify.heard(ear)
        if has_heard:
            self._on_call()

    def _extend(self, connection: Connection) -> bool:
        lease_us, now = round(self._lease_s * 1e6), self._clock.now_us()
        if self._database.is_postgres:
            if postgres_connection.is_direct(connection):
                notify.listen(connection)
            renew = partial(ownership.renew_by_server, connection, self.key, lease_us, now)
            return self._clock.ask(renew) if isinstance(self._clock, ServerClock) else renew() is not None
        return ownership.renew(connection, self.key, self.clock_us(connection) + lease_us, now)

    def renew(self) -> None:
        """Extend the lease once."""
        before = self._clock.monotonic()
        with self._writing:  # until it is noted: a new identity in between is not the one that was found dead
            with self._writer.transaction() as connection:
                alive = self._extend(connection)
            if not alive:
                self.is_dead = True
                return
            if before - self._renewed_at > self._lease_s:
                self._unbroken_since = before
            self._renewed_at = before

    def clock_us(self, connection: Connection) -> int:
        """The clock that leases are kept by."""
        return self._database.now_us(connection) if self._database.is_postgres else boot_time_us()

    def gone_backends(self, connection: Connection, me: int) -> set[int]:
        """Postgres: runtimes without another backend for their lease in the second since it was gone."""
        if not self._database.is_postgres:
            return set()
        now = self._clock.monotonic()
        gone = ownership.gone_backends(connection, me)
        self._gone_since = {backend: self._gone_since.get(backend, now) for backend in gone}
        return {gone[backend] for backend, since in self._gone_since.items() if now - since >= BACKEND_GONE_S}

    def is_over(self, row: Row[Any], now: int) -> bool:
        """Whether another's row is proof that it is dead."""
        lock_file = self._database.lock_file
        if lock_file is not None and (row.host_boot != host_boot_id() or not lock_file.is_alive(row.key)):
            return True
        trusted = self._clock.monotonic() - self._unbroken_since >= row.lease_us / 1e6
        return bool(row.lease_until < now and trusted)
