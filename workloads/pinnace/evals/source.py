"""Where a benchmark's files come from: the hub, a folder, or a copy in S3; and whether they are what they should be."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import DataChanged, DataGated, DataMissing

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubData:
    """Files of a dataset on the Hugging Face hub; `patterns` are globs. `shipped`: a folder that has them here."""

    repo: str
    patterns: tuple[str, ...]
    revision: str | None = None
    shipped: Path | None = None


@dataclass(frozen=True)
class Fetched:
    """Files on local disk. `revision` is a commit of the hub or `sha256:…` of the files; `digest` always the latter."""

    folder: Path
    files: tuple[Path, ...]
    revision: str
    digest: str


def is_commit(revision: str | None) -> bool:
    """Whether a revision can never mean other data."""
    return revision is not None and (_COMMIT.fullmatch(revision) is not None or revision.startswith("sha256:"))


def fetch(
    data: HubData,
    *,
    source: str | None = None,
    revision: str | None = None,
    checksum: str | None = None,
    cache: Path | None = None,
    gate: str = "",
) -> Fetched:
    """The files, on local disk.

    Args:
        data: what to take from the hub, and by which patterns.
        source: a file, a folder or `s3://…` with the same files, instead of the hub.
        revision: of the hub.
        checksum: `sha256:…` that the files must have together.
        cache: where copies from S3 are put; default below `~/.cache/pinnace/benchmarks`.
        gate: what to tell who has no access.

    Raises:
        DataMissing, DataGated, DataChanged
        pinnace.storage.StorageError: S3 can't be used.
    """
    if source is None and data.shipped is not None:
        if revision is not None:
            raise DataMissing(f"{data.repo} comes with Pinnace and has no revisions: leave --revision out")
        folder, commit = data.shipped, None
    elif source is None:
        folder, commit = _from_hub(data, revision or data.revision, gate)
    elif source.startswith("s3://"):
        folder, commit = _from_s3(source, cache or cache_folder()), None
    else:
        folder, commit = Path(source), None
    files = _matching(folder, data.patterns)
    if not files:
        raise DataMissing(
            f"{source or data.repo}: no file matches {', '.join(data.patterns)}: {gate or 'check the copy'}"
        )
    root = folder if folder.is_dir() else folder.parent
    digest = digest_of(root, files)
    if checksum is not None and checksum != digest:
        raise DataChanged(
            f"{source or data.repo}: the files have {digest}, not {checksum}: take the copy that the checksum was made "
            "of, or use the new checksum and compare no scores with the old"
        )
    return Fetched(root, files, commit or digest, digest)


def digest_of(root: Path, files: Iterable[Path]) -> str:
    """`sha256:…` of names and contents."""
    total = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            total.update(
                f"{path.relative_to(root).as_posix()}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
            )
    return f"sha256:{total.hexdigest()}"


def _matching(folder: Path, patterns: tuple[str, ...]) -> tuple[Path, ...]:
    if folder.is_file():
        return (folder,)
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    # A copy may be flat: only the data files, without the repository's folders.
    found = found or {
        path for pattern in patterns for path in folder.glob(pattern.rpartition("/")[2]) if path.is_file()
    }
    return tuple(sorted(found))


def _from_hub(data: HubData, revision: str | None, gate: str) -> tuple[Path, str | None]:
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    where = f"https://huggingface.co/datasets/{data.repo}"
    try:
        folder = Path(
            snapshot_download(
                data.repo,
                repo_type="dataset",
                revision=revision,
                allow_patterns=list(data.patterns),
                endpoint=os.environ.get("HF_ENDPOINT"),
            )
        )
    except hub.GatedRepoError:
        raise DataGated(f"{data.repo} is gated: accept its terms at {where} and set HF_TOKEN. {gate}") from None
    except hub.RevisionNotFoundError:
        raise DataMissing(f"{data.repo} has no revision {revision!r}: see {where}/commits/main") from None
    except hub.RepositoryNotFoundError:
        raise DataMissing(f"{data.repo} is not on the hub, or HF_TOKEN may not see it: see {where}. {gate}") from None
    except (hub.HfHubHTTPError, hub.LocalEntryNotFoundError, OSError) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataMissing(
            f"{data.repo} can't be downloaded ({told}): where there is no internet, give a copy (a folder or s3://…)"
        ) from None
    return folder, folder.name if _COMMIT.fullmatch(folder.name) else None


def _from_s3(source: str, cache: Path) -> Path:
    from pinnace.storage import S3Uri, Storage

    storage, uri = Storage.from_env(), S3Uri.parse(source)
    target = cache / hashlib.sha256(source.encode()).hexdigest()[:16]
    found = list(storage.list(uri))
    names = [(uri.relative(each.uri), each.uri) for each in found] or [(uri.name, uri)]
    for name, address in names:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Moved into place as a whole: another worker may be reading the copy.
        with storage.open(address) as stream, tempfile.NamedTemporaryFile(dir=cache, delete=False) as file:
            shutil.copyfileobj(stream, file, 8 << 20)
        Path(file.name).replace(path)
    wanted = {target / name for name, _ in names}
    for path in target.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()  # what an older copy had
    return target if found else target / uri.name


def cache_folder() -> Path:
    """Where copies are kept."""
    return Path(os.environ.get("PINNACE_CACHE", Path.home() / ".cache/pinnace")) / "benchmarks"
