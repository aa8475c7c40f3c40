"""Which benchmarks an EvalSuite runs, and how answers are graded."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, Rule, matches
from pinnace_operator.api.evalengine import ModelName
from pinnace_operator.api.fields import Digest, HttpUrl, HubRevision, ObjectName, S3Uri, whole
from pinnace_operator.api.shared import ConfigMapSource, exactly_one

BenchmarkName = Annotated[
    str,
    Field(min_length=1, max_length=63),
    matches(
        r"[a-z0-9][-a-z0-9]*", "must be a benchmark's name: lower-case letters, digits and '-', such as 'browsecomp-zh'"
    ),
]


_FILE = r"\.(yaml|yml|py)$"


class GraderProfile(StrEnum):
    """Whose way of grading."""

    OFFICIAL = "Official"
    COMMUNITY = "Community"


class BenchmarkSource(ApiModel):
    """Where the questions come from instead of the hub: exactly one of uri and configMap."""

    uri: S3Uri | None = None
    """A copy of a shipped benchmark's files in S3."""
    config_map: ConfigMapSource | None = None
    """A benchmark of your own: the key is its YAML file; files that it names are keys of the same ConfigMap, or S3."""

    rules = (
        exactly_one("source", "uri", "configMap"),
        Rule(
            f"!has(self.configMap) || self.configMap.key.matches(r'{_FILE}')",
            "source.configMap.key: a benchmark of your own is a file whose name ends in .yaml or .py: rename the key",
            lambda source: source.config_map is None or re.search(_FILE, source.config_map.key) is not None,
            field=".configMap",
        ),
    )


class EvalBenchmark(ApiModel):
    """One benchmark. Shipped ones are found by name; `pinnace eval list` shows them."""

    name: BenchmarkName
    """Its name: of a shipped benchmark, or the one in your YAML file."""
    split: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Which questions; absent: the benchmark's first split."""
    revision: HubRevision | None = None
    """The dataset's commit on the hub. Only a commit makes the run repeatable."""
    source: BenchmarkSource | None = None
    checksum: Digest | None = None
    """What the files must have together, as reports show it."""
    limit: Annotated[int, whole(1, 1_000_000)] | None = None
    """Only the first so many questions."""
    attempts: Annotated[int, whole(1, 4096)] = 1
    """Attempts at each question."""
    pass_at: Annotated[int, whole(1, 4096)] | None = None
    """K of the pass@K that the status shows; absent: as many as there are attempts."""
    profile: GraderProfile = GraderProfile.OFFICIAL
    """Grade as the authors do (Official), or as papers on agents do (Community: looser)."""

    rules = (
        Rule(
            "!has(self.passAt) || self.passAt <= self.attempts",
            "benchmarks.passAt: pass@K is undefined for fewer than K attempts: raise attempts, or lower passAt",
            lambda each: each.pass_at is None or each.pass_at <= each.attempts,
            field=".passAt",
        ),
        Rule(
            "!has(self.revision) || !has(self.source)",
            "benchmarks.revision: it is a revision on the hub, and source is a copy: remove one (checksum pins a copy)",
            lambda each: each.revision is None or each.source is None,
            field=".revision",
        ),
    )


class Judge(ApiModel):
    """The model that grades answers where a rule can't."""

    url: HttpUrl
    """Its OpenAI-compatible endpoint, such as `https://api.example.com/v1`."""
    model: ModelName
    """Its name there. One other than the profile's is a warning in the report."""
    secret_name: ObjectName | None = None
    """Secret in the suite's namespace whose key `apiKey` holds the key; absent: none is needed."""
