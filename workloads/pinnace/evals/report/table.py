"""Tables: one row for each attempt (Parquet), and one line in the shape of a leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .summary import Summary


def write_parquet(summaries: Sequence[Summary], path: Path) -> None:
    """Every attempt of every benchmark, with what identifies it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "benchmark": summary.benchmark,
            "split": summary.split,
            "revision": summary.revision,
            "config": summary.config_hash,
            "model": summary.config.get("model"),
            "policy": summary.config.get("policy", {}).get("name"),
            "grader": summary.grader.digest,
            "judge": summary.grader.judge,
            "item": item.item,
            "question": item.question,
            "reference": item.reference,
            **attempt.model_dump(),
        }
        for summary in summaries
        for item in summary.items
        for attempt in item.attempts
    ]
    schema = pa.schema(
        [(name, pa.string()) for name in ("benchmark", "split", "revision", "config", "model", "policy", "grader",
                                          "judge", "item", "question", "reference")]
        + [("attempt", pa.int32()), ("verdict", pa.string()), ("answer", pa.string()), ("termination", pa.string()),
           ("turns", pa.int32()), ("seconds", pa.float64()), ("tokens", pa.int64()), ("explanation", pa.string()),
           ("confidence", pa.int32())]
    )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def leaderboard(summaries: Sequence[Summary]) -> str:
    """A Markdown table: a line for each benchmark, in per cent."""
    lines = [
        "| benchmark | model | policy | grader (judge) | size × k | avg@k ± 95 % | pass@k | unfinished | unknown |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in summaries:
        value = "–"
        if each.score is not None:
            reach = (each.score.high - each.score.low) / 2
            value = f"{100 * each.score.value:.1f} ± {100 * reach:.1f}"
        top = each.pass_at.get(each.attempts)
        policy = each.config.get("policy", {}).get("name")
        lines.append(
            f"| {each.title} ({each.split}) | {each.config.get('model')} | {policy} | "
            f"{each.grader.profile} ({each.grader.judge or 'rule'}) | {each.questions} × {each.attempts} | {value} | "
            f"{'–' if top is None else f'{100 * top:.1f}'} | {each.unfinished} | {each.unknown} |"
        )
    return "\n".join(lines) + "\n"
