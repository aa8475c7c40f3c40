"""The demo's end: the same questions to the model before training, after it, and fused, each by an EvalSuite."""

from __future__ import annotations

from pathlib import Path

import yaml
from rich.table import Table

from e2e.cluster.addons import S3Access
from e2e.demo.stages import Report
from e2e.kube import Kubectl, Object, ended

SAMPLE = Path(__file__).parents[2] / "crds" / "samples" / "eval-demo.yaml"
COPY = Path("out/report.html")


def start(kubectl: Kubectl) -> list[str]:
    """Applies the sample; each suite waits for its model. Returns the suites' names, in order."""
    kubectl.run("apply", "-f", str(SAMPLE))
    documents = yaml.safe_load_all(SAMPLE.read_text())
    return [each["metadata"]["name"] for each in documents if each["kind"] == "EvalSuite"]


def until_complete(kubectl: Kubectl, names: list[str], report: Report) -> list[Object]:
    """The suites when all have ended, well or not."""

    def all_ended() -> list[Object]:
        suites = [kubectl.get("evalsuite", name) or {"metadata": {"name": name}} for name in names]
        report(" · ".join(map(_line, suites)))
        return suites if all(map(ended, suites)) else []

    suites: list[Object] = kubectl.wait("the evaluation", all_ended, timeout=900, poll=1)
    return suites


def _line(suite: Object) -> str:
    status = suite.get("status", {})
    done, total = (sum(each[part] for each in status.get("benchmarks", [])) for part in ("done", "total"))
    return f"{suite['metadata']['name']} {status.get('state', 'Pending')} {done}/{total}"


def table(suites: list[Object]) -> Table:
    """A row for each model, a column for each benchmark: score, interval, difference to the model before training."""
    benchmarks = [each["name"] for each in suites[0]["status"]["benchmarks"]]
    made = Table("", *benchmarks, title="avg@1 in percent with its 95 % interval, and the difference to base", box=None)
    for suite in suites:
        results = {each["name"]: each for each in suite["status"]["benchmarks"]}
        made.add_row(suite["metadata"]["name"], *(_score(results[name]) for name in benchmarks))
    return made


def _score(result: Object) -> str:
    difference = "".join(f", {each['difference']}" for each in result.get("compared", []))
    interval = f" ({result['low']} to {result['high']})" if "low" in result else ""
    return f"{result.get('score', 'no score')}{interval}{difference}"


def copy_report(s3: S3Access, uri: str) -> Path:
    """Copies a report out of S3."""
    COPY.parent.mkdir(exist_ok=True)
    with s3.storage().open(f"{uri}/report.html") as file:
        COPY.write_bytes(file.read())
    return COPY
