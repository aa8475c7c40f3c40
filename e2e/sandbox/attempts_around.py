"""Attempts against files, channels and the network."""

from __future__ import annotations

from e2e.sandbox import archives
from e2e.sandbox.attempt import Step, file, gone_after_reset, no_mark, python, row, shell

FILES = [
    row("symbolic link out", [shell("ln -s /etc/passwd link"), file("read_file", path="link")], "denied", "leads out"),
    row(
        "symbolic link to a folder out",
        [shell("ln -s / root"), file("read_file", path="root/etc/passwd")],
        "denied",
        "leads out",
    ),
    row(
        "write through a link out",
        [shell("ln -s /scratch out; true"), file("write_file", path="out/x", content="x")],
        "denied",
    ),
    row("link to a magic link", [shell("ln -s /proc/self/root r"), file("list_files", path="r/etc")], "denied"),
    row("dots out", file("read_file", path="../etc/passwd"), "denied", "outside"),
    row(
        "dots through a link",
        [shell("mkdir -p a; ln -s /etc a/l; true"), file("read_file", path="a/l/../passwd")],
        "denied not_found invalid_arguments tool_error".replace("not_found ", ""),
    ),
    row("absolute path", file("download", path="/etc/passwd"), "denied", "outside"),
    row(
        "hard link",
        python(
            "attempt('passwd', lambda: os.link('/etc/passwd', '/workspace/p'))\nattempt('log', lambda: os.link('/dev/termination-log', '/workspace/t'))"
        ),
        "ok",
        "stopped",
    ),
    row("pipe instead of a file", [shell("mkfifo p"), file("read_file", path="p")], "denied", "no regular file"),
    row("device instead of a file", [shell("ln -s /dev/zero z"), file("download", path="z")], "denied"),
    row("zip bomb", file("upload", path="z", data=archives.zip_bomb(), unpack=True), "denied", "unpacks to more"),
    row("tar.gz bomb", file("upload", path="z", data=archives.tar_bomb(), unpack=True), "denied", "unpacks to more"),
    row(
        "tar with a symbolic link",
        file("upload", path="z", data=archives.tar_with_link(), unpack=True),
        "denied",
        "link or special",
    ),
    row(
        "tar with an absolute path",
        file("upload", path="z", data=archives.tar_with("/etc/x"), unpack=True),
        "denied",
        "outside",
    ),
    row("zip with dots", file("upload", path="z", data=archives.zip_with("../../x"), unpack=True), "denied", "outside"),
    row(
        "pattern that never ends",
        [python("open('/workspace/a', 'w').write('a' * 60 + 'b')"), Step("grep", {"pattern": "(a+)+$"}, deadline=1)],
        "timeout",
    ),
    row(
        "modules laid for the helpers",
        [
            python(
                "for name in ('json', 'base64', 'sitecustomize', 'usercustomize', 'pinnace', 'site'):\n  open(f'/workspace/{name}.py', 'w').write('open(\"/workspace/PWNED-\" + str(id(0)), \"w\")')\nfor name in ('LD_PRELOAD', 'PYTHONPATH', 'PYTHONSTARTUP', 'BASH_ENV', 'PYTHONHOME'): os.environ[name] = '/workspace/json.py'"
            ),
            shell(
                "export LD_PRELOAD=/workspace/json.py BASH_ENV=/workspace/json.py PYTHONPATH=/workspace; for f in /proc/[0-9]*/cmdline; do grep -q executor.files $f && kill -9 $(echo $f | cut -d/ -f3); done; true"
            ),
            file("list_files"),
        ],
        "ok",
        afterwards=no_mark,
    ),
    row(
        "the termination log",
        shell("head -c 50000000 /dev/zero > /dev/termination-log; echo stopped"),
        "ok tool_error",
        "stopped",
    ),
]

CHANNELS = [
    row(
        "frames and JSON-RPC into every descriptor",
        [
            python("""
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
    row(
        "garbage into every descriptor",
        [
            python(
                "for descriptor in range(3, 1024):\n  try: os.write(descriptor, b'\\xff' * 64)\n  except OSError: pass\ntime.sleep(5)"
            ),
            Step("python", {"code": "'gen' + 'uine'"}),
        ],
        "ok",
        "genuine",
    ),
    row(
        "descriptors that leaked",
        [
            shell(
                "for f in /proc/$$/fd/*; do readlink $f; done | grep -vE '^(pipe|/dev/null|socket|/proc)' && echo BREACH; ls -l /proc/self/fd | grep -c socket"
            ),
            python(
                "names = {n: os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if os.path.lexists(f'/proc/self/fd/{n}')}\nsockets = [n for n, name in names.items() if name.startswith('socket')]\nprint('BREACH' if len(sockets) > 1 else 'stopped:', names)\nprint(subprocess.run(['ls', '/proc/self/fd'], capture_output=True, text=True, close_fds=False).stdout.split())"
            ),
        ],
        "ok",
        "['0', '1', '2', '3']",
    ),
    row(
        "the executor's socket replaced",
        python(
            "path = '/run/sandbox/executor.sock'\nattempt('unlink', lambda: os.unlink(path))\nattempt('rename', lambda: os.rename(path, path + '.old'))\nattempt('bind', lambda: socket.socket(socket.AF_UNIX).bind('/run/sandbox/other.sock'))"
        ),
        "ok",
        "stopped",
    ),
    row(
        "somebody else's hello to the agent",
        python("""
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
    row(
        "arguments swapped, name of bubblewrap",
        shell(
            "(exec -a '[kworker/0:0]' bash -c 'echo bwrap > /proc/self/comm; trap \"\" INT TERM; while :; do sleep 0.1; done') & sleep 60",
            0.7,
        ),
        "timeout",
        afterwards=gone_after_reset,
    ),
]

NETWORK = [
    row(
        "internet sockets",
        python("for family in (socket.AF_INET, socket.AF_INET6):\n  attempt(family, lambda: socket.socket(family))"),
        "ok",
        "unreachable",
    ),
    row(
        "raw, packet, netlink, crypto, vsock sockets",
        python(
            "for family, kind in ((2, 3), (17, 3), (16, 3), (38, 5), (40, 1), (31, 3)): attempt(family, lambda: socket.socket(family, kind))"
        ),
        "ok",
        "stopped",
    ),
    row(
        "a service on the loopback",
        python("attempt('port', lambda: socket.create_connection(('127.0.0.1', 9999), 2))"),
        "ok",
        "unreachable",
    ),
    row(
        "metadata and cluster API",
        shell("for t in 169.254.169.254/80 10.96.0.1/443; do (exec 5<>/dev/tcp/$t) && echo BREACH; done; echo stopped"),
        "ok",
        "unreachable",
    ),
    row(
        "the agent's port",
        python("attempt('agent', lambda: socket.create_connection(('127.0.0.1', 8081), 2))"),
        "ok",
        "unreachable",
    ),
    row(
        "the agent's port without key",
        python("""
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
    row(
        "raw sockets where a network is allowed",
        python(
            "for number in ((2, 3, 1), (2, 3, 255), (10, 3, 58), (17, 3, 3), (38, 5, 0)): attempt(number, lambda: socket.socket(*number))"
        ),
        "ok",
        "stopped",
        networked=True,
    ),
]
