"""The daemon of `routilux demo`: a process that can be started, killed with SIGKILL, and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

APP = "routilux_service.demo_flow"
STOP_S = 40.0


class DaemonDied(Exception):
    """The daemon ended by itself. The message contains the end of its log."""


class DaemonProcess:
    """Runs `python -m routilux daemon` on a database, one process at a time. Its log goes to a file."""

    def __init__(self, database: str, log: Path) -> None:
        self._database = database
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Start it and return its process id."""
        # The URL goes into the environment: it may contain a password, and every user can read arguments.
        environment = {**os.environ, "ROUTILUX_DATABASE_URL": self._database}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "routilux", "daemon", "--app", APP],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C goes to the demo, which then stops the daemon
            )
        return self._process.pid

    @property
    def pid(self) -> int:
        """The process id, or 0 if it does not run."""
        return 0 if self._process is None else self._process.pid

    def check_alive(self) -> None:
        """Raises `DaemonDied` if it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            tail = self._log.read_text(errors="replace")[-2000:]
            raise DaemonDied(
                f"the daemon ended with code {self._process.returncode}; {self._log} ends:\n{tail}"
            )

    def kill(self) -> None:
        """Send SIGKILL: it cannot finish anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> int | None:
        """Send SIGTERM. Returns the exit code, or None if it was not running."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(number)
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
