"""What Argo CD shows for our kinds: one row a status, run by a real Lua."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lupa import LuaRuntime
from pinnace_operator.reconcile.plan import OperatorSettings

from e2e.simulation import toolsandbox as tools
from e2e.simulation.decide import decide
from e2e.simulation.evalsuite import evalsuite
from e2e.simulation.objects import OUTPUT, Object, ended, jobset, mergejob, outcome, pod, sftjob, started, waiting
from e2e.simulation.rlrun import rlrun

SCRIPTS = Path(__file__).parents[2] / "charts" / "pinnace" / "argocd"
DONE = ended(0, message=outcome(0, "Completed", output=OUTPUT))


def health(resource: Object) -> tuple[str, str]:
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.globals().obj = _table(lua, resource)
    script = "toolsandbox.lua" if resource["kind"] == "ToolSandbox" else "job.lua"
    result = lua.execute((SCRIPTS / script).read_text())
    return str(result.status), str(result.message)


def _table(lua: LuaRuntime, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({key: _table(lua, each) for key, each in value.items()})
    if isinstance(value, list | tuple):
        return lua.table_from([_table(lua, each) for each in value])
    return value


def reconciled(job: Object, **facts: Any) -> Object:
    return {**job, "status": dict(decide(job, settings=OperatorSettings(), **facts).status)}


DONE_POD = pod(phase="Succeeded", trainer=DONE)


def serving(*servers: Object) -> Object:
    """A ToolSandbox whose gateway serves, with these pods of its server."""
    told = tools.load(tools.serves(), tools=2 * len(servers))
    return reconciled(tools.toolsandbox(), pods=(tools.pod("gateway"), *servers), loads=(told,))


OLD: Object = {"observedGeneration": 0, "conditions": [{"type": "Ready", "status": "True", "reason": "Available"}]}
NO_IMAGE = tools.pod("server", server="time", ready=False, state=waiting("ErrImagePull"))
PULL = pod(phase="Pending", init=waiting("ImagePullBackOff"))
CASES: list[tuple[str, Object, str, str]] = [
    ("no status yet", sftjob(), "Progressing", "operator"),
    ("an old generation", sftjob(status={**started(), "observedGeneration": 0}), "Progressing", "generation 1"),
    ("starting", reconciled(sftjob()), "Progressing", "Starting"),
    ("running", reconciled(sftjob(status=started()), jobset=jobset(), pods=(pod(),)), "Progressing", "Running"),
    ("suspended", reconciled(sftjob(suspend=True)), "Suspended", "Set it to false"),
    (
        "queued",
        reconciled(sftjob(queueName="q", status=started()), jobset=jobset(suspend=True)),
        "Suspended", "QuotaPending",
    ),
    ("stalled", reconciled(sftjob(status=started()), jobset=jobset(), pods=(PULL,)), "Degraded", "ImagePullFailed"),
    (
        "complete",
        reconciled(sftjob(status=started()), jobset=jobset(ended="Completed"), pods=(DONE_POD,)),
        "Healthy", "Completed",
    ),
    ("failed", reconciled(sftjob(nonsense=1)), "Degraded", "InvalidSpec"),
    ("a merge waits", reconciled(mergejob(suspend=True)), "Suspended", "Set it to false"),
    (
        "a merge is complete",
        reconciled(mergejob(status=started()), jobset=jobset(role="worker", ended="Completed"), pods=(DONE_POD,)),
        "Healthy", "Completed",
    ),
    ("a merge can't work", reconciled(mergejob(nonsense=1)), "Degraded", "InvalidSpec"),
    ("a suite starts", reconciled(evalsuite()), "Progressing", "Starting"),
    ("a suite waits", reconciled(evalsuite(toolSandbox={"name": "tools"})), "Progressing", "ToolSandbox/tools"),
    ("a suite can't work", reconciled(evalsuite(nonsense=1)), "Degraded", "InvalidSpec"),
    ("a run starts", reconciled(rlrun()), "Progressing", "Starting"),
    ("a run is suspended", reconciled(rlrun(suspend=True)), "Suspended", "Set it to false"),
    ("a run can't work", reconciled(rlrun(nonsense=1)), "Degraded", "InvalidSpec"),
    ("tools without status", tools.toolsandbox(), "Progressing", "operator"),
    ("tools of an old generation", tools.toolsandbox(status=OLD), "Progressing", "generation 1"),
    ("tools start", reconciled(tools.toolsandbox()), "Progressing", "Starting"),
    ("tools serve", serving(tools.pod("server", server="time")), "Healthy", "2 tools serve"),
    ("tools serve partly", serving(), "Progressing", "Starting"),
    ("a server fails", serving(NO_IMAGE), "Degraded", "ImagePullFailed"),
    ("tools are suspended", reconciled(tools.toolsandbox(suspend=True)), "Suspended", "spec.suspend"),
    ("tools can't work", reconciled(tools.toolsandbox(nonsense=1)), "Degraded", "InvalidSpec"),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "status", "says"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_health(resource: Object, status: str, says: str) -> None:
    found, message = health(resource)
    assert (found, says in message) == (status, True), message
