"""Which pod got which address, by CNI's own record.

It is written before the pod's first container starts, and before the API is told.
"""

from __future__ import annotations

import json
import os
from pathlib import Path


def read(directory: Path) -> dict[str, str]:
    """IPv4 address to the uid of the pod that has it, from the results that libcni keeps in `directory`."""
    found: dict[str, str] = {}
    for file in directory.glob("pinnace-*"):
        try:
            record = json.loads(file.read_text())
        except (OSError, ValueError):  # being written, or gone: the directory changes again
            continue
        arguments = dict(record.get("cniArgs") or [])
        for address in record.get("result", {}).get("ips", []):
            found[address["address"].split("/")[0]] = arguments.get("K8S_POD_UID", "")
    return found


def version(directory: Path) -> frozenset[tuple[str, int]]:
    """Changes whenever a record is added, filled or removed."""
    try:
        return frozenset((entry.name, entry.stat().st_size) for entry in os.scandir(directory))
    except FileNotFoundError:  # no directory yet, or a record went while we looked: either is another version
        return frozenset()
