"""Stubs for absent NVIDIA libraries: a library that needs them loads, works, and says so when it calls one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from e2e.images.recipe import REPOSITORY

SCRIPT = REPOSITORY / "images/torch_cpu_stubs.py"
LIBRARY = "int cublasMake(void); int ncclLoose(void); int cpu(void){return 42;} int gpu(void){return cublasMake();}"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages whose libtorch needs a libcublas with version tags, which is gone."""
    folder = tmp_path / "torch/lib"
    folder.mkdir(parents=True)
    (tmp_path / "cublas.c").write_text("int cublasMake(void){return 1;}")
    (tmp_path / "cublas.map").write_text("libcublas.so.13 { global: cublasMake; };")
    (tmp_path / "torch.c").write_text(LIBRARY + "int loose(void){return ncclLoose();}")
    cublas = tmp_path / "libcublas.so.13"
    compile_shared(cublas, tmp_path / "cublas.c", f"-Wl,--version-script={tmp_path / 'cublas.map'}", soname=cublas.name)
    compile_shared(folder / "libtorch.so", tmp_path / "torch.c", str(cublas), soname="libtorch.so")
    cublas.unlink()
    return tmp_path


def compile_shared(target: Path, source: Path, *more: str, soname: str) -> None:
    command = ["gcc", "-shared", "-fPIC", "-w", "-o", str(target), str(source), f"-Wl,-soname,{soname}", *more]
    subprocess.run(command, check=True)


def call(site: Path, function: str) -> subprocess.CompletedProcess[str]:
    """Load libtorch lazily in a process of its own and call one function."""
    library = site / "torch/lib/libtorch.so"
    program = f"import ctypes, os; print(ctypes.CDLL({str(library)!r}, mode=os.RTLD_LAZY).{function}())"
    environment = {"LD_LIBRARY_PATH": str(library.parent)}
    return subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, env=environment)


def make_stubs(site: Path) -> str:
    return subprocess.run([sys.executable, SCRIPT, site], check=True, capture_output=True, text=True).stdout


def test_a_library_loads_and_its_cpu_side_works(site: Path) -> None:
    assert "libcublas.so.13" in call(site, "cpu").stderr
    make_stubs(site)
    assert call(site, "cpu").stdout.strip() == "42"


@pytest.mark.parametrize(("function", "symbol"), [("gpu", "cublasMake"), ("loose", "ncclLoose")])
def test_calling_a_stub_names_what_is_missing(site: Path, function: str, symbol: str) -> None:
    make_stubs(site)
    done = call(site, function)
    assert done.returncode < 0
    assert f"{symbol}: stub in libcublas.so.13" in done.stderr


def test_a_second_run_changes_nothing(site: Path) -> None:
    assert "stub libcublas.so.13" in make_stubs(site)
    before = {path: path.stat().st_mtime_ns for path in (site / "torch/lib").iterdir()}
    assert not make_stubs(site)
    assert before == {path: path.stat().st_mtime_ns for path in (site / "torch/lib").iterdir()}


def test_without_torch_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "install torch first" in done.stderr
