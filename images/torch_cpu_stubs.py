"""Let the CUDA build of torch load without NVIDIA's libraries: `python torch_cpu_stubs.py [SITE-PACKAGES]`.

PyPI's torch for Linux x86-64 is the CUDA build. Its libraries name a dozen NVIDIA libraries (2.7 GB) that the dynamic
loader must find, yet that CPU work never calls. For each one that is absent this makes a stub beside torch's own
libraries, with the same SONAME, the same version tags, and one function per symbol that torch's libraries leave
undefined. A stub's function says what is missing and aborts. That is enough because none of torch's libraries is linked
with BIND_NOW.

Two libraries must be the real ones, as their code runs at import or in the profiler: `nvidia-cuda-runtime` and
`nvidia-cuda-cupti`. The driver, libcuda.so.1, is never stubbed: that would fake a GPU. Needs gcc and binutils.
Run again, it finds nothing missing and does nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

DRIVER = "libcuda.so.1"
NVIDIA_LIBRARY = re.compile(r"lib(cu|nv|nccl|cupti)")
# Symbols that carry no version tag are recognised by their prefix and go, weak, into the first stub.
NVIDIA_SYMBOL = re.compile(
    r"(pnccl|nccl|curand|cusparseLt|cuFile|cudnn|cufft|cublas|nvrtc|nvshmem|cupti|cuda)[A-Z_]|nvshmemx?_"
)


@dataclass
class Stub:
    """What one stub library must offer: symbols by version tag (`""` for those without a tag)."""

    soname: str
    tags: dict[str, set[str]] = field(default_factory=dict)
    loose: set[str] = field(default_factory=set)

    def source(self) -> str:
        """The C source: every symbol is a function that names itself and aborts."""
        die = (
            "static void die(const char *s) {"
            f' fprintf(stderr, "%s: stub in {self.soname}: this installation has no CUDA libraries\\n", s); abort(); }}'
        )
        versioned = sorted(set().union(*self.tags.values())) if self.tags else []
        return "\n".join(
            [
                "#include <stdio.h>",
                "#include <stdlib.h>",
                die,
                *(f'void {name}(void) {{ die("{name}"); }}' for name in versioned),
                *(f'__attribute__((weak)) void {n}(void) {{ die("{n}"); }}' for n in sorted(self.loose - {*versioned})),
            ]
        )

    def version_script(self) -> str:
        """The linker's version script, empty when the library has no version tags."""
        lines = []
        for tag, names in sorted(self.tags.items()):
            exported = f"global: {'; '.join(sorted(names))};" if names else ""
            lines.append(f"{tag} {{ {exported} }};")
        return "\n".join(lines)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed(dump: str) -> set[str]:
    """NVIDIA libraries that `objdump -p` lists as NEEDED."""
    return {name for name in re.findall(r"NEEDED\s+(\S+)", dump) if NVIDIA_LIBRARY.match(name)}


def version_tags(dump: str) -> dict[str, set[str]]:
    """Version tags that `objdump -p` says are required, by library."""
    tags: dict[str, set[str]] = {}
    library = ""
    for line in dump.splitlines():
        if match := re.match(r"\s+required from (\S+):", line):
            library = match[1]
        elif library and (match := re.match(r"\s+0x[0-9a-f]+ 0x[0-9a-f]+ \d+ (\S+)", line)):
            tags.setdefault(library, set()).add(match[1])
    return tags


def undefined(symbols: str) -> Iterable[tuple[str, str]]:
    """(name, version tag or `""`) of every undefined symbol in the output of `readelf -W --dyn-syms`."""
    for line in symbols.splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[6] == "UND":
            name, _, tag = fields[7].partition("@")
            yield name, tag.lstrip("@")


def plan(libraries: list[Path], present: set[str]) -> list[Stub]:
    """The stubs that `libraries` still need, given the file names that are `present`."""
    dumps = [_run("objdump", "-p", str(library)) for library in libraries]
    missing = sorted(set().union(*map(needed, dumps)) - present) if dumps else []
    if not missing:
        return []
    stubs = {name: Stub(name) for name in missing}
    for dump in dumps:
        for soname, tags in version_tags(dump).items():
            if soname in stubs:
                for tag in tags:
                    stubs[soname].tags.setdefault(tag, set())
    owner = {tag: stub for stub in stubs.values() for tag in stub.tags}
    for library in libraries:
        for name, tag in undefined(_run("readelf", "-W", "--dyn-syms", str(library))):
            if tag in owner:
                owner[tag].tags[tag].add(name)
            elif not tag and NVIDIA_SYMBOL.match(name):
                stubs[missing[0]].loose.add(name)
    return list(stubs.values())


def compile_stub(stub: Stub, folder: Path) -> None:
    """Compile `stub` to `folder/<soname>`."""
    with tempfile.TemporaryDirectory() as scratch:
        source, versions = Path(scratch, "stub.c"), Path(scratch, "stub.map")
        source.write_text(stub.source())
        versions.write_text(stub.version_script())
        script = [f"-Wl,--version-script={versions}"] if stub.tags else []
        target = str(folder / stub.soname)
        flags = ("-shared", "-fPIC", "-O1", "-s", "-w", "-fno-builtin")
        _run("gcc", *flags, "-o", target, str(source), f"-Wl,-soname,{stub.soname}", *script)


def main(arguments: list[str]) -> int:
    """Make what is missing; returns the exit code."""
    site = Path(arguments[0] if arguments else sysconfig.get_paths()["purelib"])
    folder = site / "torch/lib"
    libraries = sorted(folder.glob("*.so*"))
    if not libraries:
        print(f"{folder} holds no libraries: install torch first", file=sys.stderr)
        return 1
    present = {path.name for path in (*libraries, *site.glob("nvidia/**/*.so*"))} | {DRIVER}
    for stub in plan(libraries, present):
        compile_stub(stub, folder)
        print(f"stub {stub.soname}: {sum(map(len, stub.tags.values()))} versioned, {len(stub.loose)} loose symbols")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
