"""Stands in for the CUDA-only wheel `sglang-kernel`, so that SGLang's own code serves a dense model on a CPU.

It implements nothing. SGLang's CPU engine calls compiled operators only where `cpu_has_amx_support()` holds, which
looks for an operator that nobody registers here; every layer then takes its own torch path (`forward_native`). What is
left are names that SGLang 0.5.23 imports whenever its CPU engine is on, and calls only for speculative decoding. Each
one raises. The list belongs to that release: a newer one that imports more fails at its start with the missing name.
"""

from typing import NoReturn

__version__ = "0.4.10"


def _absent(name: str) -> object:
    def operator(*_: object, **__: object) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name} needs SGLang's CUDA kernels; this image is for CPUs")

    operator.__name__ = name
    return operator


assign_draft_cache_locs_contiguous_cpu = _absent("assign_draft_cache_locs_contiguous_cpu")
assign_extend_cache_locs_cpu = _absent("assign_extend_cache_locs_cpu")
assign_req_to_token_pool_cpu = _absent("assign_req_to_token_pool_cpu")
build_draft_decode_metadata_cpu = _absent("build_draft_decode_metadata_cpu")
build_tree_kernel_efficient_cpu = _absent("build_tree_kernel_efficient_cpu")
copy_all_layer_kv_cache_cpu = _absent("copy_all_layer_kv_cache_cpu")
fill_accept_out_cache_loc_cpu = _absent("fill_accept_out_cache_loc_cpu")
fill_bonus_tokens_cpu = _absent("fill_bonus_tokens_cpu")
rotate_input_ids_cpu = _absent("rotate_input_ids_cpu")
verify_tree_greedy_cpu = _absent("verify_tree_greedy_cpu")
