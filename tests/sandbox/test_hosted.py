"""What is believed of a server of the catalogue that runs beside a lease's own code."""

from __future__ import annotations

import pytest
from pinnace.tools.catalogue import UnknownServer
from pinnace.tools.outcome import Outcome, ToolResult
from pinnace.tools.sandbox import hosted
from pinnace.tools.sandbox.hosted import Hosted


@pytest.mark.parametrize("said", Outcome)
def test_an_answer_that_code_may_have_forged_can_not_blame_the_infrastructure(said: Outcome) -> None:
    claim = {"result": ToolResult(said, ({"type": "text", "text": "t"},)).to_mcp()}
    believed = {Outcome.OK, Outcome.TIMEOUT}
    assert hosted.result(claim, "sqlite").outcome is (said if said in believed else Outcome.TOOL_ERROR)


@pytest.mark.parametrize("reply", [{"ended": "ended", "status": -9}, {"problem": "failed", "message": "m"}, {}])
def test_a_server_that_ended_is_the_trajectorys_own_error(reply: dict[str, object]) -> None:
    result = hosted.result(reply, "sqlite")
    assert (result.outcome, bool(result.error)) == (Outcome.TOOL_ERROR, True)


def test_what_a_tool_lacks_is_said_before_the_sandbox_is_asked() -> None:
    servers = Hosted.of(["arxiv"], internet=False)
    tool = servers.entries["arxiv"].needs.internet[0].replace("*", servers.entries["arxiv"].tools[0])
    refused = servers.refusal("arxiv", tool, ())
    assert refused is not None
    assert refused.outcome is Outcome.UNAVAILABLE
    assert Hosted.of(["arxiv"], internet=True).refusal("arxiv", tool, ()) is None


def test_a_name_that_the_catalogue_has_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownServer, match="sqlite"):
        Hosted.of(["sqlit"], internet=False)
