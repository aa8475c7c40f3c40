"""`pinnace sft train`: PID 1 of a trainer pod. Prepares, lets torchrun train, publishes, and says how it ended."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.outcome import ExitCode, Outcome
from pinnace_operator.api.status import OutputRef

from pinnace.model import fetch_model
from pinnace.storage import Ancestor, RunDirectory, Storage

from . import inputs
from .job import Job
from .launch import Ended, Node, RendezvousFailed, interruptible, launch
from .scratch import Scratch

log = logging.getLogger(__name__)


def supervise(job: Job, scratch: Scratch) -> Outcome:
    """One pod's life. Returns how it ended (the caller exits with its code); raises typed errors before training."""
    node = Node.from_env(job)
    with interruptible():
        storage = Storage.from_env()
        run = storage.run(job.run_path)
        if (done := run.published()) is not None:
            log.info("an earlier attempt has published %s already", done.uri)
            return _completed(OutputRef(uri=done.uri, digest=done.digest))
        prepare(job, storage, run, scratch, node)
        try:
            node.wait_for_master()
        except RendezvousFailed as error:
            return Outcome(reason=Reason.RENDEZVOUS_FAILED, message=str(error), exit_code=1)
    ended = launch(job, node, scratch)
    if outcome := _worst(scratch):
        return outcome.model_copy(update={"log_tail": ended.tail}) if outcome.reason != Reason.CHECKPOINTED else outcome
    if ended.code != 0:
        return _crashed(ended)
    if node.rank != 0:
        return _completed(None)
    published = storage.publish(
        scratch.output,
        run.output,
        kind="model",
        base_model=job.model.uri,
        lineage=[Ancestor(ref="model", uri=job.model.uri or "", digest=job.model.digest)],
    )
    return _completed(OutputRef(uri=published.uri, digest=published.digest))


def prepare(job: Job, storage: Storage, run: RunDirectory, scratch: Scratch, node: Node) -> None:
    """Model, data and checkpoint on local disk, and `plan.json` for the workers."""
    _clear(scratch.root)
    fetch_model(job.spec.model, job.model, storage, scratch.model)
    template = inputs.chat_template(job.spec)
    reports = inputs.write_data(job.spec, storage, inputs.renderer(scratch.model, template), scratch.data)
    if node.rank == 0:
        inputs.publish_reports(run, reports)
    for report in reports.values():
        report.raise_if_bad()
    checkpoint = inputs.restore(run, scratch)
    if node.rank == 0:
        run.checkpoints.rewind(checkpoint)
    recipe = {
        "training": job.spec.training.model_dump(mode="json"),
        "data": {name: report.digest for name, report in reports.items()},
    }
    plan = {
        "parents": [digest for digest in [job.model.digest] if digest],
        "configHash": "sha256:" + hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest(),
        "chatTemplate": template,
        "resumedFrom": checkpoint.step if checkpoint else 0,
    }
    (scratch.root / "plan.json").write_text(json.dumps(plan))
    log.info("training %s", f"goes on from step {checkpoint.step}" if checkpoint else "starts")


def _clear(root: Path) -> None:
    """A container that restarts inside its pod finds the last one's files."""
    root.mkdir(parents=True, exist_ok=True)
    for path in root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _worst(scratch: Scratch) -> Outcome | None:
    """What the workers say: a permanent failure first, then any other, then that they were asked to stop."""
    said = [outcome for path in scratch.outcomes() if (outcome := Outcome.parse(path.read_text()))]

    def weight(outcome: Outcome) -> int:
        if outcome.reason == Reason.CHECKPOINTED:
            return 2
        return 0 if outcome.exit_code in {code for code in ExitCode if code.permanent} else 1

    return min(said, key=weight, default=None)


def _crashed(ended: Ended) -> Outcome:
    message = f"a worker ended with exit code {ended.code}"
    reason = Reason.TRAINER_FAILED
    if ended.code == 137:
        message += " (SIGKILL)"
        if _out_of_memory():
            reason = Reason.OUT_OF_MEMORY
            message += (
                ": the container's memory was full; raise trainer.resources.limits.memory, or lower "
                "training.microBatchSize or maxLength, or use offload or a higher zeroStage"
            )
    return Outcome(
        reason=reason, message=f"{message}; see logTail", exit_code=max(1, min(ended.code, 255)), log_tail=ended.tail
    )


def _out_of_memory(events: Path = Path("/sys/fs/cgroup/memory.events")) -> bool:
    try:
        counts = dict(line.split() for line in events.read_text().splitlines())
    except (OSError, ValueError):
        return False
    return int(counts.get("oom_kill", 0)) > 0


def _completed(output: OutputRef | None) -> Outcome:
    message = f"the model is at {output.uri}" if output else "training is done; node 0 publishes the model"
    return Outcome(reason=Reason.COMPLETED, message=message, exit_code=0, output=output)
