"""The job a pod works on, as the operator hands it over (docs/contracts.md §2)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Generic, Literal, Self, TypeVar

from pinnace_operator.api.job import JobSpec
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from pinnace.outcome import InvalidSpec
from pinnace.progress import Identity


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class ResolvedModel(_Part):
    """What a model of the spec came to: the address, and the digest where it is known.

    With `checkpoint: best`, the address is that of a run's `checkpoints`; the pod picks the one with the best score.
    """

    uri: str | None = None
    digest: str | None = None
    checkpoint: Literal["best"] | None = None


Spec = TypeVar("Spec", bound=JobSpec)


class Job(_Part, Generic[Spec]):
    """One job as a pod sees it; `Job[SFTJobSpec]` reads the specs of that kind.

    Attributes:
        resolved: by field of the spec, the models that it starts from.
        run_path: `<namespace>/<kind>/<name>/<uid8>`, the run's folder below the storage prefix.
        first_attempt: attempts before this JobSet, which counts its restarts from 0.
        attempt: number of this attempt over the life of the job, from 0.
        pod: this pod's name.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    spec: Spec
    resolved: dict[str, ResolvedModel] = Field(default_factory=dict)
    run_path: str = Field(min_length=1)
    first_attempt: int = Field(default=0, ge=0)
    attempt: int = Field(default=0, ge=0)
    pod: str = ""

    @property
    def identity(self) -> Identity:
        """Who reports progress."""
        return Identity(self.kind, self.namespace, self.name, self.uid, self.attempt)

    @property
    def model(self) -> ResolvedModel:
        """What `spec.model` came to."""
        return self.resolved.get("model", ResolvedModel())

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Reads `PINNACE_JOB`, `PINNACE_ATTEMPT` and `PINNACE_POD`. Raises `InvalidSpec` naming every bad field."""
        text = environ.get("PINNACE_JOB")
        if not text:
            raise InvalidSpec("PINNACE_JOB is not set: this command runs in a pod that the operator made")
        try:
            job = cls.model_validate_json(text)
            attempt = job.first_attempt + int(environ.get("PINNACE_ATTEMPT") or 0)
            return job.model_copy(update={"attempt": attempt, "pod": environ.get("PINNACE_POD", "")})
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'PINNACE_JOB'}: {one['msg']}"
                for one in error.errors(include_url=False, include_input=False, include_context=False)
            )
            raise InvalidSpec(f"{problems}: correct the spec; operator and images must have the same version") from None
        except ValueError:
            raise InvalidSpec(f"PINNACE_ATTEMPT is {environ.get('PINNACE_ATTEMPT')!r}: it must be a number") from None
