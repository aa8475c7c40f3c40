"""The life of a lease: taken once, armed when given, ended by its owner or by time, nothing left for the next."""

from __future__ import annotations

import io
import os
import shutil
import signal
import tarfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pinnace.tools.outcome import Outcome

from e2e.sandbox.pod import KEY, Pod, pod


@pytest.fixture
def free(victim: Pod) -> Pod:
    """A pod without lease."""
    if victim.request("GET", "/lease")[1]["state"] != "free":
        victim.release()
        victim.wait("free")
    return victim


@pytest.fixture
def armed(free: Pod) -> Pod:
    """A pod with a lease."""
    free.arm(env={"GREETING": "hello 'world' $HOME"}, outputKiB=16)
    return free


def test_nothing_is_answered_without_the_key(free: Pod) -> None:
    for method, path in (("GET", "/lease"), ("POST", "/lease"), ("DELETE", "/lease"), ("POST", "/mcp")):
        assert free.request(method, path, {}, key="wrong")[0] == 401
    assert free.request("GET", "/healthz", key="")[0] == 200
    assert free.request("GET", "/readyz", key="")[0] == 200


def test_a_new_key_in_the_file_is_taken_without_a_restart(free: Pod) -> None:
    file = free.folder / "secrets" / "key"
    file.write_text("the-next-key")
    try:
        assert free.request("GET", "/lease", key="the-next-key")[0] == 200
        assert free.request("GET", "/lease", key=KEY)[0] == 401
    finally:
        file.write_text(KEY)


def test_of_gateways_that_want_the_same_pod_one_gets_it(free: Pod) -> None:
    answers: list[int] = []
    barrier = threading.Barrier(8)

    def take(number: int) -> None:
        body = {"id": f"race-{number}", "tokenSha256": "0" * 64, "expiresAt": time.time() + 60}
        barrier.wait()
        answers.append(free.request("POST", "/lease", body)[0])

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + [409] * 7


def test_environment_and_limits_are_in_force_when_the_lease_is_given(armed: Pod) -> None:
    assert armed.tool("python", code="import os; os.environ['GREETING']").text == repr("hello 'world' $HOME")
    assert armed.tool("shell", command='echo "$GREETING"').text == "hello 'world' $HOME"
    job = armed.tool("shell", command='echo "$GREETING"', background=True).structured["job"]
    assert "hello 'world' $HOME" in armed.tool("shell_output", job=job, waitSeconds=10).text
    code = "import resource; [resource.getrlimit(kind) for kind in (resource.RLIMIT_DATA, resource.RLIMIT_CORE)]"
    assert armed.tool("python", code=code).text == str([(512 << 20, 512 << 20), (0, 0)])
    assert armed.tool("shell", command="ulimit -d; ulimit -c").text == f"{512 << 10}\n0"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"id": "bad/id"}, "id"),
        ({"tokenSha256": "short"}, "tokenSha256"),
        ({"env": {"NOT-A-NAME": "1"}}, "env"),
        ({"limits": {"memoryMiB": -1}}, "limits.memoryMiB"),
        ({"limits": {"memory": 1}}, "limits.memory"),
        ({"surprise": 1}, "surprise"),
        ({"expiresAt": "tomorrow"}, "expiresAt"),
    ],
)
def test_a_bad_lease_is_refused_with_the_place_of_the_fault(free: Pod, change: dict[str, object], where: str) -> None:
    body = {"id": "a", "tokenSha256": "0" * 64, "expiresAt": time.time() + 60} | change
    status, answer = free.request("POST", "/lease", body)
    assert status == 400
    assert answer["message"].startswith(where)
    assert free.request("GET", "/lease")[1]["state"] == "free"


def test_calls_for_another_lease_are_denied(armed: Pod) -> None:
    assert armed.tool("python", session="somebody-else", code="1").outcome is Outcome.DENIED
    lease = armed.lease
    armed.release()
    assert armed.tool("python", session=lease, code="1").outcome is Outcome.DENIED


def test_an_old_owner_cannot_end_the_next_lease(armed: Pod) -> None:
    assert armed.request("DELETE", "/lease", session="the-lease-before")[0] == 409
    assert armed.request("GET", "/lease")[1]["state"] == "armed"


def test_a_lease_ends_by_itself_when_its_time_is_over(free: Pod) -> None:
    free.arm(seconds=0.5)
    free.wait("free")
    free.arm(seconds=60)
    soon = (datetime.now(UTC) + timedelta(seconds=0.2)).isoformat()
    assert free.request("POST", "/lease/renew", {"expiresAt": soon})[0] == 200
    free.wait("free")


def test_reset_gives_the_lease_as_it_was_when_armed(armed: Pod) -> None:
    armed.tool("python", code="x = 1")
    armed.tool("shell", command="cd /tmp; export GREETING=changed; touch /workspace/file; sleep 600 &")
    assert armed.request("POST", "/lease/reset", {})[0] == 200
    assert "NameError" in armed.tool("python", code="x").text
    assert armed.tool("shell", command='pwd; echo "$GREETING"; ls').text == "/workspace\nhello 'world' $HOME"
    assert armed.request("GET", "/lease")[1]["id"] == armed.lease


def test_a_call_that_waited_through_a_reset_does_not_run_in_what_comes_after(armed: Pod) -> None:
    results: list[Outcome] = []

    def call(code: str) -> None:
        results.append(armed.tool("python", code=code).outcome)

    calls = [threading.Thread(target=call, args=("open('/workspace/up', 'w'); import time; time.sleep(60)",))]
    calls[0].start()
    while "up" not in armed.tool("list_files").text:
        time.sleep(0.01)
    calls += [threading.Thread(target=call, args=("open('/workspace/stray', 'w'); stray = 1",)) for _ in range(3)]
    for thread in calls[1:]:
        thread.start()
    while armed.request("GET", "/lease")[1]["inFlight"] < 4:
        time.sleep(0.01)
    armed.release()
    armed.arm()
    for thread in calls:
        thread.join(20)
    assert results == [Outcome.UNAVAILABLE] * 4
    assert armed.tool("list_files").text == "[empty]"
    assert "NameError" in armed.tool("python", code="stray").text


def test_restart_leaves_nothing_and_noop_leaves_the_files(armed: Pod) -> None:
    armed.tool("write_file", path="left.txt", content="left")
    assert armed.release("Noop")[0] == 200
    armed.arm()
    assert "left" in armed.tool("read_file", path="left.txt").text
    assert armed.release("Restart")[0] == 200
    armed.arm()
    assert armed.tool("list_files").text == "[empty]"
    assert armed.tool("python", code="import os; os.environ.get('GREETING', 'none')").text == "'none'"


def test_when_the_executor_dies_its_call_is_unavailable_and_so_is_the_lease_until_reset(armed: Pod) -> None:
    sandbox = armed.containers["sandbox"]
    outcomes = []
    waiting = threading.Thread(
        target=lambda: outcomes.append(armed.tool("shell", command="touch up; sleep 60").outcome)
    )
    waiting.start()
    while "up" not in armed.tool("list_files").text:
        time.sleep(0.01)
    before = sandbox.starts
    os.kill(sandbox.pid, signal.SIGKILL)
    waiting.join(20)
    assert outcomes == [Outcome.UNAVAILABLE]
    lost = armed.tool("python", code="1")
    assert lost.outcome is Outcome.UNAVAILABLE
    assert "reset" in lost.text
    deadline = time.monotonic() + 20
    while armed.request("POST", "/lease/reset", {})[0] != 200 and time.monotonic() < deadline:
        if armed.request("GET", "/lease")[1]["state"] != "armed":  # the reset came before the new executor: released
            armed.wait("free")
            armed.arm()
            break
        time.sleep(0.05)
    assert armed.tool("python", code="1 + 1").text == "2"
    assert sandbox.starts == before + 1


def test_when_the_container_is_out_of_memory_the_kernel_ends_the_code_and_not_the_supervisor(free: Pod) -> None:
    free.arm(memoryMiB=100_000)
    before = free.containers["sandbox"].starts
    code = "import mmap\nm = mmap.mmap(-1, 1 << 30)\nfor i in range(0, 1 << 30, 4096): m[i] = 1"
    result = free.tool("python", code=code)
    assert result.outcome is Outcome.TOOL_ERROR
    assert "SIGKILL" in result.text
    assert free.tool("python", code="6 * 7").text == "42"
    assert free.containers["sandbox"].starts == before


def test_the_supervisor_answers_no_signal_from_inside_but_ends_on_one_from_outside(armed: Pod) -> None:
    sandbox = armed.containers["sandbox"]
    before = sandbox.starts
    os.kill(sandbox.pid, signal.SIGTERM)
    armed.release()
    armed.wait("free")
    assert sandbox.starts == before + 1


def test_a_snapshot_holds_plain_files_and_safe_links_only(armed: Pod) -> None:
    armed.tool(
        "shell",
        command="mkdir -p a/b; echo hi > a/b/c.txt; chmod 700 a/b/c.txt; ln -s b/c.txt a/ok; ln -s /etc/passwd abs; "
        "ln -s ../../etc up; mkfifo pipe; head -c 3000000 /dev/urandom > big; echo secret > closed; chmod 0 closed",
    )
    status, data = armed.request("GET", "/lease/workspace.tar")
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {member.name: member for member in archive}
        assert sorted(members) == ["a", "a/b", "a/b/c.txt", "a/ok", "big"]
        assert members["a/ok"].linkname == "b/c.txt"
        assert members["a/b/c.txt"].mode == 0o700
        assert members["big"].size == 3_000_000
        archive.extractfile("a/b/c.txt")


def test_a_closed_connection_ends_the_call(armed: Pod) -> None:
    abandoned = threading.Thread(target=lambda: _give_up(armed))
    abandoned.start()
    abandoned.join()
    deadline = time.monotonic() + 10
    while "running" in armed.tool("shell", command="pgrep -f 'sleep 7[7]' && echo running; true").text:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _give_up(pod: Pod) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    message |= {
        "params": {"name": "python", "arguments": {"code": "import subprocess; subprocess.run(['sleep', '77'])"}}
    }
    with pytest.raises(OSError, match="timed out"):
        pod.request("POST", "/mcp", message, session=pod.lease, timeout=0.3)


def test_delete_makes_the_pod_spent_and_unready(
    containers_work: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pod(tmp_path_factory.mktemp("spent") / "pod") as once:
        once.wait("free")
        once.arm()
        assert once.release("Delete") == (200, {"state": "spent", "isolation": "container"})
        assert once.request("GET", "/readyz")[0] == 503
        body = {"id": "a", "tokenSha256": "0" * 64, "expiresAt": time.time() + 60}
        assert once.request("POST", "/lease", body)[0] == 409


def test_bubblewrap_is_used_where_it_works_and_said(
    containers_work: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = os.environ.get("PINNACE_BWRAP") or shutil.which("bwrap")
    if program is None:
        pytest.skip("bubblewrap is not installed; PINNACE_BWRAP may name it")
    with pod(tmp_path_factory.mktemp("wrapped") / "pod", programs=Path(program).parent) as wrapped:
        assert wrapped.wait("free")["isolation"] == "bubblewrap"
        wrapped.arm(env={"A": "1"})
        assert wrapped.tool("shell", command="echo $A; ls -A /run; cat <(echo piped); touch /x").text.startswith(
            "1\npiped"
        )
        assert wrapped.tool("python", code="while True: pass", timeoutSeconds=0.3).outcome is Outcome.TIMEOUT
        ignoring = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
        assert "afresh" in wrapped.tool("python", code=ignoring, timeoutSeconds=0.3).text
        assert wrapped.tool("python", code="6 * 7").text == "42"
