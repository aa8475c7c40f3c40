"""Versions of what is not a Go module (those are in build/go.mod) nor a Python package (requirements/dev.txt)."""

from __future__ import annotations

KUBERNETES = "v1.37.2"
JOBSET = "v0.12.0"

#: Programs that Debian provides, by the package to install when they are missing.
DEBIAN_PROGRAMS = {"runc": "runc", "nft": "nftables", "ip": "iproute2", "busybox": "busybox-static", "gcc": "gcc"}
#: A static libc for the pause container.
DEBIAN_FILES = {"/usr/include/stdlib.h": "libc6-dev"}
