"""The seccomp filter over the model's code: what a program that computes never needs.

It stands whatever profile the pod has, so that an unconfined pod (bubblewrap needs one) is no open door. It is a deny
list: the runtime's default profile is the allow list. Numbers: asm/unistd_64.h and asm-generic/unistd.h (arm64).
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from pinnace.tools.executor import linux

#: name: (x86-64, arm64); None where the architecture lacks it.
_DENIED: dict[str, tuple[int, int | None]] = {
    # other processes' memory
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    # namespaces, mounts, other roots
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    # large attack surfaces of the kernel; io_uring would also go around this filter
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    # the machine
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "iopl": (172, None),
    "ioperm": (173, None),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "syslog": (103, 116),
    "lookup_dcookie": (212, 18),
    "vhangup": (153, 58),
    # System V memory and POSIX queues outlive their processes: the next lease of the pod would find them
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
}
#: (name, argument that holds a pid): never the supervisor, which has the same uid, and never "all" (-1).
_TARGETED: dict[str, tuple[int, int, int]] = {
    "kill": (62, 129, 0),
    "tkill": (200, 130, 0),
    "tgkill": (234, 131, 0),
    "rt_sigqueueinfo": (129, 138, 0),
    "rt_tgsigqueueinfo": (297, 240, 0),
    "pidfd_open": (434, 434, 0),
    "prlimit64": (302, 261, 0),
    "sched_setaffinity": (203, 122, 0),
    "sched_setscheduler": (144, 119, 0),
    "sched_setparam": (142, 118, 0),
    "sched_setattr": (314, 274, 0),
    "setpriority": (141, 140, 1),
    "ioprio_set": (251, 30, 1),
}
_CLONE, _CLONE3, _SOCKET, _IOCTL, _SETPRIORITY, _IOPRIO_SET = (
    (56, 220),
    (435, 435),
    (41, 198),
    (16, 29),
    (141, 140),
    (251, 30),
)
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_PRIO_USER, _IOPRIO_WHO_USER = 2, 3
_X32 = 0x40000000

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_LD|W|ABS, JMP|JEQ|K, JGE, JSET, RET|K


class UnknownMachine(Exception):
    """No system call numbers for this architecture: code is not run without its filter."""


@dataclass(frozen=True)
class Policy:
    """What the filter depends on."""

    supervisor: int
    """Pid that may not be signalled, limited or slowed down."""
    network: bool
    """Sockets of the internet families. Off: only AF_UNIX, the rest is `ENETUNREACH`."""


def program(policy: Policy, machine: str | None = None) -> bytes:
    """The BPF program, 8 bytes an instruction. Raises `UnknownMachine`.

    Each rule loads what it looks at by itself and falls through to the next: no jump is longer than four instructions.
    """
    try:
        column, architecture = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}[machine or linux.machine()]
    except KeyError as error:
        raise UnknownMachine(f"no system call table for {error}; use a node of x86_64 or aarch64") from error
    code = [
        (_LOAD, 0, 0, 4),
        (_JEQ, 1, 0, architecture),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),  # 32-bit calls
        (_LOAD, 0, 0, 0),
        (_JGE, 0, 1, _X32),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for numbers in _DENIED.values():
        if (number := numbers[column]) is not None:
            code += _deny(number, errno.EPERM)
    # glibc falls back to clone, whose flags can be looked at; those of clone3 lie in memory.
    code += _deny(_CLONE3[column], errno.ENOSYS)
    code += _deny_argument(_CLONE[column], 0, [(_JSET, _NEW_NAMESPACES)], errno.EPERM)
    code += _deny_argument(_IOCTL[column], 1, [(_JEQ, _TIOCSTI), (_JEQ, _TIOCLINUX)], errno.EPERM)
    for name in _TARGETED:
        number, argument = _TARGETED[name][column], _TARGETED[name][2]
        forbidden = [(_JEQ, policy.supervisor)] + ([(_JEQ, 0xFFFFFFFF)] if name == "kill" else [])
        code += _deny_argument(number, argument, forbidden, errno.EPERM)
    code += _deny_argument(_SETPRIORITY[column], 0, [(_JEQ, _PRIO_USER)], errno.EPERM)
    code += _deny_argument(_IOPRIO_SET[column], 0, [(_JEQ, _IOPRIO_WHO_USER)], errno.EPERM)
    code += _only_families(_SOCKET[column], network=policy.network)
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


_Instruction = tuple[int, int, int, int]


def _deny(number: int, error: int) -> list[_Instruction]:
    return [(_JEQ, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]


def _deny_argument(number: int, argument: int, tests: list[tuple[int, int]], error: int) -> list[_Instruction]:
    """The low half of the argument decides: pids and flags are ints, whose upper half the kernel ignores."""
    body: list[_Instruction] = [(_LOAD, 0, 0, 16 + 8 * argument)]
    for operation, value in tests:
        body += [(operation, 0, 1, value), (_RETURN, 0, 0, _ERRNO | error)]
    body.append((_LOAD, 0, 0, 0))  # the next rule looks at the number again
    return [(_JEQ, 0, len(body), number), *body]


def _only_families(number: int, *, network: bool) -> list[_Instruction]:
    """AF_PACKET, AF_ALG, AF_VSOCK and their like are attack surface; raw sockets need a capability that nobody has."""
    families = [_AF_UNIX, *([_AF_INET, _AF_INET6, _AF_NETLINK] if network else [])]
    body: list[_Instruction] = [(_LOAD, 0, 0, 16)]
    for place, family in enumerate(families):
        body.append((_JEQ, len(families) - place, 0, family))
    body += [(_RETURN, 0, 0, _ERRNO | errno.ENETUNREACH), (_LOAD, 0, 0, 0)]
    return [(_JEQ, 0, len(body), number), *body]
