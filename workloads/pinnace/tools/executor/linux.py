"""The few system calls that the standard library does not wrap."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_SYS_OPENAT2 = 437  # the same number on every architecture
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08
_SFD_NONBLOCK_CLOEXEC = 0o2004000
_SIGINFO_BYTES = 128


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(option: int, *values: int) -> None:
    padded = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    _check(_libc.prctl(ctypes.c_int(option), *padded), f"prctl({option})")


def die_with_parent() -> None:
    """SIGKILL to this process when the thread that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def become_subreaper() -> None:
    """Orphans below this process become its children, so that no daemon gets out of its tree."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_new_privileges() -> None:
    """setuid programs and file capabilities give nothing from here on; needed before a seccomp filter."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def hide_from_ptrace() -> None:
    """Nobody with this uid can read this process's memory, environment or descriptors; no core dump."""
    _prctl(_PR_SET_DUMPABLE, 0)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install_filter(program: bytes) -> None:
    """Puts a seccomp program (8 bytes an instruction) over this process and all that it will start."""
    given = _Program(len(program) // 8, program)
    result = _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(given), 0, 0)
    _check(result, "seccomp")


def open_beneath(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Opens `path` below the folder `root`. Raises `OSError` (EXDEV) where it, or a link on the way, leaves it.

    Source: openat2(2). Kernels before 5.6 and gVisor have no such call: there every link is refused (ELOOP).
    """
    flags |= os.O_CLOEXEC
    how = struct.pack("QQQ", flags, mode if flags & os.O_CREAT else 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    result = _libc.syscall(ctypes.c_long(_SYS_OPENAT2), ctypes.c_int(root), os.fsencode(path), how, len(how))
    if result >= 0:
        return int(result)
    number = ctypes.get_errno()
    if number not in {38, 1}:  # ENOSYS; EPERM from a seccomp profile that is older than the call
        raise OSError(number, os.strerror(number), path)
    return _walk_beneath(root, path, flags, mode)


def _walk_beneath(root: int, path: str, flags: int, mode: int) -> int:
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts or path.startswith("/"):
        raise OSError(18, "leaves the folder", path)
    current = os.dup(root)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = below
        return os.open(parts[-1] if parts else ".", flags | os.O_NOFOLLOW, mode, dir_fd=current)
    finally:
        os.close(current)


def signal_descriptor(numbers: Iterable[int]) -> int:
    """A descriptor that gives these signals, which are blocked from here on (children must unblock them)."""
    signals = set(numbers)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    mask = sum(1 << (number - 1) for number in signals).to_bytes(128, "little")
    return _check(_libc.signalfd(-1, mask, _SFD_NONBLOCK_CLOEXEC), "signalfd")


def read_signals(descriptor: int) -> list[tuple[int, int]]:
    """(signal, sender's pid) of all that wait; the pid is 0 where the sender is outside of our pid namespace."""
    try:
        data = os.read(descriptor, 16 * _SIGINFO_BYTES)
    except BlockingIOError:
        return []
    found = []
    for start in range(0, len(data), _SIGINFO_BYTES):
        number, _, _, pid = struct.unpack_from("IiiI", data, start)
        found.append((number, pid))
    return found


def kernel_log() -> str:
    """The kernel's log where it may be read (gVisor lets everybody), else nothing."""
    buffer = ctypes.create_string_buffer(16384)
    length = _libc.klogctl(3, buffer, len(buffer))
    return buffer.raw[: max(0, length)].decode(errors="replace")


def machine() -> str:
    """x86_64, aarch64, …"""
    return platform.machine()
