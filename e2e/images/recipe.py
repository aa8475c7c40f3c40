"""What each image is made of, and the content hash that says whether it must be built again."""

from __future__ import annotations

import hashlib
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from e2e.images.errors import ImageError

REPOSITORY = Path(__file__).resolve().parents[2]
BASE_SUITE = "bookworm"


@dataclass(frozen=True)
class Recipe:
    """One image: its Dockerfile and every path of the repository that its build reads."""

    name: str
    locks: tuple[str, ...]
    extra: tuple[str, ...] = ()
    heavy: bool = False
    #: Size of its own layers on disk in MiB, the ones that it shares with others left out: for the disk preflight.
    own_mib: int = 300

    @property
    def dockerfile(self) -> Path:
        return REPOSITORY / "images" / self.name / "Dockerfile"

    def tag(self, device: str) -> str:
        """The tag by which manifests name it: the version, and for torch images the device."""
        return f"{version()}-{device}" if self.heavy else version()

    def reference(self, device: str, registry: str = "localhost") -> str:
        return f"{registry}/pinnace/{self.name}:{self.tag(device)}"

    def torch(self, device: str) -> str:
        """The torch release of its first layers."""
        return "2.14" if self.name == "rollout-sglang" and device == "cuda" else "2.13"

    def arguments(self, device: str) -> dict[str, str]:
        """Build arguments that decide the content."""
        return {"DEVICE": device, "TORCH": self.torch(device)} if self.heavy else {}

    def inputs(self, device: str) -> list[Path]:
        """Every file that the build reads, sorted."""
        named = [lock.format(device=device, torch=self.torch(device)) for lock in self.locks]
        roots = [
            *("LICENSE", "pyproject.toml", ".dockerignore", f"images/{self.name}/Dockerfile", "images/install.sh"),
            *(f"requirements/{lock}.txt" for lock in ("image-build", *named)),
            *("operator/pinnace_operator", "workloads/pinnace"),
            *self.extra,
        ]
        return sorted(_files(REPOSITORY / root for root in roots))

    def content(self, device: str, base: str) -> str:
        """Twelve hexadecimal digits that change when anything that the image is made of does; `base` is its base's."""
        digest = hashlib.sha256(f"{base}\n{sorted(self.arguments(device).items())}\n".encode())
        for path in self.inputs(device):
            body = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(REPOSITORY)} {path.stat().st_mode & 0o111:o} {body}\n".encode())
        return digest.hexdigest()[:12]


def _files(roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        if root.is_dir():
            yield from (p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        elif root.is_file():
            yield root
        else:
            raise ImageError(f"{root} is missing: the checkout is incomplete (`git status` shows what is gone)")


_STUBS = "images/torch_cpu_stubs.py"
_TORCH = "torch-{torch}-{device}"
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("operator", ("operator",), own_mib=250),
        Recipe(
            "tools",
            ("tools", "catalogue-mcp1", "catalogue-mcp2"),
            ("images/catalogue.sh", "images/catalogue-npm"),
            own_mib=1500,
        ),
        Recipe("trainer", (_TORCH, "trainer-{device}"), (_STUBS,), heavy=True, own_mib=900),
        Recipe("rollout-vllm", (_TORCH, "rollout-vllm-{device}"), (_STUBS,), heavy=True, own_mib=1900),
        Recipe(
            "rollout-sglang",
            (_TORCH, "rollout-sglang-{device}"),
            (_STUBS, "images/rollout-sglang/shim"),
            heavy=True,
            own_mib=1700,
        ),
    )
}
#: Base and torch layers in MiB, which the heavy images share.
SHARED_MIB = 2200


def select(names: list[str]) -> list[Recipe]:
    """The recipes called `names`, all when there are none; light ones first, as they are there soonest."""
    unknown = sorted(set(names) - set(RECIPES))
    if unknown:
        raise ImageError(f"no image is called {', '.join(unknown)}: there are {', '.join(RECIPES)}")
    return [recipe for recipe in RECIPES.values() if not names or recipe.name in names]


def version() -> str:
    """The project's version, from pyproject.toml."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def revision(inputs: list[Path]) -> str:
    """The commit that `inputs` come from, with `-dirty` when one of them differs from it; `unknown` without git."""
    git = ["git", "-c", f"safe.directory={REPOSITORY}", "-C", str(REPOSITORY)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", *(str(path.relative_to(REPOSITORY)) for path in inputs)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changed else head
