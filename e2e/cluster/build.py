"""Build every program of the embedded cluster from Go modules, once: `python -m e2e.cluster.build`."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from rich.console import Console

from e2e.cluster import paths, versions
from e2e.cluster.errors import ClusterError
from e2e.cluster.meter import Meter

MODULE = Path(__file__).parent / "build"

#: Package to the name its program has in the cache; Go names a program after the last part of its package.
PROGRAMS = {
    "k8s.io/kubernetes/cmd/kube-apiserver": "kube-apiserver",
    "k8s.io/kubernetes/cmd/kube-controller-manager": "kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-proxy": "kube-proxy",
    "k8s.io/kubernetes/cmd/kube-scheduler": "kube-scheduler",
    "k8s.io/kubernetes/cmd/kubectl": "kubectl",
    "k8s.io/kubernetes/cmd/kubelet": "kubelet",
    "github.com/containerd/containerd/v2/cmd/containerd": "containerd",
    "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2": "containerd-shim-runc-v2",
    "github.com/containerd/containerd/v2/cmd/ctr": "ctr",
    "github.com/containernetworking/plugins/plugins/ipam/host-local": "host-local",
    "github.com/containernetworking/plugins/plugins/main/ptp": "ptp",
    "github.com/containernetworking/plugins/plugins/meta/portmap": "portmap",
    "go.etcd.io/etcd/server/v3": "etcd",
    "helm.sh/helm/v4/cmd/helm": "helm",
    "sigs.k8s.io/jobset": "jobset-manager",
    "./coredns": "coredns",
}
#: A link takes about as long as this many packages; only the progress shown depends on it.
LINK_WEIGHT = 40


def go_name(package: str) -> str:
    """The file name that `go build -o DIR/` gives the program of `package` (a major version is not a name)."""
    parts = package.split("/")
    return parts[-2] if re.fullmatch(r"v\d+", parts[-1]) else parts[-1]


def linker_flags() -> str:
    """`-ldflags`: no debug information, and the version that kubelet and clients report."""
    major, minor, _ = versions.KUBERNETES.removeprefix("v").split(".")
    values = {"gitVersion": versions.KUBERNETES, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(
        ["-s -w", *(f"-X {package}.{name}={value}" for package in packages for name, value in values.items())]
    )


def build_flags() -> list[str]:
    return ["-trimpath", "-modcacherw", "-buildvcs=false", "-ldflags", linker_flags()]


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """The Go command's environment: everything it writes stays below the cache."""
    own = {
        "GOMODCACHE": str(paths.GOMODCACHE),
        "GOCACHE": str(paths.GOCACHE),
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
        "GOWORK": "off",
    }
    return {**base, **own}


def fingerprint(module: Path, go_version: str) -> str:
    """A digest of all that the programs depend on; they are rebuilt when it changes."""
    digest = hashlib.sha256(repr((go_version, build_flags(), sorted(PROGRAMS.items()))).encode())
    for path in sorted(p for p in module.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(module)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def is_current(binaries: Path, stamp: str) -> bool:
    """Whether every program is there and was built for `stamp`."""
    file = binaries / ".stamp"
    return (
        file.is_file() and file.read_text() == stamp and all((binaries / name).is_file() for name in PROGRAMS.values())
    )


class Builder:
    """One run of the Go command, with its progress."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.environment = environment(os.environ)
        go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
        if not go:
            raise ClusterError("Go is not installed: install Go 1.26 or newer and put it on PATH")
        self.go = go

    def run(self) -> bool:
        """Build what changed; returns whether anything had to be done.

        Raises:
            ClusterError: the Go command failed; the message ends with what it said.
        """
        # Read in the module's directory: Go may switch to the toolchain that go.mod asks for.
        stamp = fingerprint(MODULE, self._output("env", "GOVERSION"))
        if is_current(paths.BIN, stamp):
            return False
        for folder in (paths.BIN, paths.GOMODCACHE, paths.GOCACHE):
            folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(paths.CACHE).free / 2**30
        if free < 8:
            raise ClusterError(
                f"{paths.CACHE} has {free:.1f} GiB free and the build needs 8: free some, or set PINNACE_CACHE"
            )
        staging = paths.CACHE / "bin.new"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        for package, name in PROGRAMS.items():
            if (paths.BIN / name).exists():  # Go compares build ids and links only what changed
                os.link(paths.BIN / name, staging / go_name(package))
        self._build(staging)
        for package, name in PROGRAMS.items():
            (staging / go_name(package)).replace(paths.BIN / name)
        (staging / ".stamp").write_text(stamp)
        (staging / ".stamp").replace(paths.BIN / ".stamp")
        staging.rmdir()
        return True

    def _build(self, staging: Path) -> None:
        with Meter(self.console, "downloading Go modules (about 600 MB the first time)") as meter:
            listed = self._stream(meter, "list", "-deps", "-modcacherw", *PROGRAMS)
            packages = len(listed.split())
        before = {path.name: path.stat().st_ino for path in staging.iterdir()}

        def linked() -> int:
            return sum(1 for path in staging.iterdir() if before.get(path.name) != path.stat().st_ino)

        with Meter(self.console, "compiling", total=packages + LINK_WEIGHT * len(PROGRAMS)) as meter:
            self._stream(
                meter,
                "build",
                "-v",
                *build_flags(),
                "-o",
                f"{staging}/",
                *PROGRAMS,
                extra=lambda: linked() * LINK_WEIGHT,
            )

    def _output(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.go, *arguments], cwd=MODULE, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ClusterError(f"go {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def _stream(self, meter: Meter, *arguments: str, extra: Callable[[], int] = lambda: 0) -> str:
        """Run the Go command, telling `meter` each line it writes to stderr; returns its stdout."""
        process = subprocess.Popen(
            [self.go, *arguments],
            cwd=MODULE,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout and process.stderr
        lines: list[str] = []
        reader = threading.Thread(target=_collect, args=(process.stderr, lines), daemon=True)
        reader.start()
        output: list[str] = []
        other = threading.Thread(target=_collect, args=(process.stdout, output), daemon=True)
        other.start()
        try:
            while process.poll() is None:
                meter.show(len(lines) + extra(), lines[-1] if lines else "")
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        reader.join()
        other.join()
        if process.returncode:
            raise ClusterError(f"go {arguments[0]} failed:\n" + "\n".join(lines[-30:]))
        return "\n".join(output)


def _collect(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line.rstrip())  # noqa: PERF401 - the list is read while it grows


def install_packages(console: Console) -> None:
    """Install Debian's part (runc, nftables, …) if any of it is missing."""
    missing = [p for program, p in versions.DEBIAN_PROGRAMS.items() if not shutil.which(program)]
    missing += [p for file, p in versions.DEBIAN_FILES.items() if not Path(file).exists()]
    if not missing:
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise ClusterError(
            f"missing programs: install {' '.join(missing)} with your package manager (or run as root on Debian)"
        )
    console.print(f"installing {' '.join(missing)} (Debian)")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
    ):
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")


def ensure(console: Console) -> None:
    """Everything that `up` runs is installed and built."""
    install_packages(console)
    start = time.monotonic()
    if Builder(console).run():
        console.print(f"built {len(PROGRAMS)} programs in {time.monotonic() - start:.0f} s ({paths.BIN})")


def main() -> int:
    console = Console(stderr=True)
    try:
        ensure(console)
    except ClusterError as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
