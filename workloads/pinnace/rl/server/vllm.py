"""vLLM, 0.32 and its like. Its control routes moved between 0.22 and 0.33: nothing outside this file knows them.

What its documentation does not say, and the conformance suite does:

- Log-probs are those before temperature unless it is started with `--logprobs-mode processed_logprobs`.
- A NaN log-prob is sent as -9999.0.
- The label of the weights is not part of loading them from disk: it is set by another call, and so is the cache reset.
- `reload_weights` forgets a tied output head on a CPU; `pinnace.rl.server.vllm_worker` says more.
- After a failed `reload_weights` there are no weights: the next token ends the server.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pinnace.rl.rollout import EngineUnsuitable, SamplingParameters

from .http import RequestRefused
from .server import Part, ServerEngine, logprob_number, version_number, version_of_tokens

_NAN = -9999.0
_CONTROL = "start it with VLLM_SERVER_DEV_MODE=1 in its environment, reachable by the run's own pods only"


class VLLMEngine(ServerEngine):
    """Token ids by `/inference/v1/generate`; control by the routes of its development mode."""

    name = "vLLM"
    liveness = "/health"
    remedies: ClassVar = {
        "/inference/v1/generate": "start it with --enable-scale-out",
        **dict.fromkeys(
            ("/pause", "/resume", "/collective_rpc", "/reset_prefix_cache", "/update_weight_version", "/weight_info"),
            _CONTROL,
        ),
    }
    own_logprobs = "start it with --logprobs-mode processed_logprobs"

    async def pause(self) -> None:
        await self.http.post("/pause?mode=keep")
        self._paused = True

    async def resume(self) -> None:
        await self.http.post("/resume")
        self._paused = False

    async def version(self) -> int:
        return version_number((await self.http.get("/weight_info"))["weight_version"])

    async def tokenize(self, text: str) -> list[int]:
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        return list((await self.http.post("/tokenize", body))["tokens"])

    async def check_routes(self) -> None:
        await super().check_routes()
        try:
            await self._repack()
        except RequestRefused as error:
            raise EngineUnsuitable(
                f"vLLM at {self.http.url} cannot repack weights: start it with "
                "--worker-extension-cls pinnace.rl.server.vllm_worker.Repacking"
            ) from error

    async def _repack(self) -> None:
        await self.http.post("/collective_rpc", {"method": "repack_weights"})

    async def best_logprob(self, prompt: list[int], temperature: float) -> float:
        choice = await self._generate(prompt, {"temperature": temperature, "max_tokens": 1, "logprobs": 1})
        return max(float(entry["logprob"]) for entry in choice["logprobs"]["content"][0]["top_logprobs"])

    async def release_memory(self) -> None:
        """Frees the device memory of weights and cache. A CPU ignores it; not tried on a GPU yet."""
        await self.http.post("/sleep?level=2&mode=keep")

    async def reclaim_memory(self) -> None:
        """The opposite; load weights before anything is sampled."""
        await self.http.post("/wake_up")

    async def _sample(self, prompt: list[int], parameters: SamplingParameters, left: int) -> Part:
        sampling = {
            "temperature": parameters.temperature,
            "max_tokens": left,
            "stop_token_ids": list(parameters.stop_ids),
            "logprobs": 0,
            "detokenize": False,
            # The model's own generation config must not cut the distribution.
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }
        choice = await self._generate(prompt, sampling)
        ids = tuple(choice["token_ids"])
        logprobs = (choice.get("logprobs") or {}).get("content") or ()
        return Part(
            ids=ids,
            logprobs=tuple(logprob_number(entry["logprob"], invalid=_NAN) for entry in logprobs),
            versions=version_of_tokens(choice.get("weight_versions"), len(ids)),
            finish=choice["finish_reason"],
        )

    async def _generate(self, prompt: list[int], sampling: dict[str, Any]) -> dict[str, Any]:
        made = await self.http.post("/inference/v1/generate", {"token_ids": prompt, "sampling_params": sampling})
        return dict(made["choices"][0])

    async def _load(self, version: str, path: str) -> None:
        await self.http.post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": path}})
        await self._repack()
        # Running requests are preempted and computed again; without it they, and every cached prefix, keep old keys.
        flushed = await self.http.post("/reset_prefix_cache?reset_running_requests=true")
        if not flushed["success"]:
            raise RequestRefused(409, "its key-value cache could not be reset")
        await self.http.post("/update_weight_version", {"new_version": version})
