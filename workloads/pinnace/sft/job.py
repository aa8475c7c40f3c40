"""An SFTJob as its pods see it."""

from __future__ import annotations

from pinnace_operator.api.sft import SFTJobSpec

from pinnace import job

Job = job.Job[SFTJobSpec]
