"""The benchmarks by name. Each is one small file; yours may be one, too (`own.py`)."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache

from ..benchmark import Benchmark
from ..errors import UnknownBenchmark


@cache
def shipped() -> dict[str, Benchmark]:
    """All benchmarks that come with Pinnace."""
    from . import browsecomp, browsecomp_zh, frames, gaia, hle, scout, seal0, webwalkerqa, xbench

    modules = (gaia, hle, browsecomp, browsecomp_zh, webwalkerqa, frames, xbench, seal0, scout)
    return {module.BENCHMARK.name: module.BENCHMARK for module in modules}


def find(name: str) -> Benchmark:
    """By name, in whatever case and with `-` or `_`. Raises `UnknownBenchmark` with the nearest names."""
    plain = {each.replace("-", "").replace("_", ""): each for each in shipped()}
    asked = name.casefold().replace("-", "").replace("_", "")
    if asked in plain:
        return shipped()[plain[asked]]
    near = get_close_matches(asked, plain, n=3, cutoff=0.4) or list(plain)
    listed = ", ".join(plain[one] for one in near)
    raise UnknownBenchmark(
        f"there is no benchmark {name!r}: did you mean {listed}? Or give a .yaml or .py file of yours"
    )
