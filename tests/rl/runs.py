"""A small run's configuration, for the tests of its parts and of all of them together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from e2e.apiserver import free_port


def document(folder: Path, model: Path, **more: Any) -> dict[str, Any]:
    """What `RunConfig` reads; an untrained model, and a reward that is a coin's."""
    tasks = folder / "tasks.jsonl"
    tasks.write_text("".join(json.dumps({"id": f"t{n}", "question": f"{n}+{n}"}) + "\n" for n in range(7)))
    return {
        "model": str(model),
        "folder": str(folder / "run"),
        "steps": 4,
        "checkpointEvery": 2,
        "tasks": str(tasks),
        "agent": {"function": "tests.rl.players:two_turns"},
        "reward": "tests.rl.players:coin",
        "schedule": {"groupsPerStep": 2, "groupSize": 2, "maxStaleness": 2, "concurrency": 8},
        "optimizer": {"learningRate": 1e-3},
        "engine": {"tokenBudget": 256, "gradientCheckpointing": False},
        "contextTokens": 256,
        "maxTokens": 8,
        "leaseSeconds": 5,
        "servers": [{"url": f"http://127.0.0.1:{free_port()}"}],
        "coordinator": f"http://127.0.0.1:{free_port()}",
        "proxy": f"http://127.0.0.1:{free_port()}",
        **more,
    }
