"""The boot id of this host, and a clock that counts from the boot. Nobody can set that clock."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path


def boot_time_us() -> int:
    """The clock of SQLite leases: µs since the host booted, including time asleep (macOS: excluding it)."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


def host_boot_id() -> str:
    """The id of this boot of this host. A lease of another boot has ended."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        done = subprocess.run(["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=True)
        return done.stdout.strip()
