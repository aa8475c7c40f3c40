"""What vLLM's workers need of us: `vllm serve … --worker-extension-cls pinnace.rl.server.vllm_worker.Repacking`.

Runs inside vLLM. On a CPU a tied output head multiplies by a packed copy of the embeddings. `reload_weights` of vLLM
0.32 replaces the embeddings and leaves that copy: log-probs are then of old and new weights at once.
"""

from __future__ import annotations

from typing import Any


class Repacking:
    """Becomes a base class of vLLM's worker."""

    model_runner: Any

    def repack_weights(self) -> None:
        """Packs every embedding and output head again. Does nothing where nothing is packed."""
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

        for layer in self.model_runner.get_model().modules():
            if isinstance(layer, VocabParallelEmbedding):
                layer.quant_method.process_weights_after_loading(layer)
