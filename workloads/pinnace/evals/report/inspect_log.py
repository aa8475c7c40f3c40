"""Logs that Inspect View opens: the `.eval` format (a zip of JSON), version 2, written without Inspect.

Checked against `inspect_ai.log.read_eval_log` by a test. The format: https://inspect.aisi.org.uk/eval-logs.html
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pinnace.agent import Event
from pinnace.agent.events import Began, Replied, Turned

from .page import Trajectories
from .summary import AttemptResult, ItemResult, Summary

_VERDICTS = {"right": "C", "wrong": "I", "unfinished": "I"}


def write_inspect_log(
    summary: Summary, path: Path, *, trajectories: Trajectories = lambda *_: (), now: datetime | None = None
) -> None:
    """Writes one `.eval` file. An attempt without a verdict has the score NaN, as Inspect has it."""
    moment = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    spec = _spec(summary, moment)
    samples: list[dict[str, Any]] = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:

        def write(name: str, body: object) -> None:
            archive.writestr(name, json.dumps(body, ensure_ascii=False))

        write("_journal/start.json", {"version": 2, "eval": spec, "plan": _plan()})
        for item, attempt in _attempts(summary):
            sample = _sample(summary, item, attempt, trajectories(summary, item.item, attempt.attempt))
            write(f"samples/{_file_name(item.item)}_epoch_{attempt.attempt + 1}.json", sample)
            samples.append(_brief(sample))
        write("summaries.json", samples)
        write("header.json", _header(summary, spec, moment))


def _attempts(summary: Summary) -> Iterator[tuple[ItemResult, AttemptResult]]:
    for item in summary.items:
        for attempt in item.attempts:
            yield item, attempt


def _spec(summary: Summary, moment: str) -> dict[str, Any]:
    key = f"{summary.benchmark}/{summary.split}/{summary.config_hash}"
    return {
        "eval_id": _short(f"{key}/{summary.grader.digest}"),
        "run_id": _short(summary.config_hash),
        "created": moment,
        "task": summary.benchmark,
        "task_id": _short(key),
        "task_version": 0,
        "task_args": {"split": summary.split, "grader": summary.grader.digest},
        "dataset": {
            "name": summary.title,
            "location": summary.revision,
            "samples": summary.questions,
            "sample_ids": [item.item for item in summary.items],
            "shuffled": False,
        },
        "model": f"openai-api/{summary.config.get('model')}",
        "model_generate_config": {},
        "model_args": {},
        "config": {"epochs": summary.attempts},
        "metadata": {"pinnace": summary.config},
    }


def _plan() -> dict[str, Any]:
    return {"name": "plan", "steps": [{"solver": "pinnace", "params": {}}], "config": {}}


def _sample(summary: Summary, item: ItemResult, attempt: AttemptResult, events: Sequence[Event]) -> dict[str, Any]:
    messages = _messages(events)
    last = next((one["content"] for one in reversed(messages) if one["role"] == "assistant"), attempt.answer or "")
    model = str(summary.config.get("model"))
    return {
        "id": item.item,
        "epoch": attempt.attempt + 1,
        "input": item.question,
        "target": item.reference,
        "messages": messages,
        "output": {
            "model": model,
            "choices": [
                {"message": {"role": "assistant", "content": last, "source": "generate"}, "stop_reason": "stop"}
            ],
            "completion": last,
        },
        "scores": {
            summary.grader.name: {
                "value": _VERDICTS.get(attempt.verdict, float("nan")),
                "answer": attempt.answer,
                "explanation": attempt.explanation,
                "metadata": {"verdict": attempt.verdict, "confidence": attempt.confidence},
            }
        },
        "metadata": {**item.groups, "termination": attempt.termination, "turns": attempt.turns},
        "store": {},
        "events": [],
        "attachments": {},
        "total_time": attempt.seconds,
        "uuid": _short(f"{summary.config_hash}/{item.item}/{attempt.attempt}"),
    }


def _messages(events: Sequence[Event]) -> list[dict[str, Any]]:
    """The whole history, unfolded: what happened, not what the model saw."""
    messages: list[dict[str, Any]] = []
    for event in events:
        match event:
            case Began():
                if event.system:
                    messages.append({"role": "system", "content": event.system})
                messages.append({"role": "user", "content": event.question, "source": "input"})
            case Turned():
                content: Any = event.content
                if event.reasoning:
                    content = [{"type": "reasoning", "reasoning": event.reasoning}, {"type": "text", "text": content}]
                said: dict[str, Any] = {"role": "assistant", "content": content, "source": "generate"}
                if event.calls:
                    said["tool_calls"] = [
                        {"id": call.id, "function": call.name or "?", "arguments": call.arguments,
                         "parse_error": call.problem, "type": "function"}
                        for call in event.calls
                    ]  # fmt: skip
                messages.append(said)
            case Replied():
                messages.append(_tool_message(event))
            case _:
                if text := getattr(event, "text", ""):
                    messages.append({"role": "user", "content": f"[{event.kind}] {text}"})
    for number, message in enumerate(messages):
        message["id"] = f"m{number}"
    return messages


def _tool_message(event: Replied) -> dict[str, Any]:
    message = {"role": "tool", "content": event.text, "tool_call_id": event.call, "function": event.name or "?"}
    if event.outcome != "ok":
        kind = {"timeout": "timeout", "denied": "approval", "invalid_arguments": "parsing"}.get(
            event.outcome, "unknown"
        )
        return {**message, "error": {"type": kind, "message": event.outcome}}
    return message


def _brief(sample: dict[str, Any]) -> dict[str, Any]:
    kept = ("id", "epoch", "input", "target", "metadata", "scores", "total_time", "uuid")
    return {**{name: sample[name] for name in kept}, "completed": True, "message_count": len(sample["messages"])}


def _header(summary: Summary, spec: dict[str, Any], moment: str) -> dict[str, Any]:
    value, error = (summary.score.value, summary.score.stderr) if summary.score else (float("nan"), float("nan"))
    metrics = {name: {"name": name, "value": each, "params": {}} for name, each in
               (("accuracy", value), ("stderr", error))}  # fmt: skip
    name = summary.grader.name
    return {
        "version": 2,
        "status": "success",
        "eval": spec,
        "plan": _plan(),
        "results": {
            "total_samples": summary.planned,
            "completed_samples": summary.finished,
            "scores": [{"name": name, "scorer": name, "reducer": "mean", "params": {}, "metrics": metrics}],
        },
        "stats": {"started_at": moment, "completed_at": moment, "model_usage": {}},
    }


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:22]


def _file_name(item: str) -> str:
    return item if item.replace("-", "").replace("_", "").isalnum() else _short(item)
