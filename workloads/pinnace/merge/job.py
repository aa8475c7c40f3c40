"""A MergeJob's pod: from `PINNACE_JOB` to the committed output (docs/contracts.md §2, §3)."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.merge import MergeJobSpec, MergeSpec
from pinnace_operator.api.merge_status import MergeReport, SweepStatus
from pinnace_operator.api.mergesweep import HeldOutLoss, SweepRetain
from pinnace_operator.api.outcome import ExitCode, Outcome
from pinnace_operator.api.status import OutputRef

from pinnace import job
from pinnace.model import address, fetch_from_hub
from pinnace.outcome import TERMINATION_LOG, Checkpointed, InvalidSpec, ModelUnusable
from pinnace.progress import Progress as Reporter
from pinnace.shutdown import Shutdown
from pinnace.storage import Conflict, DamagedFile, Incomplete, NotFound, RunDirectory, S3Uri, Storage
from pinnace.storage.artifacts import Published

from .buffers import let_go
from .errors import Interrupted, InvalidMerge, MergeError, OutOfBudget, SourceChanged
from .evaluated import draw, judged, merge_all
from .heldout import prepare
from .plan import Plan, SourceFolders, make_plan
from .report import Report, merged_files
from .run import RunOptions, run
from .scorer import Scorer
from .search import CANDIDATES, Search, Trial, remove
from .source import Folder
from .sources import Places
from .state import STATE
from .sweep import candidates

log = logging.getLogger(__name__)

Job = job.Job[MergeJobSpec]


def merge_job() -> Outcome:
    """Runs the job of the environment. Raises the stage failures of `pinnace.outcome`."""
    this, storage = Job.from_env(), Storage.from_env()
    storage.check()
    directory = storage.run(this.run_path)
    published = directory.published()
    if published is None:
        with _typed(), _stopping() as stop:
            published = _Work(this, storage, directory, stop).published()
    else:  # by an attempt that may have died a moment later
        storage.store.delete([directory.output / STATE])
    sweep = this.spec.sweep
    if published and sweep and sweep.retain is SweepRetain.WINNER:
        remove(storage, directory.uri / CANDIDATES)
    outcome = Outcome(
        reason=Reason.COMPLETED,
        exit_code=ExitCode.COMPLETED,
        output=OutputRef(uri=published.uri, digest=published.digest) if published else None,
    )
    words = _last_words(storage, directory, published)
    told = (outcome.model_copy(update={"merge": each}) for each in words.reductions())
    return next((each for each in told if each.fits), outcome)


@contextmanager
def _typed() -> Iterator[None]:
    """Errors of the engine as outcomes of a stage."""
    try:
        yield
    except Interrupted as error:
        raise Checkpointed(str(error)) from None
    except (InvalidMerge, OutOfBudget, Conflict) as error:
        raise InvalidSpec(str(error)) from None
    except MergeError as error:
        raise ModelUnusable(str(error)) from None


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM sets."""
    shutdown, stop = Shutdown().install(), threading.Event()

    def pass_on() -> None:
        shutdown.wait()
        stop.set()

    threading.Thread(target=pass_on, name="merge-shutdown", daemon=True).start()
    yield stop


class _Work:
    """One attempt of a job whose output is not there yet."""

    def __init__(self, this: Job, storage: Storage, directory: RunDirectory, stop: threading.Event) -> None:
        self._job, self._storage, self._directory, self._stop = this, storage, directory, stop
        self._scratch = Path(os.environ.get("PINNACE_SCRATCH", "/scratch"))
        self._options = RunOptions(threads=this.spec.worker.cores, device=str(this.spec.worker.device))

    def published(self) -> Published | None:
        """Plans everything before the first byte is written; then searches, then merges.

        None: all candidates are merged, and their EvalSuites are next.
        """
        table = judged()
        if table:
            return self._winner(table)
        sweep = self._job.spec.sweep
        folders = self._folders()
        trials = [Trial(one, _plan(one.spec, folders)) for one in candidates(self._job.spec)]
        reporter = Reporter.from_env(self._job.identity)
        report = Report(reporter, trials[0].plan, merges=len(trials) + bool(sweep and sweep.metric))
        try:
            if sweep and sweep.eval_suite_template:
                self._candidates(trials, report)
                return None
            plan = self._best(trials, report, sweep.metric).plan if sweep and sweep.metric else trials[0].plan
            self._keep(report.merge)
            output = self._merge(plan, self._directory.output, report, output=True)
            self._keep(report.merge)
        finally:
            reporter.close()
        return output

    def _candidates(self, trials: list[Trial], report: Report) -> None:
        status = merge_all(
            trials, self._directory, lambda plan, to: self._merge(plan, to, report, output=False), report.sweep
        )
        # First: once the operator hears where they are, it may end this pod.
        self._keep(report.merge.model_copy(update={"sweep": status}))
        report.sweep(status, len(trials))

    def _winner(self, table: SweepStatus) -> Published:
        """The candidate that won, as it was evaluated."""
        status = draw(self._job.spec, table, self._directory)
        self._keep(_told(self._storage, self._directory).model_copy(update={"sweep": status}))

        def copied(_: int) -> None:
            if self._stop.is_set():
                raise Interrupted("asked to stop while the winner was published; the same job goes on")

        winner = self._directory.uri / CANDIDATES / str(table.winner)
        try:
            return self._storage.copy(winner, self._directory.output, copied=copied)
        except (NotFound, Incomplete, DamagedFile) as error:
            raise ModelUnusable(f"what was evaluated is not there any more: {error}") from None

    def _best(self, trials: list[Trial], report: Report, metric: HeldOutLoss) -> Trial:
        sweep = self._job.spec.sweep
        assert sweep is not None  # noqa: S101 -- the caller's condition
        workplace = self._scratch / "sweep"
        shutil.rmtree(workplace, ignore_errors=True)  # of a container that was restarted in this pod
        workplace.mkdir(parents=True)
        data = prepare(metric, trials[0].plan.layout.folder, self._storage, workplace)
        device = str(self._job.spec.worker.device)
        with Scorer(self._storage, data, device, workplace, self._stop, told=report.scored) as score:
            search = Search(
                metric, sweep.retain, data.digest, self._storage, self._directory, score=score, told=report.sweep,
                merge=lambda plan, to: self._merge(plan, to, report, output=False),
            )  # fmt: skip
            trial, status = search.best(trials)
        report.sweep(status)
        return trial

    def _merge(self, plan: Plan, to: S3Uri, report: Report, *, output: bool) -> Published:
        told = report.output if output else report.part
        published = run(plan, self._storage.store, to, options=self._options, progress=told, stop=self._stop)
        let_go()
        return published

    def _keep(self, told: MergeReport) -> None:
        """For the attempt that finds the output finished: another one may have died before it told."""
        body = told.model_dump_json(by_alias=True, exclude_none=True)
        self._directory.write_history("merge.json", body.encode())

    def _folders(self) -> dict[str, Folder]:
        """Every source by its field, listed once: all candidates are made of the same."""
        places = Places(lambda: self._storage)
        found = {}
        for number, (field, source) in enumerate(self._job.spec.sources.items()):
            resolved = self._job.resolved.get(field, job.ResolvedModel())
            if source.hub:
                local = self._scratch / "hub" / str(number)
                fetch_from_hub(source.hub, local, f"spec.{field}")
                found[field] = places.folder(str(local))
                continue
            found[field] = places.folder(address(source, resolved, self._storage, f"spec.{field}"))
            if resolved.digest and found[field].digest != resolved.digest:
                raise SourceChanged(
                    f"spec.{field}: {found[field].uri} was {resolved.digest} when the job was created, now it is "
                    f"{found[field].digest}: create the job again if that is right"
                )
        return found


def _plan(spec: MergeSpec, folders: Mapping[str, Folder]) -> Plan:
    models = [
        SourceFolders(folders[f"models.{name}"], folders.get(f"models.{name}.adapter")) for name in spec.model_names
    ]
    return make_plan(spec, base=SourceFolders(folders["base"]) if spec.base else None, models=models)


def _told(storage: Storage, directory: RunDirectory) -> MergeReport:
    """What is known about a merge, whichever attempt made it."""
    try:
        with storage.open(directory.history / "merge.json") as stream:
            return MergeReport.model_validate_json(stream.read())
    except NotFound:
        return MergeReport()


def _last_words(storage: Storage, directory: RunDirectory, published: Published | None) -> MergeReport:
    """The same, with the files of the output."""
    known = _told(storage, directory)
    if published is None:
        return known
    files = storage.show(directory.output).manifest.files
    weights = (each for each in files if each.path.endswith(".safetensors"))
    return known.model_copy(update={"files": merged_files(weights)})


def termination_log() -> Path:
    """Where the container's termination message goes."""
    return Path(os.environ.get("PINNACE_TERMINATION_LOG", TERMINATION_LOG))
