"""Errors of the cluster commands."""

from __future__ import annotations


class ClusterError(RuntimeError):
    """Something a person can act on: the message says what is wrong and what to do."""


class PreflightError(ClusterError):
    """The machine cannot run the cluster; nothing was started."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("this machine cannot run the cluster yet:\n" + "\n".join(f"  - {each}" for each in problems))
        self.problems = problems
