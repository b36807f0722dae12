"""The boot of this host, and a clock that counts from it: nobody can set that one."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path


def boot_time_us() -> int:
    """The clock of SQLite leases: µs since the host booted, time asleep included (macOS: excluded)."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


def host_boot_id() -> str:
    """Names this boot of this host: a lease of another boot is over."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        done = subprocess.run(["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=True)
        return done.stdout.strip()
