"""What a model's code may try against its sandbox: one table. Code prints BREACH where it got what it must not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pinnace.tools.outcome import Outcome

from e2e.sandbox import archives
from e2e.sandbox.pod import Pod

SECRET = "secret-of-the-neighbour-5eed"

_PRELUDE = """
import ctypes, errno, mmap, os, resource, signal, socket, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what, function):
    try:
        result = function()
    except BaseException as error:
        print("stopped:", what, type(error).__name__, error)
    else:
        print("BREACH:", what, result)
def syscall(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""


@dataclass(frozen=True)
class Step:
    """One call of a session tool."""

    tool: str
    arguments: dict[str, Any]
    deadline: float = 60
    """Seconds that the caller waits."""


def _nothing(_: Pod) -> None:
    """No more to look at."""


@dataclass(frozen=True)
class Attempt:
    """One row: the steps, the outcomes that are right, and what must hold afterwards."""

    name: str
    steps: Sequence[Step]
    last: frozenset[Outcome]
    """Right outcomes of the last step."""
    expected: frozenset[Outcome]
    """Right outcomes of every step."""
    says: str = ""
    """In the last step's text."""
    networked: bool = False
    """Runs in the pod that may use sockets."""
    afterwards: Callable[[Pod], None] = _nothing


def _python(code: str, seconds: float = 10) -> Step:
    return Step("python", {"code": _PRELUDE + code, "timeoutSeconds": seconds})


def _shell(command: str, seconds: float = 10) -> Step:
    return Step("shell", {"command": command, "timeoutSeconds": seconds})


def _file(tool: str, **arguments: Any) -> Step:
    return Step(tool, arguments)


def _row(name: str, steps: Step | list[Step], last: str, says: str = "", **more: Any) -> Attempt:
    right = frozenset(Outcome(word) for word in last.split())
    given = steps if isinstance(steps, list) else [steps]
    # Steps before the last one prepare: how they end is theirs, as long as they end by themselves.
    every = right | ({Outcome.OK, Outcome.TOOL_ERROR} if len(given) > 1 else frozenset())
    return Attempt(name, given, right, frozenset(every), says, **more)


def _few_processes(pod: Pod) -> None:
    """Within seconds only the supervisor and its interpreters are left."""
    deadline = time.monotonic() + 10
    count = 999
    while time.monotonic() < deadline:
        count = int(
            pod.tool("python", code="import os; sum(name.isdigit() for name in os.listdir('/proc'))").text or 999
        )
        if count <= 6:
            return
        time.sleep(0.05)
    raise AssertionError(f"{count} processes are left; {pod.log()}")


def _nothing_grows(pod: Pod) -> None:
    """No daemon writes its heartbeat any more."""
    code = "import os, time; a = os.stat('/workspace/beat').st_size; time.sleep(0.4); os.stat('/workspace/beat').st_size - a"
    result = pod.tool("python", code=code)
    assert result.text == "0", result.text


def _gone_after_reset(pod: Pod) -> None:
    status, answer = pod.request("POST", "/lease/reset", {})
    assert status == 200, answer
    assert pod.tool("list_files").text == "[empty]"
    _few_processes(pod)


def _no_mark(pod: Pod) -> None:
    result = pod.tool("find_files", pattern="PWNED*")
    assert result.text == "[no match]", result.text


def _files_work(pod: Pod) -> None:
    pod.tool("shell", command="rm -rf /workspace/* /scratch/*")
    assert pod.tool("write_file", path="after.txt", content="x").ok


def _next_lease_finds_nothing(pod: Pod) -> None:
    pod.release()
    pod.wait("free")
    pod.arm()
    look = "ls -A /workspace /scratch /dev/shm; env | grep RESIDUE; ipcs -m 2>/dev/null | grep 0x; ss -xl 2>/dev/null | grep residue"
    text = pod.tool("shell", command=look).text
    assert "residue" not in text.lower(), text


_DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
        os.closerange(0, 1000)
        libc.prctl(36, 0)
        while True:
            with open("/workspace/beat", "a") as file: file.write(".")
            time.sleep(0.02)
    os._exit(0)
while not os.path.exists("/workspace/beat"): time.sleep(0.01)
"""

_SEARCH = f"""
import glob
found = []
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    try: data = open(path, "rb").read()
    except OSError as error: continue
    if b"{SECRET[:12]}" + b"{SECRET[12:]}" in data or b"key-of-the-gate" + b"way" in data: found.append(path)
print("BREACH" if found else "stopped: nothing of others in /proc", found)
print(len(glob.glob("/proc/[0-9]*")), "processes seen")
"""

RESOURCES = [
    _row(
        "fork bomb in Python",
        _python("while True:\n  try: os.fork()\n  except OSError: pass"),
        "tool_error",
        afterwards=_few_processes,
    ),
    _row("fork bomb in bash", _shell(":(){ :|:& };:; sleep 3"), "ok tool_error", afterwards=_few_processes),
    _row(
        "thread bomb",
        _python(
            "try:\n  while True: threading.Thread(target=time.sleep, args=(60,)).start()\nexcept RuntimeError: time.sleep(2); raise"
        ),
        "tool_error",
        afterwards=_few_processes,
    ),
    _row("memory bomb, one piece", _python("bytearray(10**11)"), "tool_error", "MemoryError"),
    _row(
        "memory bomb, many pieces",
        _python("kept = []\nwhile True: kept.append(bytearray(10**6))"),
        "tool_error",
        afterwards=lambda pod: pod.tool("python_reset"),
    ),
    _row(
        "memory bomb in shared pages",
        _python("m = mmap.mmap(-1, 1 << 30)\nfor i in range(0, 1 << 30, 4096): m[i] = 1\nprint('BREACH')"),
        "tool_error",
        "afresh",
    ),
    _row(
        "memory bomb in many processes",
        _shell(
            "for i in 1 2 3 4 5 6; do python3 -c 'x = bytearray(60 << 20); import time; time.sleep(30)' & done; wait"
        ),
        "tool_error",
        "memory",
    ),
    _row(
        "disk fill",
        _python("with open('/workspace/big', 'wb') as f:\n  while True: f.write(b'x' * 65536)"),
        "tool_error",
        "No space left",
        afterwards=_files_work,
    ),
    _row(
        "sparse file over the limit",
        _python("f = open('/workspace/big', 'wb'); f.truncate(10**10); print('BREA' + 'CH')"),
        "tool_error",
        "File too large",
    ),
    _row(
        "inode fill",
        _python("for i in range(10**6): open(f'/workspace/f{i}', 'w').close()"),
        "tool_error",
        "No space left",
        afterwards=_files_work,
    ),
    _row(
        "folders nested 3,000 deep",
        _python("for i in range(3000):\n  os.mkdir('d'); os.chdir('d')\nprint('stopped: see afterwards')"),
        "ok",
        afterwards=_gone_after_reset,
    ),
    _row("huge output", _python("for _ in range(64): sys.stdout.write('x' * (1 << 20))"), "ok", "bytes left out"),
    _row("endless output", _shell("yes", 1), "timeout", "bytes left out"),
    _row("infinite loop", _python("while True: pass", 0.5), "timeout", "kept"),
    _row(
        "sleep with signals ignored",
        _python("for n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, signal.SIG_IGN)\ntime.sleep(60)", 0.5),
        "timeout",
        "afresh",
    ),
    _row(
        "interrupt swallowed for ever",
        _python("while True:\n  try: time.sleep(60)\n  except BaseException: pass", 0.5),
        "timeout",
        "afresh",
    ),
    _row(
        "daemon by double fork, then time is up",
        _python(_DAEMON + "signal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)", 0.7),
        "timeout",
        afterwards=_nothing_grows,
    ),
    _row(
        "daemon of bash, then an interrupt",
        _shell("(setsid bash -c 'trap \"\" INT TERM; while :; do echo . >> beat; sleep 0.02; done' &); sleep 60", 0.7),
        "timeout",
        "kept",
        afterwards=_nothing_grows,
    ),
    _row("daemon by double fork, then reset", _python(_DAEMON), "ok", afterwards=_gone_after_reset),
    _row(
        "deep recursion",
        _python("sys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)"),
        "tool_error",
        afterwards=lambda pod: pod.tool("python_reset"),
    ),
    _row("source nested too deep", _python("x = " + "(" * 5000 + ")" * 5000), "tool_error"),
    _row(
        "core dump",
        [
            _python("os.abort()"),
            _shell("ls -A /workspace /scratch | grep core && echo BREACH || echo stopped: no core"),
        ],
        "ok",
        "no core",
    ),
    _row(
        "own limits raised",
        _python(
            "for kind in (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU, resource.RLIMIT_CORE):\n  attempt(kind, lambda: resource.setrlimit(kind, (resource.RLIM_INFINITY,) * 2))"
        ),
        "ok",
        "stopped",
    ),
    _row(
        "priority and affinity",
        _python(
            "attempt('nice', lambda: os.nice(-5))\nattempt('real time', lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)))\nattempt('affinity of the supervisor', lambda: os.sched_setaffinity(1, {0}))\nattempt('limits of the supervisor', lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (3, 3)))\nattempt('nice of all', lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19))\nattempt('nice of the supervisor', lambda: os.setpriority(os.PRIO_PROCESS, 1, 19))"
        ),
        "ok",
        "stopped",
    ),
]

OTHERS = [
    _row("/proc of neighbours and agent", _python(_SEARCH), "ok", "stopped"),
    _row(
        "the supervisor's environment and memory",
        _python(
            "for name in ('environ', 'mem', 'maps', 'fd', 'root', 'cwd', 'exe'):\n  attempt(name, lambda: os.listdir(f'/proc/1/{name}') if name in ('fd', 'root', 'cwd') else open(f'/proc/1/{name}', 'rb').read(8))"
        ),
        "ok",
        "stopped",
    ),
    _row(
        "the file helper's memory",
        _python(
            "import glob\nfor path in glob.glob('/proc/[0-9]*/cmdline'):\n  if b'executor.files' in open(path, 'rb').read(): attempt('mem', lambda: open(path.replace('cmdline', 'mem'), 'r+b'))"
        ),
        "ok",
        "stopped",
    ),
    _row(
        "the key file",
        _shell(
            "cat /secrets/key /var/run/secrets/pinnace-tools/key /proc/1/root/secrets/key /run/secrets/* 2>&1; echo stopped"
        ),
        "ok",
        "No such file",
    ),
    _row(
        "ptrace",
        _python(
            "attempt('attach', lambda: syscall(101, 16, 1, 0, 0))\nattempt('seize', lambda: syscall(101, 0x4206, os.getppid(), 0, 0))\nattempt('process_vm_readv', lambda: syscall(310, 1, None, 0, None, 0, 0))\nattempt('pidfd', lambda: syscall(434, 1, 0))"
        ),
        "ok",
        "stopped",
    ),
    _row(
        "signals to the supervisor",
        [
            _python("for n in (9, 15, 19, 11, 2, 1, 17, 34): attempt(n, lambda: os.kill(1, n))"),
            _shell("kill -9 1; kill -STOP 1; kill -TERM 1; echo stopped"),
        ],
        "ok",
        "not permitted",
    ),
    _row("signals to all", _python("attempt('all', lambda: os.kill(-1, 9))"), "ok", "stopped"),
    _row(
        "signals to every pid there may be",
        [
            _python(
                "for pid in range(2, 40000):\n  if pid != os.getpid():\n    try: os.kill(pid, 9)\n    except OSError: pass\nprint('stopped: only what is ours')"
            ),
            _shell("echo alive"),
        ],
        "ok tool_error",
    ),
    _row(
        "file helper killed",
        [
            _python(
                "import glob\nfor path in glob.glob('/proc/[0-9]*/cmdline'):\n  if b'executor.files' in open(path, 'rb').read(): os.kill(int(path.split('/')[2]), signal.SIGKILL)"
            ),
            _file("list_files"),
        ],
        "ok",
        "[empty]",
    ),
    _row(
        "file helper stopped",
        [
            _python(
                "import glob\nfor path in glob.glob('/proc/[0-9]*/cmdline'):\n"
                "  if b'executor.files' in open(path, 'rb').read(): os.kill(int(path.split('/')[2]), signal.SIGSTOP)"
            ),
            Step("list_files", {}, deadline=0.5),
        ],
        "timeout",
        afterwards=_files_work,
    ),
    _row(
        "System V memory, queues, keyrings",
        _python(
            "attempt('shmget', lambda: syscall(29, 0, 4096, 0o1777))\nattempt('msgget', lambda: syscall(68, 0, 0o1777))\nattempt('mq_open', lambda: syscall(240, b'residue', 0o102, 0o777, None))\nattempt('add_key', lambda: syscall(248, b'user', b'residue', b'x', 1, -3))"
        ),
        "ok",
        "stopped",
    ),
    _row(
        "what is left for the next lease",
        _python(
            "os.environ['RESIDUE'] = '1'\nfor folder in ('/workspace', '/scratch', '/dev/shm'): open(folder + '/residue', 'w').write('residue')\ns = socket.socket(socket.AF_UNIX); s.bind('\\0residue'); s.listen()\nif os.fork() == 0: time.sleep(600)\nprint('stopped: see afterwards')"
        ),
        "ok",
        afterwards=_next_lease_finds_nothing,
    ),
]

KERNEL = [
    _row(
        "memory and kernel devices",
        _python(
            "for name in ('mem', 'kmem', 'kmsg', 'port', 'sda', 'vda', 'kvm', 'fuse', 'net/tun', 'loop0'): attempt(name, lambda: open('/dev/' + name, 'rb'))\nattempt('mknod', lambda: os.mknod('/workspace/m', 0o020666, os.makedev(1, 1)))\nattempt('core pattern', lambda: open('/proc/sys/kernel/core_pattern', 'w'))\nattempt('sysrq', lambda: open('/proc/sysrq-trigger', 'w'))\nattempt('kcore', lambda: open('/proc/kcore', 'rb').read(4)[3])"
        ),
        "ok",
        "stopped",
    ),
    _row(
        "setuid",
        [
            _python(
                "attempt('root', lambda: os.setuid(0))\nattempt('the agent', lambda: os.setuid(65532))\nattempt('group', lambda: os.setgroups([0]))"
            ),
            _shell(
                "for p in $(find /usr/bin /usr/sbin -perm -4000 2>/dev/null | head -20); do grep -E '^(NoNewPrivs|CapEff)' /proc/self/status; break; done; su -c id </dev/null 2>&1 | grep -q 'uid=0' && echo BREACH; cp /bin/sh /workspace/s; chmod 6777 /workspace/s; /workspace/s -pc id; rm /workspace/s"
            ),
        ],
        "ok",
        "uid=65533",
    ),
    _row(
        "mount",
        [
            _python(
                "attempt('mount', lambda: syscall(165, b't', b'/workspace', b'tmpfs', 0, None))\nattempt('fsopen', lambda: syscall(430, b'tmpfs', 0))\nattempt('umount', lambda: syscall(166, b'/workspace', 2))"
            ),
            _shell(
                "mount -t tmpfs t /workspace; mount -o remount,rw / && echo BREACH; touch /usr/x && echo BREACH; echo stopped"
            ),
        ],
        "ok",
        "stopped",
    ),
    _row(
        "namespaces",
        [
            _python(
                "for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000): attempt(hex(flag), lambda: syscall(272, flag))\nattempt('clone', lambda: syscall(56, 0x10000000 | 17, 0, 0, 0, 0))\nattempt('clone3', lambda: syscall(435, ctypes.create_string_buffer(struct.pack('Q', 0x10000000) + bytes(56)), 64))"
            ),
            _shell(
                "unshare -Ur id && echo BREACH; unshare -n true && echo BREACH; nsenter -t 1 -m id && echo BREACH; echo stopped"
            ),
        ],
        "ok",
        "stopped",
    ),
    _row(
        "chroot",
        _python(
            "attempt('chroot', lambda: os.chroot('/workspace'))\nattempt('pivot_root', lambda: syscall(155, b'/', b'/'))\nattempt('open_by_handle_at', lambda: syscall(304, 3, ctypes.create_string_buffer(128), 0))"
        ),
        "ok",
        "stopped",
    ),
    _row(
        "large surfaces of the kernel",
        _python(
            "for name, number in dict(bpf=321, perf_event_open=298, userfaultfd=323, io_uring_setup=425, kexec_load=246, init_module=175, keyctl=250, fanotify=300).items(): attempt(name, lambda: syscall(number, 0, 0, 0, 0, 0))\nattempt('TIOCSTI', lambda: __import__('fcntl').ioctl(0, 0x5412, b'x'))"
        ),
        "ok",
        "stopped",
    ),
]

FILES = [
    _row(
        "symbolic link out", [_shell("ln -s /etc/passwd link"), _file("read_file", path="link")], "denied", "leads out"
    ),
    _row(
        "symbolic link to a folder out",
        [_shell("ln -s / root"), _file("read_file", path="root/etc/passwd")],
        "denied",
        "leads out",
    ),
    _row(
        "write through a link out",
        [_shell("ln -s /scratch out; true"), _file("write_file", path="out/x", content="x")],
        "denied",
    ),
    _row("link to a magic link", [_shell("ln -s /proc/self/root r"), _file("list_files", path="r/etc")], "denied"),
    _row("dots out", _file("read_file", path="../etc/passwd"), "denied", "outside"),
    _row(
        "dots through a link",
        [_shell("mkdir -p a; ln -s /etc a/l; true"), _file("read_file", path="a/l/../passwd")],
        "denied not_found invalid_arguments tool_error".replace("not_found ", ""),
    ),
    _row("absolute path", _file("download", path="/etc/passwd"), "denied", "outside"),
    _row(
        "hard link",
        _python(
            "attempt('passwd', lambda: os.link('/etc/passwd', '/workspace/p'))\nattempt('log', lambda: os.link('/dev/termination-log', '/workspace/t'))"
        ),
        "ok",
        "stopped",
    ),
    _row("pipe instead of a file", [_shell("mkfifo p"), _file("read_file", path="p")], "denied", "no regular file"),
    _row("device instead of a file", [_shell("ln -s /dev/zero z"), _file("download", path="z")], "denied"),
    _row("zip bomb", _file("upload", path="z", data=archives.zip_bomb(), unpack=True), "denied", "unpacks to more"),
    _row("tar.gz bomb", _file("upload", path="z", data=archives.tar_bomb(), unpack=True), "denied", "unpacks to more"),
    _row(
        "tar with a symbolic link",
        _file("upload", path="z", data=archives.tar_with_link(), unpack=True),
        "denied",
        "link or special",
    ),
    _row(
        "tar with an absolute path",
        _file("upload", path="z", data=archives.tar_with("/etc/x"), unpack=True),
        "denied",
        "outside",
    ),
    _row(
        "zip with dots", _file("upload", path="z", data=archives.zip_with("../../x"), unpack=True), "denied", "outside"
    ),
    _row(
        "pattern that never ends",
        [_python("open('/workspace/a', 'w').write('a' * 60 + 'b')"), Step("grep", {"pattern": "(a+)+$"}, deadline=1)],
        "timeout",
    ),
    _row(
        "modules laid for the helpers",
        [
            _python(
                "for name in ('json', 'base64', 'sitecustomize', 'usercustomize', 'pinnace', 'site'):\n  open(f'/workspace/{name}.py', 'w').write('open(\"/workspace/PWNED-\" + str(id(0)), \"w\")')\nfor name in ('LD_PRELOAD', 'PYTHONPATH', 'PYTHONSTARTUP', 'BASH_ENV', 'PYTHONHOME'): os.environ[name] = '/workspace/json.py'"
            ),
            _shell(
                "export LD_PRELOAD=/workspace/json.py BASH_ENV=/workspace/json.py PYTHONPATH=/workspace; for f in /proc/[0-9]*/cmdline; do grep -q executor.files $f && kill -9 $(echo $f | cut -d/ -f3); done; true"
            ),
            _file("list_files"),
        ],
        "ok",
        afterwards=_no_mark,
    ),
    _row(
        "the termination log",
        _shell("head -c 50000000 /dev/zero > /dev/termination-log; echo stopped"),
        "ok tool_error",
        "stopped",
    ),
]

CHANNELS = [
    _row(
        "frames and JSON-RPC into every descriptor",
        [
            _python("""
import json
fake = [json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "forged"}]}}).encode() + b"\\n"]
body = json.dumps({"value": "forged", "id": 1, "hello": 1}).encode()
fake.append(len(body).to_bytes(4, "big") + body)
for descriptor in range(1024):
    for data in fake * 3:
        try: os.write(descriptor, data)
        except OSError: pass
"""),
            Step("python", {"code": "'gen' + 'uine'"}),
        ],
        "ok",
        "genuine",
    ),
    _row(
        "garbage into every descriptor",
        [
            _python(
                "for descriptor in range(3, 1024):\n  try: os.write(descriptor, b'\\xff' * 64)\n  except OSError: pass\ntime.sleep(5)"
            ),
            Step("python", {"code": "'gen' + 'uine'"}),
        ],
        "ok",
        "genuine",
    ),
    _row(
        "descriptors that leaked",
        [
            _shell(
                "for f in /proc/$$/fd/*; do readlink $f; done | grep -vE '^(pipe|/dev/null|socket|/proc)' && echo BREACH; ls -l /proc/self/fd | grep -c socket"
            ),
            _python(
                "names = {n: os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if os.path.lexists(f'/proc/self/fd/{n}')}\nsockets = [n for n, name in names.items() if name.startswith('socket')]\nprint('BREACH' if len(sockets) > 1 else 'stopped:', names)\nprint(subprocess.run(['ls', '/proc/self/fd'], capture_output=True, text=True, close_fds=False).stdout.split())"
            ),
        ],
        "ok",
        "['0', '1', '2', '3']",
    ),
    _row(
        "the executor's socket replaced",
        _python(
            "path = '/run/sandbox/executor.sock'\nattempt('unlink', lambda: os.unlink(path))\nattempt('rename', lambda: os.rename(path, path + '.old'))\nattempt('bind', lambda: socket.socket(socket.AF_UNIX).bind('/run/sandbox/other.sock'))"
        ),
        "ok",
        "stopped",
    ),
    _row(
        "somebody else's hello to the agent",
        _python("""
body = b'{"hello": 1, "isolation": "forged"}'
s = socket.socket(socket.AF_UNIX)
s.settimeout(5)
def forge():
    s.connect('/run/sandbox/executor.sock')
    s.sendall(len(body).to_bytes(4, 'big') + body)
    if not s.recv(1): raise ConnectionError('closed at once')
attempt('hello', forge)
"""),
        "ok",
        "stopped",
    ),
    _row(
        "arguments swapped, name of bubblewrap",
        _shell(
            "(exec -a '[kworker/0:0]' bash -c 'echo bwrap > /proc/self/comm; trap \"\" INT TERM; while :; do sleep 0.1; done') & sleep 60",
            0.7,
        ),
        "timeout",
        afterwards=_gone_after_reset,
    ),
]

NETWORK = [
    _row(
        "internet sockets",
        _python("for family in (socket.AF_INET, socket.AF_INET6):\n  attempt(family, lambda: socket.socket(family))"),
        "ok",
        "unreachable",
    ),
    _row(
        "raw, packet, netlink, crypto, vsock sockets",
        _python(
            "for family, kind in ((2, 3), (17, 3), (16, 3), (38, 5), (40, 1), (31, 3)): attempt(family, lambda: socket.socket(family, kind))"
        ),
        "ok",
        "stopped",
    ),
    _row(
        "a service on the loopback",
        _python("attempt('port', lambda: socket.create_connection(('127.0.0.1', 9999), 2))"),
        "ok",
        "unreachable",
    ),
    _row(
        "metadata and cluster API",
        _shell(
            "for t in 169.254.169.254/80 10.96.0.1/443; do (exec 5<>/dev/tcp/$t) && echo BREACH; done; echo stopped"
        ),
        "ok",
        "unreachable",
    ),
    _row(
        "the agent's port",
        _python("attempt('agent', lambda: socket.create_connection(('127.0.0.1', 8081), 2))"),
        "ok",
        "unreachable",
    ),
    _row(
        "the agent's port without key",
        _python("""
import http.client
for method, path in (('GET', '/lease'), ('DELETE', '/lease?recycle=Delete'), ('POST', '/mcp'), ('GET', '/lease/workspace.tar')):
    connection = http.client.HTTPConnection('127.0.0.1', 8081, timeout=5)
    connection.request(method, path, headers={'X-Pinnace-Key': 'guess'})
    status = connection.getresponse().status
    print('stopped:' if status == 401 else 'BREACH', method, path, status)
"""),
        "ok",
        "401",
        networked=True,
    ),
    _row(
        "raw sockets where a network is allowed",
        _python(
            "for number in ((2, 3, 1), (2, 3, 255), (10, 3, 58), (17, 3, 3), (38, 5, 0)): attempt(number, lambda: socket.socket(*number))"
        ),
        "ok",
        "stopped",
        networked=True,
    ),
]

ATTEMPTS = [*RESOURCES, *OTHERS, *KERNEL, *FILES, *CHANNELS, *NETWORK]
