"""The seccomp program decides as written, on both machines that it knows."""

from __future__ import annotations

import errno
import struct

import pytest
from pinnace.tools.executor.seccomp import Policy, UnknownMachine, program

_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOWED = 0x7FFF0000
_ERRNO = 0x00050000


def _decide(code: bytes, machine: str, number: int, *arguments: int) -> int:
    """Runs the classic BPF that the kernel would run; the error number, 0 where the call is allowed."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, _ARCHITECTURE[machine], 0, *(value & (2**64 - 1) for value in padded))
    place = accumulator = 0
    while True:
        operation, jump_true, jump_false, value = struct.unpack_from("<HBBI", code, place * 8)
        place += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x15:
                place += jump_true if accumulator == value else jump_false
            case 0x35:
                place += jump_true if accumulator >= value else jump_false
            case 0x45:
                place += jump_true if accumulator & value else jump_false
            case 0x06:
                return 0 if value == _ALLOWED else value - _ERRNO


@pytest.mark.parametrize(
    ("what", "x86_64", "aarch64", "arguments", "network", "error"),
    [
        ("read", 0, 63, (0,), False, 0),
        ("execve", 59, 221, (), False, 0),
        ("ptrace", 101, 117, (), False, errno.EPERM),
        ("mount", 165, 40, (), True, errno.EPERM),
        ("io_uring_setup", 425, 425, (), True, errno.EPERM),
        ("fork", 56, 220, (17,), False, 0),
        ("clone of a user namespace", 56, 220, (0x10000011,), False, errno.EPERM),
        ("clone3", 435, 435, (), False, errno.ENOSYS),
        ("kill of a child", 62, 129, (55, 9), False, 0),
        ("kill of the supervisor", 62, 129, (7, 9), False, errno.EPERM),
        ("kill of all", 62, 129, (-1, 9), False, errno.EPERM),
        ("limits of itself", 302, 261, (0, 7), False, 0),
        ("limits of the supervisor", 302, 261, (7, 7), False, errno.EPERM),
        ("nice of itself", 141, 140, (0, 0, 5), False, 0),
        ("nice of all of the uid", 141, 140, (2, 0, 5), False, errno.EPERM),
        ("unix socket", 41, 198, (1, 1), False, 0),
        ("internet socket", 41, 198, (2, 1), False, errno.ENETUNREACH),
        ("internet socket where allowed", 41, 198, (2, 1), True, 0),
        ("packet socket where the network is allowed", 41, 198, (17, 3), True, errno.ENETUNREACH),
        ("a terminal's input", 16, 29, (0, 0x5412), False, errno.EPERM),
        ("a terminal's size", 16, 29, (0, 0x5413), False, 0),
    ],
)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_call_is_decided(
    machine: str, what: str, x86_64: int, aarch64: int, arguments: tuple[int, ...], network: bool, error: int
) -> None:
    code = program(Policy(supervisor=7, network=network), machine)
    assert _decide(code, machine, x86_64 if machine == "x86_64" else aarch64, *arguments) == error


def test_calls_of_other_instruction_sets_do_not_exist() -> None:
    code = program(Policy(supervisor=7, network=False), "x86_64")
    assert _decide(code, "aarch64", 63) == errno.ENOSYS
    assert _decide(code, "x86_64", 0x40000000 + 101) == errno.ENOSYS


def test_a_machine_without_a_table_runs_no_code() -> None:
    with pytest.raises(UnknownMachine, match="x86_64 or aarch64"):
        program(Policy(supervisor=7, network=False), "riscv64")
