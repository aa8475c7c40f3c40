"""The training loop: `train` reads top to bottom. Every rank runs it; rank 0 speaks to the outside.

What makes a step count exactly once: its batch is claimed in the store, its weights get a version of their own before
anybody sees them, and the claim is acknowledged when a checkpoint that holds the step is durable. A trainer that dies
resumes from a checkpoint, and the coordinator frees what later steps had claimed.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from pinnace.outcome import Checkpointed, Diverged
from pinnace.shutdown import Shutdown
from pinnace.storage import Published

from .checkpoints import Checkpoints
from .config import RunConfig
from .engine.export import export
from .engine.protocol import NotFinite, OptimizerParameters, TrainEngine
from .engine.ranks import Ranks
from .loss import CORRECTIONS, LOSSES, Loss, corrected
from .measure import measure
from .metrics import METRICS, Clock, JsonLines
from .outlet import Outlet
from .report import Report
from .signal.denoise import denoise
from .signal.samples import build_samples
from .types import Trajectory
from .weights import PROBE, Probe


def train(
    config: RunConfig,
    engine: TrainEngine,
    outlet: Outlet,
    checkpoints: Checkpoints,
    probe_ids: tuple[int, ...],
    shutdown: Shutdown,
    ranks: Ranks,
    report: Report,
) -> Published | None:
    """Trains to the last step; rank 0 exports the model and says where it is.

    Raises `Diverged`, `Checkpointed` (SIGTERM), and what the engine and the other processes fail with.
    """
    clock, loss = Clock(), make_loss(config)
    saved = ranks.share(checkpoints.newest() if ranks.first else None)
    if saved is not None:
        engine.load(saved.folder / "state")
    step = saved_step = saved.step if saved is not None else 0
    before = saved.folder / "state" / METRICS if saved is not None else None
    lines = JsonLines(config.folder / METRICS, before) if ranks.first else None
    newest_group = lines.last("newest_group") if lines is not None else None
    version = ranks.share(outlet.begin(step, newest_group) if ranks.first else 0)
    publish(engine, outlet, version, config.model, probe_ids, ranks, clock)

    while step < config.steps:
        trajectories = wait_for_batch(outlet, step + 1, shutdown, ranks, clock)
        if trajectories is None:
            if step > saved_step:
                save(engine, checkpoints, step, config, ranks, clock)
            checkpoints.wait(shutdown.seconds_left())
            raise Checkpointed(f"step {step} is saved; the next attempt goes on from there", step=step)
        groups = [denoise(members, config.denoising) for members in by_group(trajectories)]
        samples = build_samples(groups, config.signal)
        try:
            prox = engine.logprobs(samples) if config.loss.name == "decoupled-ppo" else None
            made = engine.accumulate(samples, loss, prox=prox)
            norm = engine.apply(optimizer(config, step))
        except NotFinite as error:
            raise Diverged(
                f"step {step + 1}: {error}; the last good checkpoint is {last_good(saved_step)}: lower "
                f"optimizer.learningRate (now {config.optimizer.learning_rate:g}) or add a correction to loss",
                step=step,
            ) from error
        step, version = step + 1, version + 1
        newest_group = max([newest_group or 0, *(int(one.group_id) for one in trajectories)])
        if ranks.first:
            outlet.stepped(step, version, newest_group)
        publish(engine, outlet, version, config.model, probe_ids, ranks, clock)
        if lines is not None:
            values = measure(trajectories, groups, samples, made, version=version - 1) | {
                "grad_norm": norm, "policy_version": version, "servers_quarantined": outlet.quarantined,
                "reward": outlet.reward, "newest_group": newest_group,
                **clock.values(),
            }  # fmt: skip
            lines.write(step, values)
            report.tell(step, values)
        if step % config.checkpoint_every == 0 or step == config.steps:
            save(engine, checkpoints, step, config, ranks, clock)
            saved_step = step

    checkpoints.wait(None)
    if not ranks.first:
        export(engine, config.model, None)
        return None
    outlet.durable(step)  # also when a killed trainer had no time to say so: it ends the run for all
    return outlet.finish(partial(export, engine, config.model))


def wait_for_batch(
    outlet: Outlet, step: int, shutdown: Shutdown, ranks: Ranks, clock: Clock
) -> list[Trajectory] | None:
    """None: we are asked to stop."""
    with clock.waiting("batch"):
        while not ranks.any(shutdown.requested):
            if found := ranks.share(outlet.batch(step) if ranks.first else []):
                return found
    return None


def by_group(trajectories: list[Trajectory]) -> list[list[Trajectory]]:
    """In the order in which the groups' first members arrived."""
    groups: dict[str, list[Trajectory]] = {}
    for one in trajectories:
        groups.setdefault(one.group_id, []).append(one)
    return list(groups.values())


def publish(
    engine: TrainEngine, outlet: Outlet, version: int, base: Path, probe: tuple[int, ...], ranks: Ranks, clock: Clock
) -> None:
    """Writes weights and probe; servers take them over while training goes on."""
    with clock.waiting("publish"):
        known = Probe(ids=probe, logprobs=engine.next_logprobs(probe))
        if not ranks.first:
            export(engine, base, None)
            return

        def write(folder: Path) -> None:
            export(engine, base, folder)
            (folder / PROBE).write_text(known.dump())

        outlet.publish(version, write)


def save(
    engine: TrainEngine, checkpoints: Checkpoints, step: int, config: RunConfig, ranks: Ranks, clock: Clock
) -> None:
    """With the metrics so far: what a trainer resumes from tells of every step before."""
    with clock.waiting("checkpoint"):
        staged = ranks.share(checkpoints.staging(step) if ranks.first else Path())
        engine.save(staged / "state")
        if ranks.first:
            (staged / "model").mkdir()
        export(engine, config.model, staged / "model" if ranks.first else None)
        ranks.meet()
        if ranks.first:
            shutil.copy(config.folder / METRICS, staged / "state")
            checkpoints.commit(step, staged)


def last_good(step: int) -> str:
    return f"that of step {step}" if step else "the model that training started from"


def optimizer(config: RunConfig, step: int) -> OptimizerParameters:
    """Of the step after `step`."""
    given = config.optimizer
    warm = min(1.0, (step + 1) / given.warmup_steps) if given.warmup_steps else 1.0
    return OptimizerParameters(
        learning_rate=given.learning_rate * warm,
        weight_decay=given.weight_decay,
        beta1=given.beta1,
        beta2=given.beta2,
    )


def make_loss(config: RunConfig) -> Loss:
    """Raises KeyError for names that `setup.check` refuses earlier."""
    factors = [partial(CORRECTIONS[name], **given) for name, given in config.loss.corrections.items()]
    loss = partial(LOSSES[config.loss.name], **config.loss.parameters)
    return corrected(loss, factors) if factors else loss
