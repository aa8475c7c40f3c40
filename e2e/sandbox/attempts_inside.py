"""Attempts against limits, other processes and the kernel."""

from __future__ import annotations

from e2e.sandbox.attempt import (
    DAEMON,
    SEARCH,
    Step,
    few_processes,
    file,
    files_work,
    gone_after_reset,
    next_lease_finds_nothing,
    nothing_grows,
    python,
    row,
    shell,
)

RESOURCES = [
    row(
        "fork bomb in Python",
        python("while True:\n  try: os.fork()\n  except OSError: pass"),
        "tool_error",
        afterwards=few_processes,
    ),
    row("fork bomb in bash", shell(":(){ :|:& };:; sleep 3"), "ok tool_error", afterwards=few_processes),
    row(
        "thread bomb",
        python(
            "try:\n  while True: threading.Thread(target=time.sleep, args=(60,)).start()\nexcept RuntimeError: time.sleep(2); raise"
        ),
        "tool_error",
        afterwards=few_processes,
    ),
    row("memory bomb, one piece", python("bytearray(10**11)"), "tool_error", "MemoryError"),
    row(
        "memory bomb, many pieces",
        python("kept = []\nwhile True: kept.append(bytearray(10**6))"),
        "tool_error",
        afterwards=lambda pod: pod.tool("python_reset"),
    ),
    row(
        "memory bomb in shared pages",
        python("m = mmap.mmap(-1, 1 << 30)\nfor i in range(0, 1 << 30, 4096): m[i] = 1\nprint('BREACH')"),
        "tool_error",
        "afresh",
    ),
    row(
        "memory bomb in many processes",
        shell(
            "for i in 1 2 3 4 5 6; do python3 -c 'x = bytearray(60 << 20); import time; time.sleep(30)' & done; wait"
        ),
        "tool_error",
        "memory",
    ),
    row(
        "disk fill",
        python("with open('/workspace/big', 'wb') as f:\n  while True: f.write(b'x' * 65536)"),
        "tool_error",
        "No space left",
        afterwards=files_work,
    ),
    row(
        "sparse file over the limit",
        python("f = open('/workspace/big', 'wb'); f.truncate(10**10); print('BREA' + 'CH')"),
        "tool_error",
        "File too large",
    ),
    row(
        "inode fill",
        python("for i in range(10**6): open(f'/workspace/f{i}', 'w').close()"),
        "tool_error",
        "No space left",
        afterwards=files_work,
    ),
    row(
        "folders nested 3,000 deep",
        python("for i in range(3000):\n  os.mkdir('d'); os.chdir('d')\nprint('stopped: see afterwards')"),
        "ok",
        afterwards=gone_after_reset,
    ),
    row("huge output", python("for _ in range(64): sys.stdout.write('x' * (1 << 20))"), "ok", "bytes left out"),
    row("endless output", shell("yes", 1), "timeout", "bytes left out"),
    row("infinite loop", python("while True: pass", 0.5), "timeout", "kept"),
    row(
        "sleep with signals ignored",
        python("for n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, signal.SIG_IGN)\ntime.sleep(60)", 0.5),
        "timeout",
        "afresh",
    ),
    row(
        "interrupt swallowed for ever",
        python("while True:\n  try: time.sleep(60)\n  except BaseException: pass", 0.5),
        "timeout",
        "afresh",
    ),
    row(
        "daemon by double fork, then time is up",
        python(DAEMON + "signal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)", 0.7),
        "timeout",
        afterwards=nothing_grows,
    ),
    row(
        "daemon of bash, then an interrupt",
        shell("(setsid bash -c 'trap \"\" INT TERM; while :; do echo . >> beat; sleep 0.02; done' &); sleep 60", 0.7),
        "timeout",
        "kept",
        afterwards=nothing_grows,
    ),
    row("daemon by double fork, then reset", python(DAEMON), "ok", afterwards=gone_after_reset),
    row(
        "deep recursion",
        python("sys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)"),
        "tool_error",
        afterwards=lambda pod: pod.tool("python_reset"),
    ),
    row("source nested too deep", python("x = " + "(" * 5000 + ")" * 5000), "tool_error"),
    row(
        "core dump",
        [
            python("os.abort()"),
            shell("ls -A /workspace /scratch | grep core && echo BREACH || echo stopped: no core"),
        ],
        "ok",
        "no core",
    ),
    row(
        "own limits raised",
        python(
            "for kind in (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU, resource.RLIMIT_CORE):\n  attempt(kind, lambda: resource.setrlimit(kind, (resource.RLIM_INFINITY,) * 2))"
        ),
        "ok",
        "stopped",
    ),
    row(
        "priority and affinity",
        python(
            "attempt('nice', lambda: os.nice(-5))\nattempt('real time', lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)))\nattempt('affinity of the supervisor', lambda: os.sched_setaffinity(1, {0}))\nattempt('limits of the supervisor', lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (3, 3)))\nattempt('nice of all', lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19))\nattempt('nice of the supervisor', lambda: os.setpriority(os.PRIO_PROCESS, 1, 19))"
        ),
        "ok",
        "stopped",
    ),
]

OTHERS = [
    row("/proc of neighbours and agent", python(SEARCH), "ok", "stopped"),
    row(
        "the supervisor's environment and memory",
        python(
            "for name in ('environ', 'mem', 'maps', 'fd', 'root', 'cwd', 'exe'):\n  attempt(name, lambda: os.listdir(f'/proc/1/{name}') if name in ('fd', 'root', 'cwd') else open(f'/proc/1/{name}', 'rb').read(8))"
        ),
        "ok",
        "stopped",
    ),
    row(
        "the file helper's memory",
        python(
            "import glob\nfor path in glob.glob('/proc/[0-9]*/cmdline'):\n  if b'executor.files' in open(path, 'rb').read(): attempt('mem', lambda: open(path.replace('cmdline', 'mem'), 'r+b'))"
        ),
        "ok",
        "stopped",
    ),
    row(
        "the key file",
        shell(
            "cat /secrets/key /var/run/secrets/pinnace-tools/key /proc/1/root/secrets/key /run/secrets/* 2>&1; echo stopped"
        ),
        "ok",
        "No such file",
    ),
    row(
        "ptrace",
        python(
            "attempt('attach', lambda: syscall(101, 16, 1, 0, 0))\nattempt('seize', lambda: syscall(101, 0x4206, os.getppid(), 0, 0))\nattempt('process_vm_readv', lambda: syscall(310, 1, None, 0, None, 0, 0))\nattempt('pidfd', lambda: syscall(434, 1, 0))"
        ),
        "ok",
        "stopped",
    ),
    row(
        "signals to the supervisor",
        [
            python("for n in (9, 15, 19, 11, 2, 1, 17, 34): attempt(n, lambda: os.kill(1, n))"),
            shell("kill -9 1; kill -STOP 1; kill -TERM 1; echo stopped"),
        ],
        "ok",
        "not permitted",
    ),
    row("signals to all", python("attempt('all', lambda: os.kill(-1, 9))"), "ok", "stopped"),
    row(
        "signals to every pid there may be",
        [
            python(
                "for pid in range(2, 40000):\n  if pid != os.getpid():\n    try: os.kill(pid, 9)\n    except OSError: pass\nprint('stopped: only what is ours')"
            ),
            shell("echo alive"),
        ],
        "ok tool_error",
    ),
    row(
        "file helper killed",
        [
            python(
                "import glob\nfor path in glob.glob('/proc/[0-9]*/cmdline'):\n  if b'executor.files' in open(path, 'rb').read(): os.kill(int(path.split('/')[2]), signal.SIGKILL)"
            ),
            file("list_files"),
        ],
        "ok",
        "[empty]",
    ),
    row(
        "file helper stopped",
        [
            python(
                "import glob\nfor path in glob.glob('/proc/[0-9]*/cmdline'):\n"
                "  if b'executor.files' in open(path, 'rb').read(): os.kill(int(path.split('/')[2]), signal.SIGSTOP)"
            ),
            Step("list_files", {}, deadline=0.5),
        ],
        "timeout",
        afterwards=files_work,
    ),
    row(
        "System V memory, queues, keyrings",
        python(
            "attempt('shmget', lambda: syscall(29, 0, 4096, 0o1777))\nattempt('msgget', lambda: syscall(68, 0, 0o1777))\nattempt('mq_open', lambda: syscall(240, b'residue', 0o102, 0o777, None))\nattempt('add_key', lambda: syscall(248, b'user', b'residue', b'x', 1, -3))"
        ),
        "ok",
        "stopped",
    ),
    row(
        "what is left for the next lease",
        python(
            "os.environ['RESIDUE'] = '1'\nfor folder in ('/workspace', '/scratch', '/dev/shm'): open(folder + '/residue', 'w').write('residue')\ns = socket.socket(socket.AF_UNIX); s.bind('\\0residue'); s.listen()\nif os.fork() == 0: time.sleep(600)\nprint('stopped: see afterwards')"
        ),
        "ok",
        afterwards=next_lease_finds_nothing,
    ),
]

KERNEL = [
    row(
        "memory and kernel devices",
        python(
            "for name in ('mem', 'kmem', 'kmsg', 'port', 'sda', 'vda', 'kvm', 'fuse', 'net/tun', 'loop0'): attempt(name, lambda: open('/dev/' + name, 'rb'))\nattempt('mknod', lambda: os.mknod('/workspace/m', 0o020666, os.makedev(1, 1)))\nattempt('core pattern', lambda: open('/proc/sys/kernel/core_pattern', 'w'))\nattempt('sysrq', lambda: open('/proc/sysrq-trigger', 'w'))\nattempt('kcore', lambda: open('/proc/kcore', 'rb').read(4)[3])"
        ),
        "ok",
        "stopped",
    ),
    row(
        "setuid",
        [
            python(
                "attempt('root', lambda: os.setuid(0))\nattempt('the agent', lambda: os.setuid(65532))\nattempt('group', lambda: os.setgroups([0]))"
            ),
            shell(
                "for p in $(find /usr/bin /usr/sbin -perm -4000 2>/dev/null | head -20); do grep -E '^(NoNewPrivs|CapEff)' /proc/self/status; break; done; su -c id </dev/null 2>&1 | grep -q 'uid=0' && echo BREACH; cp /bin/sh /workspace/s; chmod 6777 /workspace/s; /workspace/s -pc id; rm /workspace/s"
            ),
        ],
        "ok",
        "uid=65533",
    ),
    row(
        "mount",
        [
            python(
                "attempt('mount', lambda: syscall(165, b't', b'/workspace', b'tmpfs', 0, None))\nattempt('fsopen', lambda: syscall(430, b'tmpfs', 0))\nattempt('umount', lambda: syscall(166, b'/workspace', 2))"
            ),
            shell(
                "mount -t tmpfs t /workspace; mount -o remount,rw / && echo BREACH; touch /usr/x && echo BREACH; echo stopped"
            ),
        ],
        "ok",
        "stopped",
    ),
    row(
        "namespaces",
        [
            python(
                "for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000): attempt(hex(flag), lambda: syscall(272, flag))\nattempt('clone', lambda: syscall(56, 0x10000000 | 17, 0, 0, 0, 0))\nattempt('clone3', lambda: syscall(435, ctypes.create_string_buffer(struct.pack('Q', 0x10000000) + bytes(56)), 64))"
            ),
            shell(
                "unshare -Ur id && echo BREACH; unshare -n true && echo BREACH; nsenter -t 1 -m id && echo BREACH; echo stopped"
            ),
        ],
        "ok",
        "stopped",
    ),
    row(
        "chroot",
        python(
            "attempt('chroot', lambda: os.chroot('/workspace'))\nattempt('pivot_root', lambda: syscall(155, b'/', b'/'))\nattempt('open_by_handle_at', lambda: syscall(304, 3, ctypes.create_string_buffer(128), 0))"
        ),
        "ok",
        "stopped",
    ),
    row(
        "large surfaces of the kernel",
        python(
            "for name, number in dict(bpf=321, perf_event_open=298, userfaultfd=323, io_uring_setup=425, kexec_load=246, init_module=175, keyctl=250, fanotify=300).items(): attempt(name, lambda: syscall(number, 0, 0, 0, 0, 0))\nattempt('TIOCSTI', lambda: __import__('fcntl').ioctl(0, 0x5412, b'x'))"
        ),
        "ok",
        "stopped",
    ),
]
