"""How well a model does `arithmetic-tools`: greedy decoding with transformers, the tool really called in between."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pinnace.chat import parse_turn

from .task import TOOLS, add, arithmetic_tools


@dataclass(frozen=True)
class Score:
    """Shares of `samples` in [0, 1]: a well-formed call with the right arguments; and the right final answer."""

    samples: int
    right_call: float
    right_answer: float


def score(model_directory: Path, *, samples: int = 100, seed: int = 1_000_003) -> Score:
    """Plays `samples` unseen questions; use another `seed` than the training data's."""
    tokenizer = AutoTokenizer.from_pretrained(model_directory, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float32).eval()
    records = list(arithmetic_tools(samples, seed))
    dialogues = [[record["messages"][0]] for record in records]
    right_calls = right_answers = 0
    for dialogue, text, record in zip(dialogues, _write(model, tokenizer, dialogues), records, strict=True):
        turn = parse_turn(text).message
        wanted = record["messages"][1]["tool_calls"][0]["function"]["arguments"]
        right_calls += len(turn.tool_calls) == 1 and dict(turn.tool_calls[0].arguments) == wanted
        dialogue.append(turn.for_template())
        dialogue.extend({"role": "tool", "content": add(call.arguments)} for call in turn.tool_calls)
    for text, record in zip(_write(model, tokenizer, dialogues), records, strict=True):
        right_answers += parse_turn(text).message.content == record["messages"][-1]["content"]
    return Score(samples, right_calls / samples, right_answers / samples)


@torch.inference_mode()
def _write(model: Any, tokenizer: Any, dialogues: list[list[dict[str, Any]]], batch: int = 50) -> list[str]:
    texts = []
    for start in range(0, len(dialogues), batch):
        inputs = tokenizer.apply_chat_template(
            dialogues[start : start + batch],
            tools=TOOLS,
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        output = model.generate(**inputs, max_new_tokens=48, do_sample=False)
        texts += tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts
