"""SGLang, 0.5.23 and its like.

What its documentation does not say, and the conformance suite does:

- `/health` samples a token, so it blocks and fails during a pause. `/model_info` answers.
- `flush_cache: false` on an update leaves keys and values of the old weights: the same prompt then has log-probs that
  are off by more than a nat, and no field says so. A pause in place can't flush. So pauses retract and updates flush.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pinnace.rl.rollout import SamplingParameters

from .http import RequestRefused
from .server import Part, ServerEngine, logprob_number, version_number, version_of_tokens


class SGLangEngine(ServerEngine):
    """Token ids by `/generate`; control by the routes that need SGLang's admin key where one is set."""

    name = "SGLang"
    liveness = "/model_info"
    remedies: ClassVar = dict.fromkeys(
        ("/generate", "/pause_generation", "/continue_generation", "/update_weights_from_disk"),
        "use SGLang 0.5.23 or later",
    )
    own_logprobs = "start it without SGLANG_RETURN_ORIGINAL_LOGPROB"

    async def pause(self) -> None:
        await self.http.post("/pause_generation", {"mode": "retract"})
        self._paused = True

    async def resume(self) -> None:
        await self.http.post("/continue_generation")
        self._paused = False

    async def version(self) -> int:
        return version_number((await self.http.get("/model_info"))["weight_version"])

    async def tokenize(self, text: str) -> list[int]:
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        return list((await self.http.post("/tokenize", body))["tokens"])

    async def best_logprob(self, prompt: list[int], temperature: float) -> float:
        meta = await self._generate(prompt, {"temperature": temperature, "max_new_tokens": 1}, top_logprobs_num=1)
        return float(meta["meta_info"]["output_top_logprobs"][0][0][0])

    async def release_memory(self) -> None:
        """Frees the device memory of weights and cache; the server must be idle. Not tried on a GPU yet."""
        await self.http.post("/release_memory_occupation")

    async def reclaim_memory(self) -> None:
        """The opposite; load weights before anything is sampled."""
        await self.http.post("/resume_memory_occupation")

    async def _sample(self, prompt: list[int], parameters: SamplingParameters, left: int) -> Part:
        sampling = {
            "temperature": parameters.temperature,
            "max_new_tokens": left,
            "stop_token_ids": list(parameters.stop_ids),
            # The model's own generation config must not cut the distribution.
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }
        made = await self._generate(prompt, sampling)
        meta, ids = made["meta_info"], tuple(made["output_ids"])
        return Part(
            ids=ids,
            logprobs=tuple(logprob_number(entry[0]) for entry in meta.get("output_token_logprobs") or ()),
            versions=version_of_tokens(meta.get("weight_versions"), len(ids)),
            finish=meta["finish_reason"]["type"],
        )

    async def _generate(self, prompt: list[int], sampling: dict[str, Any], **more: object) -> dict[str, Any]:
        body = {"input_ids": prompt, "sampling_params": sampling, "return_logprob": True, **more}
        return dict(await self.http.post("/generate", body))

    async def _load(self, version: str, path: str) -> None:
        body = {"model_path": path, "weight_version": version, "flush_cache": True}
        said = await self.http.post("/update_weights_from_disk", body)
        if not said["success"]:
            raise RequestRefused(400, said["message"])
