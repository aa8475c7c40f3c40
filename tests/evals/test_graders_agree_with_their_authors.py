"""Graders on tables with the traps, beside the verdicts written by hand and beside Inspect's own graders."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from pinnace.evals import JudgeGrader, JudgePrompt, Verdict, intervals, metrics
from pinnace.evals.benchmarks import shipped
from pinnace.evals.cipher import encrypt_sha256
from pinnace.evals.graders import Answered, RuleGrader, readings
from pinnace.evals.graders.rules import exact, gaia, number, xbench_exact

from e2e.faults.model import Answer, Trouble, scripted_model
from e2e.oracle import ask_inspect

from .conftest import judge_at
from .pairs import PAIRS, READ

YES_NO = [
    "extracted_final_answer: 42\n\nreasoning: same\n\ncorrect: yes\n\nconfidence: 80",
    "extracted_final_answer: 41\n\nreasoning: not the same\n\ncorrect: no\n\nconfidence: 65%",
    "extracted_final_answer: None\n\nreasoning: none given\n\ncorrect: no\n\nconfidence: 100",
    "extracted_final_answer: a: b\n\nreasoning: x\n\ncorrect: yes\n\nconfidence: 100",
    "extracted_final_answer: Paris\nreasoning: it is\ncorrect: yes\nconfidence: 0",
    "extracted_final_answer: Paris\nreasoning: far above\ncorrect: yes\nconfidence: 250",
    "extracted_final_answer: Paris\nreasoning: no confidence\ncorrect: yes\n",
    "extracted_final_answer: 東京\n\nreasoning: 一致\n\ncorrect: yes\n\nconfidence: 90",
]


HLE_OBJECTS = [
    json.dumps({"extracted_final_answer": "2", "reasoning": "r", "correct": correct, "confidence": confidence})
    for correct, confidence in (("yes", 80), ("no", 0), ("yes", 100), ("no", 250), ("maybe", 50), ("YES!", 5))
] + ["not JSON", '```json\n{"extracted_final_answer": "", "reasoning": "", "correct": "no", "confidence": 3}\n```']


def oracle_table() -> dict[str, Any]:
    """What both are asked. Random, but the same every time."""
    dice = random.Random(7)
    reduce = [([dice.randrange(2) for _ in range(dice.randint(1, 12))], dice.randint(1, 8)) for _ in range(80)]
    clusters = [
        [[dice.randrange(2) for _ in range(dice.randint(1, 6))] for _ in range(dice.randint(2, 20))] for _ in range(20)
    ]
    calibration = [
        [(dice.choice([0, 10, 35, 50, 77, 90, 100]), dice.random() < 0.5) for _ in range(count)]
        for count in (1, 3, 99, 100, 101, 250, 399)
    ]
    texts = [("What is 2+2?", "canary"), ("東京タワー" * 30, "c"), ("a", "GUID 1-2-3")]
    return {
        "gaia": [(reference, answer) for reference, answer, _ in PAIRS],
        "browsecomp": YES_NO,
        "hle": HLE_OBJECTS,
        "decrypt": [(encrypt_sha256(text, canary), canary) for text, canary in texts],
        "reduce": reduce,
        "clusters": clusters,
        "calibration": calibration,
    }


@pytest.fixture(scope="module")
def oracle() -> tuple[dict[str, Any], dict[str, Any]]:
    """(what was asked, what Inspect said)."""
    asked = oracle_table()
    return asked, ask_inspect(Path(__file__).with_name("oracle_graders.py"), asked)


def test_the_table_is_large_and_has_both_verdicts() -> None:
    assert len(PAIRS) >= 200
    assert len(set(PAIRS)) >= 200
    assert 60 < sum(right for _, _, right in PAIRS) < len(PAIRS) - 60


@pytest.mark.parametrize(("reference", "answer", "right"), PAIRS)
def test_gaias_rule(reference: str, answer: str, right: bool) -> None:
    assert gaia(reference, answer) is right


@pytest.mark.slow
def test_gaias_rule_agrees_with_inspect_on_every_pair(oracle: Any) -> None:
    asked, said = oracle
    ours = [gaia(reference, answer) for reference, answer in asked["gaia"]]
    differing = [pair for pair, one, other in zip(asked["gaia"], ours, said["gaia"], strict=True) if one != other]
    assert not differing


@pytest.mark.slow
def test_browsecomps_verdicts_agree_with_inspect(oracle: Any) -> None:
    _, said = oracle
    for told, (right, confidence, answer) in zip(YES_NO, said["browsecomp"], strict=True):
        ours = readings.hle(told)
        assert ours is not None
        assert (ours[0] is Verdict.RIGHT, ours[2], ours[1]) == (right, confidence, answer)


@pytest.mark.slow
def test_hles_verdicts_agree_with_inspect(oracle: Any) -> None:
    asked, said = oracle
    for told, (verdict, confidence) in zip(asked["hle"], said["hle"], strict=True):
        ours = readings.hle(told)
        assert (ours[0].value if ours else None) == {"C": "right", "I": "wrong", None: None}[verdict]
        if ours is not None:
            assert ours[2] == confidence


@pytest.mark.slow
def test_browsecomps_cipher_agrees_with_inspect(oracle: Any) -> None:
    assert oracle[1]["decrypt"] == ["What is 2+2?", "東京タワー" * 30, "a"]


@pytest.mark.slow
def test_metrics_agree_with_inspect(oracle: Any) -> None:
    asked, said = oracle
    for (values, k), at, every in zip(asked["reduce"], said["pass_at"], said["pass_k"], strict=True):
        assert metrics.pass_at(len(values), sum(values), k) == pytest.approx(at)
        assert metrics.pass_all(len(values), sum(values), k) == pytest.approx(every)
    for groups, error in zip(asked["clusters"], said["stderr"], strict=True):
        assert intervals.clustered_stderr(groups) == pytest.approx(error)
    for pairs, rms, ece in zip(
        asked["calibration"], said["hle_calibration"], said["browsecomp_calibration"], strict=True
    ):
        confidences, right = [pair[0] / 100 for pair in pairs], [pair[1] for pair in pairs]
        assert metrics.expected_calibration_error(confidences, right) == pytest.approx(ece)
        if len({pair[0] for pair in pairs}) == len(pairs) or len(pairs) < 100:
            # With ties, which answers share a bin depends on the sort; Inspect's is not stable.
            assert metrics.rms_calibration_error(confidences, right) == pytest.approx(rms)


@pytest.mark.parametrize(("reading", "text", "verdict"), READ)
def test_a_verdict_is_read_in_its_form_or_not_at_all(reading: str, text: str, verdict: Verdict | None) -> None:
    found = readings.READINGS[reading](text)
    assert (found[0] if found else None) is verdict


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [("2", "我认为…\n最终答案: 2", True), ("2", "最终答案:2", True), ("2", "最终答案：2", True), ("2", "2", True),
     ("2", "最终答案: 2 个", False), ("2", "最终答案: 3", False), ("a b", "最终答案: ab", False),
     ("2", "答案是2", False)],
)  # fmt: skip
def test_xbenchs_exact_match_comes_first(reference: str, answer: str, right: bool) -> None:
    assert xbench_exact(reference, answer) is right


def test_plain_rules() -> None:
    assert exact("ﬁ", " fi ")
    assert not exact("a", "A")
    assert number("1,000", "$1000.0")
    assert not number("10", "about 10")
    with pytest.raises(ValueError, match="not a number"):
        number("ten", "10")


HLE = JudgeGrader(JudgePrompt.shipped("hle", readings.hle))
ASKED = Answered("What is 1+1?", "2", "two {reference} {response}", "Explanation: {question}\nExact Answer: two")


async def test_a_judge_is_asked_at_temperature_zero_with_a_recorded_prompt() -> None:
    async with scripted_model(lambda _: Answer("correct: yes\nconfidence: 90")) as model:
        grade = await HLE.grade(ASKED, judge_at(model.url))
        assert (grade.verdict, grade.confidence, grade.by, grade.tries) == (Verdict.RIGHT, 90, "scripted", 1)
        request = model.requests[0]
        assert request["temperature"] == 0
        text = request["messages"][0]["content"]
        assert "Explanation: {question}\nExact Answer: two" in text, "braces in an answer were filled in"
        assert "What is 1+1?" in text
        assert len(HLE.prompt.digest) == 64


async def test_a_judge_that_rambles_is_asked_again_and_then_unknown() -> None:
    answers = iter([Answer("Hmm."), Answer("correct: no")])
    async with scripted_model(lambda _: next(answers)) as model:
        grade = await HLE.grade(ASKED, judge_at(model.url))
        assert (grade.verdict, grade.tries) == (Verdict.WRONG, 2)
    async with scripted_model(lambda _: Answer("I think it is probably right.")) as model:
        grade = await HLE.grade(ASKED, judge_at(model.url, tries=2))
        assert (grade.verdict, grade.tries) == (Verdict.UNKNOWN, 2)
        assert "probably right" in grade.explanation


@pytest.mark.parametrize("trouble", [Trouble(503), Trouble(400, "no"), Trouble(401, "key"), Trouble(drop=True)])
async def test_a_judge_that_fails_is_neither_right_nor_wrong(trouble: Trouble) -> None:
    async with scripted_model(lambda _: trouble) as model:
        assert (await HLE.grade(ASKED, judge_at(model.url))).verdict is Verdict.UNKNOWN


async def test_no_answer_is_wrong_without_asking_a_judge() -> None:
    async with scripted_model(lambda _: Answer("correct: yes")) as model:
        for grader in (HLE, RuleGrader("gaia", gaia)):
            grade = await grader.grade(Answered("Q", "2", None, "  "), judge_at(model.url))
            assert grade.verdict is Verdict.WRONG
        assert not model.requests


async def test_xbench_asks_its_judge_only_where_the_exact_match_fails() -> None:
    official = shipped()["xbench-deepsearch"].profile("official").grader
    async with scripted_model(lambda _: Answer("最终答案: 二\n结论: 正确")) as model:
        sure = await official.grade(Answered("Q", "2", "2", "想…\n最终答案: 2"), judge_at(model.url))
        assert (sure.verdict, sure.by, model.requests) == (Verdict.RIGHT, "exact match", [])
        asked = await official.grade(Answered("Q", "2", "二", "最终答案: 二"), judge_at(model.url))
        assert (asked.verdict, asked.extracted, len(model.requests)) == (Verdict.RIGHT, "二", 1)


def test_every_benchmark_has_both_profiles_and_prompts_with_digests_of_their_own() -> None:
    for benchmark in shipped().values():
        others = {"community"} if benchmark.name != "scout" else set()  # ours has one rule
        assert {"official"} | others <= set(benchmark.profiles)
        for profile in benchmark.profiles.values():
            assert profile.grader.needs_judge == (profile.judge is not None)
    folder = Path(metrics.__file__).parent / "graders/prompts"
    assert len({path.read_text() for path in folder.glob("*.txt")}) == 8


async def test_a_judge_is_measured_against_people(tmp_path: Path) -> None:
    from pinnace.evals.calibrate import agreement, calibrate, read_labelled

    rows = ["right", "right", "wrong", "wrong", "wrong", "right"]
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(f'{{"question": "{n}", "answer": "2", "response": "r{n}", "label": "{label}"}}\n'
                            for n, label in enumerate(rows)))  # fmt: skip
    said = ["yes", "no", "no", "yes", "no", "dunno"]

    def script(request: dict[str, Any]) -> Answer:
        text = request["messages"][0]["content"]
        return Answer(next(f"correct: {word}" for n, word in enumerate(said) if f"r{n}" in text))

    async with scripted_model(script) as model:
        found = await calibrate(HLE, judge_at(model.url), read_labelled(path))
    assert (found.total, found.agreed, found.false_right, found.false_wrong, found.unknown) == (6, 3, 1, 1, 1)
    assert found.share == pytest.approx(3 / 5)
    assert found.kappa == pytest.approx((0.6 - 0.52) / (1 - 0.52))
    assert agreement([]).kappa is None
