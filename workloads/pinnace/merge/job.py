"""A MergeJob's pod: from `PINNACE_JOB` to the committed output (docs/contracts.md §2, §3)."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.merge import MergeSpec
from pinnace_operator.api.outcome import ExitCode, Outcome
from pinnace_operator.api.status import OutputRef
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from pinnace.outcome import TERMINATION_LOG, Checkpointed, InvalidSpec, ModelUnusable
from pinnace.progress import Identity
from pinnace.progress import Progress as Reporter
from pinnace.shutdown import Shutdown
from pinnace.storage import Storage

from .errors import Interrupted, InvalidMerge, MergeError, OutOfBudget
from .plan import SourceFolders, make_plan
from .run import Progress, RunOptions, run
from .sources import Places


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class ResolvedSource(_Part):
    """What one source came to."""

    uri: str
    adapter: str | None = None


class ResolvedSources(_Part):
    """What the operator looked up: the base, and the models in the order of the spec."""

    base: ResolvedSource | None = None
    models: tuple[ResolvedSource, ...]


class MergeJob(_Part):
    """One MergeJob as its pod sees it; the output goes to `<run_path>/output`."""

    kind: str
    namespace: str
    name: str
    uid: str
    spec: MergeSpec
    resolved: ResolvedSources
    run_path: str = Field(min_length=1)
    first_attempt: int = Field(default=0, ge=0)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> MergeJob:
        """Reads `PINNACE_JOB`. Raises `InvalidSpec` naming every bad field."""
        text = environ.get("PINNACE_JOB")
        if not text:
            raise InvalidSpec("PINNACE_JOB is not set: this command runs in a pod that the operator made")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'PINNACE_JOB'}: {one['msg']}"
                for one in error.errors(include_url=False, include_input=False, include_context=False)
            )
            raise InvalidSpec(f"{problems}: correct the spec; operator and images must have the same version") from None


def merge_job() -> Outcome:
    """Runs the job of the environment. Raises the stage failures of `pinnace.outcome`."""
    job = MergeJob.from_env()
    storage = Storage.from_env()
    storage.check()
    attempt = job.first_attempt + int(os.environ.get("PINNACE_ATTEMPT") or 0)
    shutdown = Shutdown().install()
    stop = threading.Event()

    def pass_on() -> None:
        shutdown.wait()
        stop.set()

    threading.Thread(target=pass_on, name="merge-shutdown", daemon=True).start()
    reporter = Reporter.from_env(Identity(job.kind, job.namespace, job.name, job.uid, attempt))

    def progress(now: Progress) -> None:
        rate = now.bytes / max(now.seconds, 1e-9)
        reporter.report(
            step=now.bytes >> 20,
            total_steps=max(1, now.total >> 20),
            eta_seconds=int((now.total - now.bytes) / rate) if rate else None,
            throughput=f"{rate / 2**20:.0f} MiB/s",
        )

    places = Places(lambda: storage)
    try:
        plan = make_plan(
            job.spec,
            base=_opened(places, job.resolved.base, "base") if job.resolved.base else None,
            models=[_opened(places, one, "model") for one in job.resolved.models],
        )
        to = storage.settings.root / job.run_path / "output"
        published = run(plan, storage.store, to, options=RunOptions(replace=False), progress=progress, stop=stop)
    except Interrupted as error:
        raise Checkpointed(str(error)) from None
    except (InvalidMerge, OutOfBudget) as error:
        raise InvalidSpec(str(error)) from None
    except MergeError as error:
        raise ModelUnusable(str(error)) from None
    finally:
        reporter.close()
    return Outcome(
        reason=Reason.COMPLETED,
        message=f"merged {len(plan.tensors)} tensors",
        exit_code=ExitCode.COMPLETED,
        output=OutputRef(uri=published.uri, digest=published.digest),
    )


def termination_log() -> Path:
    """Where the container's termination message goes."""
    return Path(os.environ.get("PINNACE_TERMINATION_LOG", TERMINATION_LOG))


def _opened(places: Places, source: ResolvedSource, ref: str) -> SourceFolders:
    return places.source(source.uri, source.adapter, ref)
