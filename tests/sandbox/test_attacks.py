"""Model-written code against its sandbox: every attempt is stopped and typed, and the pod beside it does not notice."""

from __future__ import annotations

import pytest
from pinnace.tools.outcome import ToolResult

from e2e.sandbox.attempt import SECRET, Attempt
from e2e.sandbox.attempts import ATTEMPTS
from e2e.sandbox.canary import Canary
from e2e.sandbox.pod import KEY, Pod

LIMITS = {"memoryMiB": 128, "processes": 32, "fileMiB": 64, "outputKiB": 16, "timeoutSeconds": 20}
_BREACH = "BREACH"


@pytest.fixture(scope="module")
def beside(neighbour: Pod) -> Pod:
    """The neighbour with something to lose: a variable, a file, a secret in its environment."""
    neighbour.arm(env={"TOKEN": SECRET}, **LIMITS)
    assert neighbour.tool("python", code="kept = 41").ok
    assert neighbour.tool("write_file", path="mine.txt", content="mine").ok
    return neighbour


@pytest.fixture
def attacked(victim: Pod) -> Pod:
    """A fresh lease for each attempt, in the same pod: what one leaves behind, the next would find."""
    if victim.request("GET", "/lease")[1]["state"] != "free":
        victim.release()
        victim.wait("free")
    victim.arm(env={"PURPOSE": "attack"}, **LIMITS)
    return victim


def _unharmed(pod: Pod) -> None:
    kept = pod.tool("python", code="kept += 1; kept")
    assert kept.ok, kept.text
    assert int(kept.text) > 41
    assert pod.tool("read_file", path="mine.txt").text.endswith("mine")
    assert [container.starts for container in pod.containers.values()] == [1, 1], pod.log()


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
def test_an_attempt_is_stopped_and_typed_and_the_neighbour_unharmed(
    attempt: Attempt, attacked: Pod, beside: Pod, services: dict[str, Canary], record
) -> None:
    where = beside if attempt.networked else attacked
    results: list[ToolResult] = [
        where.tool(step.tool, deadline=step.deadline, **step.arguments) for step in attempt.steps
    ]

    texts = [result.text for result in results]
    assert [result.outcome for result in results if result.outcome not in attempt.expected] == [], texts
    assert results[-1].outcome in attempt.last, texts
    assert not any(_BREACH in text or KEY in text for text in texts), texts
    assert attempt.says in texts[-1], texts
    assert services[where.name].reached == []
    if not attempt.networked:
        assert not any(SECRET in text for text in texts), texts
        attempt.afterwards(attacked)
        working = attacked.tool("python", code="6 * 7")
        assert working.text.endswith("42"), working.text
        # The agent never falls. Neither does the supervisor, unless the kernel had to end the container's largest.
        assert attacked.containers["agent"].starts == 1, attacked.log()
    _unharmed(beside)
    record(attempt.name, "/".join(dict.fromkeys(str(result.outcome) for result in results)), texts[-1][-300:])


def test_the_service_counts_whoever_gets_through(beside: Pod, services: dict[str, Canary]) -> None:
    """The control: without it, nothing would say that the attempts above could have reached anything."""
    code = (
        "import socket\nfor a in (('169.254.169.254', 80), ('10.96.0.1', 443)): socket.create_connection(a, 5).recv(1)"
    )
    assert beside.tool("python", code=code).ok
    assert services[beside.name].reached == ["169.254.169.254:80", "10.96.0.1:443"]
    services[beside.name].log.write_text("")
