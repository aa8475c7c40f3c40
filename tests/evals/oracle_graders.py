"""Runs in Inspect's environment: its own graders on our table. Not a test."""

import asyncio
import json
import logging
import math
import sys

from inspect_ai.model import ChatMessageUser, ModelOutput
from inspect_ai.scorer import SampleScore, Score, Target, pass_at, pass_k
from inspect_ai.scorer._metrics.std import _clustered_stderr
from inspect_ai.solver import TaskState
from inspect_evals.browse_comp.browse_comp import browse_comp_scorer, calibration_error
from inspect_evals.browse_comp.utils import decrypt
from inspect_evals.gaia.scorer import question_scorer
from inspect_evals.hle import scorers as hle_scorers
from inspect_evals.hle.metrics import cerr

logging.disable(logging.CRITICAL)
asked = json.load(sys.stdin)


class Told:
    """A model that says one thing. Inspect's own mock counts tokens with a vocabulary that it downloads."""

    def __init__(self, told):
        self.told = told

    async def generate(self, *_, **__):
        return ModelOutput.from_content("told", self.told)


def value(number):
    return None if isinstance(number, float) and math.isnan(number) else number


async def browsecomp(told):
    model = Told(told)
    state = TaskState(model="mockllm/model", sample_id=1, epoch=1, input="Q", messages=[ChatMessageUser(content="Q")])
    state.output = ModelOutput.from_content("mockllm/model", "R")
    score = await browse_comp_scorer(model)(state, Target("A"))
    return [score.value["score"] == "C", score.value["confidence"], score.answer]


async def hle(told):
    hle_scorers._resolve_grader = lambda _: Told(told)
    state = TaskState(model="mockllm/model", sample_id=1, epoch=1, input="Q", messages=[ChatMessageUser(content="Q")])
    state.output = ModelOutput.from_content("mockllm/model", "R")
    score = await hle_scorers.json_judge("json_judge")(state, Target("A"))
    return [value(score.value["score"]), score.value["confidence"]]


def scored(pairs):
    return [
        SampleScore(score=Score(value={"score": "C" if right else "I", "confidence": confidence}))
        for confidence, right in pairs
    ]


answer = {
    "gaia": [bool(question_scorer(given, truth)[0]) for truth, given in asked["gaia"]],
    "browsecomp": [asyncio.run(browsecomp(told)) for told in asked["browsecomp"]],
    "hle": [asyncio.run(hle(told)) for told in asked["hle"]],
    "decrypt": [decrypt(text, canary) for text, canary in asked["decrypt"]],
    "pass_at": [value(pass_at(k)([Score(value=v) for v in values]).value) for values, k in asked["reduce"]],
    "pass_k": [value(pass_k(k)([Score(value=v) for v in values]).value) for values, k in asked["reduce"]],
    "stderr": [_clustered_stderr(groups) for groups in asked["clusters"]],
    "hle_calibration": [value(cerr()(scored(pairs))) for pairs in asked["calibration"]],
    "browsecomp_calibration": [float(calibration_error()(scored(pairs))) for pairs in asked["calibration"]],
}
print(json.dumps(answer))
