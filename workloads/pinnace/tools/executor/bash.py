"""The session's shell: one bash that keeps folder, variables and functions. `python -I -m pinnace.tools.executor.bash`.

This hardens the process and becomes bash, which takes commands from the control socket, each ended by a NUL, and
answers with the exit code and a NUL. Commands don't inherit the socket: it is closed around each.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys

from pinnace.tools.executor.harden import Hardening, harden
from pinnace.tools.executor.spawn import CONTROL

_DRIVER = r"""
while IFS= read -r -d '' -u 200 __command; do
  eval "$__command" 200<&-
  printf '%d\0' "$?" >&200
done
"""


def main() -> None:
    """`bash`: serves commands. `bash COMMAND`: runs one (a background job) and ends with its exit code."""
    hardening = Hardening.from_environment()
    folders = os.environ.get("PATH", os.defpath).split(":")
    program = next((f"{folder}/bash" for folder in folders if os.access(f"{folder}/bash", os.X_OK)), "/bin/bash")
    harden(hardening, hide=False)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if len(sys.argv) > 1:
        os.close(CONTROL)
        os.execve(program, ["bash", "-c", sys.argv[1]], os.environ)  # noqa: S606 - to become it is the point
    fcntl.fcntl(CONTROL, fcntl.F_DUPFD, 200)
    os.close(CONTROL)
    os.write(200, b"ready\0")
    os.execve(program, ["bash", "--noprofile", "--norc", "-c", _DRIVER], os.environ)  # noqa: S606


if __name__ == "__main__":
    main()
