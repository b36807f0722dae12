"""A full file system: the runtime keeps what it holds, says so, and goes on when there is room again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "support" / "full_disk.py"
# the first of these that may make a mount namespace here; root needs no user namespace
NAMESPACES = (["unshare", "--mount"], ["unshare", "--mount", "--user", "--map-root-user"])


def _mounting() -> list[str] | None:
    for command in NAMESPACES:
        try:
            probe = ["mount", "-t", "tmpfs", "tmpfs", "/mnt"]
            if subprocess.run([*command, *probe], capture_output=True, check=False).returncode == 0:
                return command
        except FileNotFoundError:
            return None
    return None


@pytest.mark.parametrize("how", ["tmpfs", "limit"])
def test_posts_wait_for_room_and_every_effect_counts_once(tmp_path: Path, how: str) -> None:
    # where nobody may mount (a container without rights, macOS) the limit stands for the full file system
    namespace = _mounting() if how == "tmpfs" else []
    how = "limit" if namespace is None else how
    done = subprocess.run(
        [*(namespace or []), sys.executable, str(PROGRAM), str(tmp_path), how],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "said" in done.stdout
    assert done.stdout.split()[-1] == "once"
