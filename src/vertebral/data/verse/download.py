"""Download, check and unpack the public VerSe archives; none is left incomplete."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from vertebral.core.errors import ConfigError, DownloadError, OutputExistsError, VertebralError
from vertebral.data.verse.resumable import RemoteFile, StoppedError, discard, fetch, probe, size_of
from vertebral.data.verse.unpack import Unpacked, contents, require_space, unpacked
from vertebral.io.write import write_json
from vertebral.runtime.hashing import file_sha256

BASE_URL = "https://s3.bonescreen.de/public/VerSe-complete"
RELEASES = ("verse19", "verse20")
SUBSETS = ("training", "validation", "test")
LICENCE = "CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)"
CITATIONS = (
    "Sekuboyina A, Husseini ME, Bayat A, et al. VerSe: a vertebrae labelling and segmentation benchmark for "
    "multi-detector CT images. Medical Image Analysis 2021;73:102166. doi:10.1016/j.media.2021.102166",
    "Löffler MT, Sekuboyina A, Jacob A, et al. A vertebral segmentation dataset with fracture grading. "
    "Radiology: Artificial Intelligence 2020;2(4):e190138. doi:10.1148/ryai.2020190138",
    "Liebl H, Schinz D, Sekuboyina A, et al. A computed tomography vertebral segmentation dataset with anatomical "
    "variations and multi-vendor scanner data. Scientific Data 2021;8:284. doi:10.1038/s41597-021-01060-0",
)
CREDITS = "\n".join((f"VerSe is published under {LICENCE}. Please cite:", *(f"  {c}" for c in CITATIONS)))

Progress = Callable[[str, str, int, int], None]
"""Called with the name of the archive, the action, the bytes done and the bytes in total."""

_SPACE_FACTOR = 2.2
_BY_HAND = (
    "VerSe can also be downloaded by hand (2019 from https://osf.io/jtfa5, 2020 from https://osf.io/4skx2): unpack it "
    "and continue with vertebral data index"
)


@dataclass(frozen=True)
class VerseArchive:
    """One of VerSe's zip files."""

    release: str
    subset: str

    @property
    def name(self) -> str:
        """The file name without `.zip`."""
        return f"dataset-{self.release}{self.subset}"


class DownloadRecord(BaseModel):
    """A record kept next to the unpacked data: their source and contents.

    No checksums of the VerSe zips are published: `sha256` is that of the zip received, for comparison with other
    copies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    archive: str
    url: str
    etag: str | None
    last_modified: str | None
    zip_bytes: int
    sha256: str
    folder: str
    files: int
    unpacked_bytes: int
    licence: str = LICENCE
    citations: tuple[str, ...] = CITATIONS


@dataclass(frozen=True)
class FetchedArchive:
    """An archive on disk; `was_complete` if nothing had to be done."""

    archive: str
    folder: Path
    sha256: str
    was_complete: bool


def choose_archives(release: str, subsets: Sequence[str] = SUBSETS) -> tuple[VerseArchive, ...]:
    """Return the archives of `verse19`, `verse20` or `all`. Raises ConfigError for another name."""
    if release not in (*RELEASES, "all"):
        raise ConfigError(f"{release!r}: use verse19, verse20 or all")
    for subset in subsets:
        if subset not in SUBSETS:
            raise ConfigError(f"--subset {subset!r}: use one or more of {','.join(SUBSETS)}")
    releases = RELEASES if release == "all" else (release,)
    return tuple(VerseArchive(*pair) for pair in product(releases, (s for s in SUBSETS if s in subsets)))


def download(
    archives: Sequence[VerseArchive],
    out: Path,
    base_url: str = BASE_URL,
    jobs: int = 2,
    progress: Progress = lambda name, action, done, total: None,
) -> list[FetchedArchive]:
    """Download, check and unpack `archives` into folders of `out`, `jobs` at a time.

    Complete archives are skipped without asking the server; incomplete downloads resume. The zip is `<name>.zip.part`
    in `out` until it is unpacked; an existing `<name>.zip` there is unpacked instead of downloaded, and kept. If one
    archive fails, the others are still downloaded.

    Raises DownloadError if an archive cannot be downloaded or is damaged, InputError if the free disk space is less
    than 2.2 times the zips, OutputExistsError if a folder exists whose contents differ from those unpacked.
    """
    if not base_url.startswith(("https://", "http://")):
        raise ConfigError(f"--base-url {base_url}: must begin with https:// or http://")
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{out}: is a file; give a folder as --out")
    out.mkdir(parents=True, exist_ok=True)
    complete = {archive.name: _complete(archive, out) for archive in archives}
    missing = [archive for archive in archives if complete[archive.name] is None]
    stop = threading.Event()

    def work(archive: VerseArchive) -> FetchedArchive:
        name = archive.name
        return complete[name] or _bring(archive, remotes.get(name), out, _stoppable(progress, stop), stop)

    try:
        absent = [archive for archive in missing if not _zip_by_hand(archive, out).is_file()]
        remotes = {archive.name: probe(_url(archive, base_url), stop) for archive in absent}
        _require_room(missing, remotes, out)
        with ThreadPoolExecutor(max(1, jobs)) as pool:
            try:
                return _gathered([pool.submit(work, archive) for archive in archives])
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
    except DownloadError as error:
        raise DownloadError(f"{error}. {_BY_HAND}") from error


def _url(archive: VerseArchive, base_url: str) -> str:
    return f"{base_url.rstrip('/')}/{archive.name}.zip"


def _record_path(archive: VerseArchive, out: Path) -> Path:
    return out / f"{archive.name}.json"


def _complete(archive: VerseArchive, out: Path) -> FetchedArchive | None:
    """Return the archive if all it unpacked is still on disk, by number and size of files; extra files are allowed."""
    path = _record_path(archive, out)
    try:
        record = DownloadRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise OutputExistsError(f"{path}: not the record of a download; move it away") from error
    folder = out / record.folder
    if not folder.exists():
        return None
    found = contents(folder)
    if found[0] < record.files or found[1] < record.unpacked_bytes:
        raise OutputExistsError(
            f"{folder}: holds {found[0]} files of {found[1]} bytes, but {record.files} of {record.unpacked_bytes} were "
            f"unpacked: move it and {path.name} away to download again"
        )
    return FetchedArchive(archive.name, folder, record.sha256, True)


def _require_room(missing: Sequence[VerseArchive], remotes: Mapping[str, RemoteFile], out: Path) -> None:
    need_bytes = 0.0
    for archive in missing:
        if remote := remotes.get(archive.name):
            need_bytes += max(0.0, remote.length * _SPACE_FACTOR - size_of(_part(archive, out)))
        else:
            need_bytes += size_of(_zip_by_hand(archive, out)) * (_SPACE_FACTOR - 1)
    if need_bytes:
        require_space(out, need_bytes)


def _zip_by_hand(archive: VerseArchive, out: Path) -> Path:
    return out / f"{archive.name}.zip"


def _part(archive: VerseArchive, out: Path) -> Path:
    return out / f"{archive.name}.zip.part"


def _stoppable(progress: Progress, stop: threading.Event) -> Progress:
    def report(name: str, action: str, done: int, total: int) -> None:
        if stop.is_set():
            raise StoppedError
        progress(name, action, done, total)

    return report


def _bring(
    archive: VerseArchive, remote: RemoteFile | None, out: Path, progress: Progress, stop: threading.Event
) -> FetchedArchive:
    """Download an archive and unpack it; without `remote`, unpack the zip that the user put there."""
    name, part = archive.name, _part(archive, out)
    if remote is None:
        by_hand = _zip_by_hand(archive, out)
        return _install(archive, by_hand, RemoteFile(by_hand.name, size_of(by_hand), None, None), out, progress)
    fetch(remote, part, lambda done, total: progress(name, "download", done, total), stop)
    try:
        fetched = _install(archive, part, remote, out, progress)
    except DownloadError as error:
        discard(part)
        raise DownloadError(f"{error}: the file was removed; run the command again to download it") from error
    discard(part)
    return fetched


def _install(archive: VerseArchive, zipped: Path, remote: RemoteFile, out: Path, progress: Progress) -> FetchedArchive:
    """Unpack `zipped`, write its record, and move the folder to its place."""
    name, size = archive.name, size_of(zipped)
    sha256 = file_sha256(zipped, lambda done: progress(name, "checksum", done, size))
    with unpacked(zipped, out, name, lambda done, total: progress(name, "unpack", done, total)) as found:
        target = out / found.name
        if target.exists():
            raise OutputExistsError(f"{target}: already exists, but was not unpacked by this command; move it away")
        write_json(_record(archive, remote, sha256, found).model_dump(), _record_path(archive, out))
        found.folder.rename(target)
    return FetchedArchive(name, target, sha256, False)


def _record(archive: VerseArchive, remote: RemoteFile, sha256: str, found: Unpacked) -> DownloadRecord:
    return DownloadRecord(
        archive=archive.name,
        url=remote.url,
        etag=remote.etag,
        last_modified=remote.last_modified,
        zip_bytes=remote.length,
        sha256=sha256,
        folder=found.name,
        files=found.files,
        unpacked_bytes=found.size_bytes,
    )


def _gathered(futures: Sequence[Future[FetchedArchive]]) -> list[FetchedArchive]:
    """Wait for all. Raises the first expected error, with the others in its message."""
    done: list[FetchedArchive] = []
    failed: list[VertebralError] = []
    for future in futures:
        try:
            done.append(future.result())
        except VertebralError as error:
            failed.append(error)
    if failed:
        raise type(failed[0])("; ".join(str(error) for error in failed))
    return done
