"""The daemon of `routilux demo`: a process that can be started, killed with SIGKILL, and told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

APP = "routilux_service.demo_flow"
STOP_S = 40.0


class DaemonDied(Exception):
    """It ended by itself; the message is the end of its log."""


class DaemonProcess:
    """`python -m routilux daemon` on a database, one process at a time; its log goes to a file."""

    def __init__(self, database: str, log: Path) -> None:
        self._database = database
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Start it; returns its process id."""
        # The URL goes by the environment: it may hold a password, and arguments can be read by everybody.
        environment = {**os.environ, "ROUTILUX_DATABASE_URL": self._database}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "routilux", "daemon", "--app", APP],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the daemon
            )
        return self._process.pid

    @property
    def pid(self) -> int:
        """0 when it does not run."""
        return 0 if self._process is None else self._process.pid

    def check_alive(self) -> None:
        """Raises `DaemonDied` if it has ended though nobody asked it to."""
        if self._process is not None and self._process.poll() is not None:
            tail = self._log.read_text(errors="replace")[-2000:]
            raise DaemonDied(
                f"the daemon ended with code {self._process.returncode}; {self._log} ends:\n{tail}"
            )

    def kill(self) -> None:
        """SIGKILL: it gets no chance to finish anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> int | None:
        """SIGTERM; returns its exit code, or None if it was not running."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(how)
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
