"""What torchrun starts: `python -m pinnace.sft.worker`. Joins training to S3, the operator and the outcome file."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback

from pinnace_operator.api.status import CheckpointRef

from pinnace.outcome import Checkpointed, failed
from pinnace.progress import Identity, Progress
from pinnace.storage import Checkpoint as StoredCheckpoint
from pinnace.storage import Committed, Delayed, Event, Failed, Storage

from .job import Job
from .launch import Node
from .scratch import Scratch
from .uploads import History, S3Checkpoints

UPLOAD_GRACE = 600.0  # seconds to wait for the last upload after SIGTERM; the kubelet's grace period ends it earlier


def main() -> int:
    """Trains; returns 0 when done or stopped on request, 1 after writing what went wrong."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    scratch, rank = Scratch.from_env(), int(os.environ["RANK"])
    try:
        work(Job.from_env(), scratch, rank)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the process ends here, and must say why
        path = scratch.outcome(rank)
        path.parent.mkdir(exist_ok=True)
        path.write_text(failed(error).dump())
        if isinstance(error, Checkpointed):
            return 0
        traceback.print_exc()
        return 1
    return 0


def work(job: Job, scratch: Scratch, rank: int) -> None:
    """Raises `Checkpointed` when asked to stop, `Diverged`, `ModelUnusable`, …"""
    plan = json.loads((scratch.root / "plan.json").read_text())
    node, spec = Node.from_env(job), job.spec
    progress = Progress.from_env(Identity(job.kind, job.namespace, job.name, job.uid, job.attempt))
    durable: list[StoredCheckpoint] = []

    def listen(event: Event) -> None:
        match event:
            case Committed(checkpoint):
                durable.append(checkpoint)
                progress.report(step=checkpoint.step, checkpoint=_reference(checkpoint))
                progress.event("Normal", "CheckpointSaved", f"checkpoint of step {checkpoint.step} is durable")
            case Delayed(step, reason):
                progress.event("Warning", "StorageDegraded", f"checkpoint {step} waits for storage: {reason}")
            case Failed(step, reason):
                progress.event("Warning", "CheckpointFailed", f"checkpoint {step} is lost: {reason}")

    storage = Storage.from_env()
    run = storage.run(job.run_path, listener=listen)
    sink = S3Checkpoints(
        run,
        node=node.rank,
        nodes=spec.trainer.nodes,
        keep_last=spec.checkpoint.keep_last,
        keep_best=spec.checkpoint.keep_best,
        parents=plan["parents"],
        config_hash=plan["configHash"],
    )
    history = History(run, job.attempt, earlier=_log_history(scratch)) if rank == 0 else None

    def emit(step: int, total: int, metrics: dict[str, float]) -> None:
        if history is not None:
            history.add(step, metrics)
        pace = metrics.get("seconds_per_step")
        progress.report(
            step=step,
            total_steps=total,
            eta_seconds=round(pace * (total - step)) if pace else None,
            throughput=f"{metrics['tokens_per_second']:.0f} tokens/s" if pace else None,
            metrics={name: f"{metrics[name]:.6g}" for name in _SHOWN if name in metrics},
        )

    from .train import train  # torch and its friends take seconds to import: only now

    step = train(spec, scratch, sink, emit, plan["chatTemplate"], resumed_from=plan["resumedFrom"])
    run.checkpoints.wait(UPLOAD_GRACE if step is not None else None)
    if history is not None:
        history.close()
    progress.close()
    if step is not None:
        newest = _reference(durable[-1]) if durable else None
        raise Checkpointed(f"stopped on request after step {step}, which is saved", step=step, checkpoint=newest)


_SHOWN = ("loss", "eval_loss", "learning_rate", "grad_norm", "mean_token_accuracy", "epoch", "num_tokens")


def _log_history(scratch: Scratch) -> list[dict[str, object]]:
    state = scratch.resume / "trainer_state.json"
    lines: list[dict[str, object]] = json.loads(state.read_text())["log_history"] if state.is_file() else []
    return lines


def _reference(stored: StoredCheckpoint) -> CheckpointRef:
    return CheckpointRef.model_validate(
        {"step": stored.step, "uri": stored.uri, "digest": stored.digest, "time": stored.time}
    )


if __name__ == "__main__":
    sys.exit(main())
