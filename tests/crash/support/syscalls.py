"""Which writes and fsyncs a process makes, in order, as the kernel sees them: a small tracer (Linux, ptrace).

    python -m tests.crash.support.syscalls module:function '{"argument": …}'

forks, calls the function in the child under trace, and prints one JSON line `[call, path]` for each of
`write`, `pwrite64` (when it begins) and `fsync`, `fdatasync` (when it has succeeded). No tool and no compiler
is needed.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import platform
import signal
import sys

NUMBERS = {
    "x86_64": {1: "write", 18: "pwrite64", 20: "writev", 74: "fsync", 75: "fdatasync"},
    "aarch64": {64: "write", 68: "pwrite64", 66: "writev", 82: "fsync", 83: "fdatasync"},
}[platform.machine()]
SYNCS = {"fsync", "fdatasync"}

_SYSCALL, _SEIZE, _INTERRUPT, _SYSCALL_INFO = 24, 0x4206, 0x4207, 0x420E
_SYSGOOD, _CLONE, _EXITKILL = 1, 8, 0x100000
_WALL = 0x40000000
_ENTRY, _EXIT = 1, 2


class Info(ctypes.Structure):
    """`struct ptrace_syscall_info`: at entry `values` is the number and the arguments, at exit the result."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("values", ctypes.c_int64 * 8),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def ptrace(request: int, pid: int, address: int = 0, data: object = None) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x}: {os.strerror(ctypes.get_errno())}")


def trace(pid: int) -> int:
    """Print the calls of a process and all its threads until it ends; its exit code."""
    running: dict[int, tuple[str, str]] = {}  # thread -> the call that it is in
    while True:
        thread, status = os.waitpid(-1, _WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if thread == pid:
                return os.waitstatus_to_exitcode(status)
            continue
        stop, deliver = os.WSTOPSIG(status), 0
        if stop == signal.SIGTRAP | 0x80:
            _note(pid, thread, running)
        elif not status >> 16:
            deliver = stop
        try:
            ptrace(_SYSCALL, thread, 0, deliver)
        except ProcessLookupError:  # killed meanwhile
            continue


def _note(pid: int, thread: int, running: dict[int, tuple[str, str]]) -> None:
    info = Info()
    ptrace(_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.byref(info))
    if info.op == _ENTRY:
        name = NUMBERS.get(info.values[0])
        if name is None:
            return
        running[thread] = (name, _path(pid, info.values[1]))
        if name not in SYNCS:
            print(json.dumps(running.pop(thread)), flush=True)
    elif info.op == _EXIT and thread in running:
        call = running.pop(thread)
        if info.values[0] == 0:
            print(json.dumps(call), flush=True)


def _path(pid: int, descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        return ""


def main(run: str, arguments: str) -> int:
    module, function = run.split(":")
    call = getattr(importlib.import_module(module), function)
    gate, opened = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.read(gate, 1)
            os.dup2(2, 1)
            call(**json.loads(arguments))
            code = 0
        finally:
            os._exit(code)
    ptrace(_SEIZE, pid, 0, _SYSGOOD | _CLONE | _EXITKILL)
    ptrace(_INTERRUPT, pid)
    os.write(opened, b"1")
    return trace(pid)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
