"""What a model gets from the session tools."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Iterator

import pytest
from pinnace.tools.outcome import Outcome

from e2e.sandbox.pod import Pod


@pytest.fixture(scope="module")
def session(victim: Pod) -> Iterator[Pod]:
    """A lease that all of these share."""
    if victim.request("GET", "/lease")[1]["state"] != "free":
        victim.release()
        victim.wait("free")
    victim.arm(outputKiB=4)
    yield victim
    victim.release()


def test_python_keeps_its_state_and_shows_the_last_value(session: Pod) -> None:
    assert session.tool("python", code="import math\nx = 20").text == "[no output]"
    result = session.tool("python", code="print('out')\nimport sys; print('err', file=sys.stderr)\nx + 22")
    assert result.text == "out\n[stderr]\nerr\n42"
    assert result.structured["stdout"] == "out\n"
    assert result.structured["stderr"] == "err\n"
    assert result.structured["value"] == "42"


def test_a_traceback_shows_the_models_own_lines_only(session: Pod) -> None:
    result = session.tool("python", code="def f(n):\n    return 1 / n\n\nf(0)")
    assert result.outcome is Outcome.TOOL_ERROR
    assert result.structured["error"]["type"] == "ZeroDivisionError"
    assert "return 1 / n" in result.text
    assert "repl.py" not in result.text


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("x = (", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("input()", "EOFError"),
        ("import os; os._exit(7)", "exit code 7"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_code_that_fails_is_told_how_and_the_next_call_works(session: Pod, code: str, says: str) -> None:
    result = session.tool("python", code=code)
    assert result.outcome is Outcome.TOOL_ERROR
    assert says in result.text
    assert session.tool("python", code="1 + 1").text == "2"


def test_await_works_at_the_top_level(session: Pod) -> None:
    assert session.tool("python", code="import asyncio\nawait asyncio.sleep(0, 'slept')").text == "'slept'"


def test_a_forgotten_fork_does_not_answer_twice(session: Pod) -> None:
    session.tool("python", code="import os\npid = os.fork()")
    assert session.tool("python", code="'one ' + 'answer'").text == "'one answer'"


def test_figures_come_back_as_pictures(session: Pod) -> None:
    # A stand-in with the few functions that are used: matplotlib is the image's choice, not ours.
    module = (
        "import sys, types\n"
        "class Figure:\n    def savefig(self, to, **_): to.write(b'\\x89PNG drawn')\n"
        "plt = types.ModuleType('matplotlib.pyplot')\n"
        "plt.get_fignums = lambda: [1]\nplt.figure = lambda number: Figure()\nplt.close = lambda which: None\n"
        "sys.modules['matplotlib.pyplot'] = plt\n'drawn'"
    )
    result = session.tool("python", code=module)
    session.tool("python", code="del sys.modules['matplotlib.pyplot']")
    assert [block["type"] for block in result.content] == ["text", "image"]
    assert base64.b64decode(result.content[1]["data"]) == b"\x89PNG drawn"


def test_long_output_keeps_its_start_and_end_and_counts_the_rest(session: Pod) -> None:
    result = session.tool("shell", command="echo first; seq 100000; echo last")
    assert result.text.startswith("first\n1\n2\n")
    assert result.text.endswith("last")
    assert len(result.text) < 5000
    assert result.structured["bytesLeftOut"] > 500_000


def test_the_shell_keeps_folder_variables_and_functions(session: Pod) -> None:
    session.tool("shell", command="mkdir -p deep/er && cd deep; name=value; greet() { echo hi $1; }")
    assert session.tool("shell", command="pwd; echo $name; greet you; false").text == (
        "/workspace/deep\nvalue\nhi you\n[exit code 1]"
    )
    assert session.tool("shell", command="if then").outcome is Outcome.TOOL_ERROR
    assert session.tool("shell", command="cat").text == "[no output]"
    assert session.tool("shell", command="exit 0").outcome is Outcome.OK


def test_a_background_command_is_followed_and_ended(session: Pod) -> None:
    job = session.tool("shell", command="echo started; exec sleep 60", background=True).structured["job"]
    first = session.tool("shell_output", job=job, waitSeconds=20)
    assert first.structured["stdout"] == "started\n"
    assert first.structured["running"] is True
    ended = session.tool("shell_kill", job=job)
    assert ended.structured["running"] is False
    assert ended.structured["exitCode"] == -9
    unknown = session.tool("shell_output", job="job-999")
    assert unknown.outcome is Outcome.TOOL_ERROR
    assert job in unknown.text


def test_a_server_of_an_earlier_call_lives_on_when_a_later_one_is_interrupted(session: Pod) -> None:
    session.tool("shell", command="sleep 61 & earlier=$!; sleep 0.1")
    timed_out = session.tool("shell", command="sleep 62 & later=$!; sleep 60", timeoutSeconds=3)
    assert timed_out.outcome is Outcome.TIMEOUT
    states = session.tool(
        "shell", command="kill -0 $earlier && echo lives; kill -0 $later 2>&- || echo ended; kill $earlier"
    )
    assert states.structured["stdout"] == "lives\nended\n"


def test_files_are_written_read_edited_found_and_searched(session: Pod) -> None:
    lines = "".join(f"line {number}\n" for number in range(1, 1001))
    assert session.tool("write_file", path="notes/a.txt", content=lines).ok
    assert session.tool("write_file", path="/workspace/notes/a.txt", content="tail\n", append=True).ok
    assert session.tool("read_file", path="notes/a.txt", start=999, lines=2).text == (
        "   999\tline 999\n  1000\tline 1000\n[1001 lines in all; go on with start=1001]"
    )
    assert session.tool("edit_file", path="notes/a.txt", oldText="line 500\n", newText="edited\n").ok
    twice = session.tool("edit_file", path="notes/a.txt", oldText="line 99", newText="x")
    assert twice.outcome is Outcome.TOOL_ERROR
    assert "11 times" in twice.text
    assert session.tool("grep", pattern="^edit", path="notes").text == "notes/a.txt:500: edited"
    assert session.tool("find_files", pattern="*.txt").text == "notes/a.txt"
    assert "notes/" in session.tool("list_files", depth=1).text
    missing = session.tool("read_file", path="notes/b.txt")
    assert missing.outcome is Outcome.TOOL_ERROR
    assert "list_files" in missing.text


def test_bytes_go_up_and_down_and_archives_are_unpacked(session: Pod) -> None:
    data = bytes(range(256))
    assert session.tool("upload", path="b.bin", data=base64.b64encode(data).decode()).ok
    blob = session.tool("download", path="b.bin").content[1]["resource"]["blob"]
    assert base64.b64decode(blob) == data
    assert session.tool("upload", path="b.bin", data=base64.b64encode(b"more").decode(), append=True).ok
    assert session.tool("shell", command="tail -c 4 b.bin").text.strip() == "more"
    assert session.tool("read_file", path="b.bin").outcome is Outcome.INVALID_ARGUMENTS
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/y.txt", "unpacked")
    packed = base64.b64encode(buffer.getvalue()).decode()
    assert session.tool("upload", path="z", data=packed, unpack=True).structured == {"files": 1, "bytes": 8}
    assert "unpacked" in session.tool("read_file", path="z/x/y.txt").text
    assert session.tool("upload", path="c", data="no base64!").outcome is Outcome.INVALID_ARGUMENTS


@pytest.mark.parametrize(
    ("tool", "arguments", "path"),
    [
        ("python", {}, "$.code"),
        ("python", {"code": 1}, "$.code"),
        ("shell", {"command": "x", "timeoutSeconds": -1}, "$.timeoutSeconds"),
        ("read_file", {"path": "a", "encoding": "x"}, "$.encoding"),
    ],
)
def test_wrong_arguments_are_named_by_their_path(
    session: Pod, tool: str, arguments: dict[str, object], path: str
) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    _, answer = session.request("POST", "/mcp", message, session=session.lease)
    assert answer["result"]["_meta"]["pinnace.dev/outcome"] == "invalid_arguments"
    assert answer["result"]["_meta"]["pinnace.dev/error"]["path"] == path


def test_the_protocols_errors_are_its_own(session: Pod) -> None:
    def post(message: object, **headers: str) -> tuple[int, dict[str, object]]:
        status, answer = session.request("POST", "/mcp", message, session=session.lease, headers=headers)
        return status, answer.get("error", answer.get("result"))

    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    status, listed = post(request)
    assert status == 200
    names = [tool["name"] for tool in listed["tools"]]
    assert names[:3] == ["python", "python_reset", "shell"]
    assert len(names) == 13
    assert len(json.dumps(listed)) < 9000  # every trajectory pays for it
    assert post(request | {"method": "server/discover"})[1]["supportedVersions"] == ["2026-07-28"]
    assert post(request | {"method": "nope"}) == (404, {"code": -32601, "message": "nope is not served here"})
    assert post(request, **{"Mcp-Method": "tools/call"})[1]["code"] == -32020
    assert post(request, **{"Mcp-Protocol-Version": "2020-01-01"})[1]["code"] == -32022
    assert post([request])[1]["code"] == -32600
    unknown = post(request | {"method": "tools/call", "params": {"name": "rm"}})[1]
    assert unknown["_meta"]["pinnace.dev/outcome"] == "invalid_arguments"
