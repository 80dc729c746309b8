"""VerSe's archives from a small server in this process: no test touches the network."""

import hashlib
import http.server
import io
import json
import shutil
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vertebral.core.errors import ConfigError, DownloadError, InputError, OutputExistsError
from vertebral.data.verse import resumable
from vertebral.data.verse.download import CITATIONS, FetchedArchive, VerseArchive, choose_archives, download

ARCHIVE = VerseArchive("verse19", "training")
NAME = "dataset-verse19training"
CT = "rawdata/sub-verse004/sub-verse004_ct.nii.gz"


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def zipped(files: dict[str, bytes], mode: int | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            if mode is not None:
                info.create_system, info.external_attr = 3, mode << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def verse_zip(seed: int = 0, size: int = 600_000, top: str = f"{NAME}/") -> bytes:
    mask = "derivatives/sub-verse004/sub-verse004_seg-vert_msk.nii.gz"
    return zipped({top + CT: noise(size, seed), top + mask: b"mask", f"__MACOSX/{top}._x": b"litter"})


@dataclass
class Server:
    """What the server holds, how it misbehaves, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"one"'
    announced: int | None = None
    break_after: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    ignores_range: bool = False
    tells_length: bool = True
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    sent: int = 0

    @property
    def gets(self) -> list[str | None]:
        """The Range header of each request for a body."""
        return [wanted for method, _, wanted in self.log if method == "GET"]


class Handler(http.server.BaseHTTPRequestHandler):
    state: Server

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        body = self.answer()
        cut = self.state.break_after.pop(0) if self.state.break_after else len(body)
        self.wfile.write(body[:cut])
        self.state.sent += len(body[:cut])
        self.close_connection = True

    def answer(self) -> bytes:
        state, wanted = self.state, self.headers.get("Range")
        name = self.path.rsplit("/", 1)[-1].removesuffix(".zip")
        state.log.append((self.command, name, wanted))
        code = state.answers.pop(0) if state.answers else 200 if name in state.files else 404
        content = state.files.get(name, b"") if code == 200 else b""
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        same = self.headers.get("If-Range") in (None, state.etag)
        partial = bool(wanted) and code == 200 and same and not state.ignores_range
        body = content[start:] if partial else content
        self.send_response(206 if partial else code)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        length = state.announced if self.command == "HEAD" and state.announced else len(body)
        if self.command == "HEAD" or state.tells_length:
            self.send_header("Content-Length", str(length))
        if state.etag:
            self.send_header("ETag", state.etag)
        self.end_headers()
        return body

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server(files={NAME: verse_zip()})
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"state": state}))
    state.url = f"http://127.0.0.1:{httpd.server_port}/VerSe-complete"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def fetch(server: Server, out: Path, *archives: VerseArchive, **options: Any) -> list[FetchedArchive]:
    return download(archives or (ARCHIVE,), out, server.url, **options)


def assert_whole(out: Path, seed: int = 0) -> None:
    assert (out / NAME / CT).read_bytes() == noise(600_000, seed)
    assert sorted(path.name for path in out.iterdir()) == [NAME, f"{NAME}.json"]


def test_an_archive_is_unpacked_and_recorded(server: Server, tmp_path: Path) -> None:
    assert fetch(server, tmp_path / "a" / "out") == [
        FetchedArchive(NAME, tmp_path / "a" / "out" / NAME, hashlib.sha256(server.files[NAME]).hexdigest(), False)
    ]
    out = tmp_path / "a" / "out"
    assert_whole(out)
    record = json.loads((out / f"{NAME}.json").read_text())
    assert record["sha256"] == hashlib.sha256(server.files[NAME]).hexdigest()
    assert record["zip_bytes"] == len(server.files[NAME])
    assert (record["files"], record["unpacked_bytes"]) == (2, 600_004)
    assert (record["url"], record["folder"], record["etag"]) == (f"{server.url}/{NAME}.zip", NAME, '"one"')
    assert record["licence"].startswith("CC BY-SA 4.0")
    assert record["citations"] == list(CITATIONS)


def test_what_is_complete_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    first = fetch(server, tmp_path)
    (tmp_path / NAME / "catalog.json").write_text("{}")
    server.log.clear()
    again = fetch(server, tmp_path)
    assert server.log == []
    assert (again[0].folder, again[0].sha256) == (first[0].folder, first[0].sha256)
    assert again[0].was_complete


def test_a_broken_connection_goes_on_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.break_after = [250_000, 100_000]
    fetch(server, tmp_path)
    assert_whole(tmp_path)
    assert server.gets == [None, "bytes=250000-", "bytes=350000-"]
    assert server.sent == len(server.files[NAME])


def test_a_later_run_goes_on_too(server: Server, tmp_path: Path) -> None:
    def interrupted(name: str, action: str, done: int, total: int) -> None:
        if done > 200_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server, tmp_path, progress=interrupted)
    have = (tmp_path / f"{NAME}.zip.part").stat().st_size
    assert 200_000 < have < len(server.files[NAME])
    fetch(server, tmp_path)
    assert server.gets == [None, f"bytes={have}-"]
    assert_whole(tmp_path)


def test_a_whole_part_is_unpacked_without_another_body(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(OutputExistsError, match="already exists"):
        fetch(server, tmp_path)
    (tmp_path / NAME).rmdir()
    fetch(server, tmp_path)
    assert len(server.gets) == 1
    assert_whole(tmp_path)


@pytest.mark.parametrize("etag", ['"two"', 'W/"two"', None])
def test_another_file_on_the_server_starts_anew(server: Server, tmp_path: Path, etag: str | None) -> None:
    server.break_after = [250_000, 0, 0, 0]
    with pytest.raises(DownloadError, match="250000 of"):
        fetch(server, tmp_path)
    server.files[NAME], server.etag = verse_zip(seed=1), etag
    server.log.clear()
    fetch(server, tmp_path)
    assert server.gets == [None]
    assert_whole(tmp_path, seed=1)


def test_a_part_of_unknown_origin_is_not_trusted(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.zip.part").write_bytes(b"something else")
    fetch(server, tmp_path)
    assert server.gets == [None]
    assert_whole(tmp_path)


def test_a_server_without_ranges_starts_anew(server: Server, tmp_path: Path) -> None:
    server.break_after, server.ignores_range = [250_000], True
    fetch(server, tmp_path)
    assert server.gets == [None, "bytes=250000-"]
    assert_whole(tmp_path)


def test_no_validators_at_all(server: Server, tmp_path: Path) -> None:
    server.break_after, server.etag = [250_000], None
    fetch(server, tmp_path)
    assert server.gets == [None, "bytes=250000-"]
    assert_whole(tmp_path)


def test_a_length_that_changes_is_refused(server: Server, tmp_path: Path) -> None:
    server.announced = len(server.files[NAME]) + 7
    with pytest.raises(DownloadError, match=rf"announced {server.announced} bytes and then {server.announced - 7}"):
        fetch(server, tmp_path)
    assert not (tmp_path / NAME).exists()


def test_more_than_was_announced_is_refused(server: Server, tmp_path: Path) -> None:
    server.announced, server.tells_length = len(server.files[NAME]) - 7, False
    with pytest.raises(DownloadError, match=f"more than the {server.announced} bytes"):
        fetch(server, tmp_path)
    assert not (tmp_path / NAME).exists()


def test_a_body_that_never_comes_is_given_up_and_kept(server: Server, tmp_path: Path) -> None:
    server.break_after = [250_000, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"4 times in a row: try again later; the downloaded part is kept.*osf.io"):
        fetch(server, tmp_path)
    assert (tmp_path / f"{NAME}.zip.part").stat().st_size == 250_000


def test_a_missing_archive_is_named_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=rf"{server.url}/dataset-verse20test.zip: the server answered 404.*osf.io"):
        fetch(server, tmp_path, VerseArchive("verse20", "test"))
    assert len(server.log) == 1


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.answers = [503, 200, 429, 200, 500]
    fetch(server, tmp_path)
    assert_whole(tmp_path)


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"the connection failed .*refused.*3 times in a row"):
        download([ARCHIVE], tmp_path, "http://127.0.0.1:9")


def test_a_server_that_tells_no_length(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "send_header", lambda *_: None)
    with pytest.raises(DownloadError, match="does not give the length"):
        fetch(server, tmp_path)


def test_a_damaged_zip_is_removed(server: Server, tmp_path: Path) -> None:
    body = bytearray(server.files[NAME])
    body[300_000] ^= 1
    server.files[NAME] = bytes(body)
    with pytest.raises(DownloadError, match=r"damaged.*CRC.*the file was removed; run the command again"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []
    server.files[NAME] = b"<html>not a zip</html>"
    with pytest.raises(DownloadError, match="damaged, or not a zip file"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:/evil", "a\\..\\evil", "."])
def test_names_that_lead_out_are_refused(server: Server, tmp_path: Path, name: str) -> None:
    server.files[NAME] = zipped({f"{NAME}/good": b"good", name: b"evil"})
    with pytest.raises(DownloadError, match="points outside its folder: do not trust"):
        fetch(server, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(server: Server, tmp_path: Path, kind: int) -> None:
    server.files[NAME] = zipped({f"{NAME}/link": b"/etc/passwd"}, kind | 0o644)
    with pytest.raises(DownloadError, match="a link or a device"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_encrypted_zip_is_refused(server: Server, tmp_path: Path) -> None:
    body = bytearray(zipped({f"{NAME}/a": b"a"}))
    body[body.index(b"PK\x01\x02") + 8] |= 1
    server.files[NAME] = bytes(body)
    with pytest.raises(DownloadError, match="is encrypted"):
        fetch(server, tmp_path)


@pytest.mark.parametrize("second", [f"{NAME}/a", f"{NAME}/a/b"])
def test_two_files_of_one_name_are_refused(server: Server, tmp_path: Path, second: str) -> None:
    buffer = io.BytesIO(zipped({f"{NAME}/a": b"a", f"{NAME}/x/b": b"b"}).replace(b"x/b", b"a/b"))
    if second == f"{NAME}/a":
        with zipfile.ZipFile(buffer, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(second, b"a")
            archive.writestr(second, b"a")
    server.files[NAME] = buffer.getvalue()
    with pytest.raises(DownloadError, match="two files with one name"):
        fetch(server, tmp_path)


@pytest.mark.parametrize("top", ["", ".hidden/", "rawdata/"])
def test_a_zip_without_a_top_folder_gets_one(server: Server, tmp_path: Path, top: str) -> None:
    server.files[NAME] = zipped({f"{top}a/b": b"1"} if top else {"a/b": b"1", "c": b"2"})
    fetch(server, tmp_path)
    assert (tmp_path / NAME / top / "a" / "b").read_bytes() == b"1"


def test_a_top_folder_keeps_its_name(server: Server, tmp_path: Path) -> None:
    server.files["dataset-verse20training"] = verse_zip(top="dataset-01training/")
    found = fetch(server, tmp_path, VerseArchive("verse20", "training"))
    assert found[0].folder == tmp_path / "dataset-01training"
    assert (tmp_path / "dataset-01training" / CT).is_file()
    assert (tmp_path / "dataset-verse20training.json").is_file()


def disk(free: int) -> Callable[[Path], SimpleNamespace]:
    return lambda folder: SimpleNamespace(free=free)


def test_space_is_checked_before_anything_is_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = 2.2 * len(server.files[NAME])
    monkeypatch.setattr(shutil, "disk_usage", disk(int(need) - 10))
    with pytest.raises(InputError, match=r"needs 0\.00132 GB.*choose another --out"):
        fetch(server, tmp_path)
    assert server.gets == []
    monkeypatch.setattr(shutil, "disk_usage", disk(int(need) + 10))
    fetch(server, tmp_path)
    assert_whole(tmp_path)


def test_space_that_is_taken_already_counts(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.break_after = [250_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", disk(int(2.2 * len(server.files[NAME])) - 240_000))
    fetch(server, tmp_path)
    assert_whole(tmp_path)


def test_a_changed_folder_is_left_alone(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    (tmp_path / NAME / CT).unlink()
    with pytest.raises(OutputExistsError, match=r"holds 1 files of 4 bytes, but 2 of 600004 were.*move it and"):
        fetch(server, tmp_path)
    shutil.rmtree(tmp_path / NAME)
    fetch(server, tmp_path)
    assert_whole(tmp_path)


def test_another_json_in_the_place_of_the_record(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.json").write_text("{}")
    with pytest.raises(OutputExistsError, match="not the record of a download"):
        fetch(server, tmp_path)


def test_a_zip_put_there_by_hand_is_unpacked(server: Server, tmp_path: Path) -> None:
    zip_path = tmp_path / f"{NAME}.zip"
    zip_path.write_bytes(server.files[NAME])
    assert not fetch(server, tmp_path)[0].was_complete
    assert (server.log, zip_path.is_file(), (tmp_path / NAME / CT).is_file()) == ([], True, True)
    shutil.rmtree(tmp_path / NAME)
    zip_path.write_bytes(b"damaged")
    with pytest.raises(DownloadError, match="damaged"):
        fetch(server, tmp_path)
    assert zip_path.is_file()


def test_one_damaged_archive_does_not_stop_the_others(server: Server, tmp_path: Path) -> None:
    server.files["dataset-verse19test"] = b"damaged"
    server.files["dataset-verse19validation"] = verse_zip(3, top="dataset-verse19validation/")
    chosen = choose_archives("verse19")
    with pytest.raises(DownloadError, match=r"dataset-verse19test\.zip\.part: damaged"):
        fetch(server, tmp_path, *chosen, jobs=3)
    assert (tmp_path / NAME / CT).is_file()
    assert (tmp_path / "dataset-verse19validation" / CT).is_file()
    assert not (tmp_path / "dataset-verse19test").exists()


def test_progress_counts_to_the_end(server: Server, tmp_path: Path) -> None:
    last: dict[str, tuple[int, int]] = {}

    def note(name: str, action: str, done: int, total: int) -> None:
        assert name == NAME
        assert done >= last.get(action, (0, 0))[0]
        last[action] = (done, total)

    fetch(server, tmp_path, progress=note)
    size = len(server.files[NAME])
    assert last == {"download": (size, size), "checksum": (size, size), "unpack": (600_004, 600_004)}


def test_archives_are_chosen_by_name() -> None:
    assert [archive.name for archive in choose_archives("verse20", ["test", "training"])] == [
        "dataset-verse20training",
        "dataset-verse20test",
    ]
    assert len(choose_archives("all")) == 6
    with pytest.raises(ConfigError, match="'verse21': use verse19, verse20 or all"):
        choose_archives("verse21")
    with pytest.raises(ConfigError, match="--subset 'tset': use one or more of training,validation,test"):
        choose_archives("all", ["tset"])


def test_bad_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must begin with https://"):
        download([ARCHIVE], tmp_path, "file:///etc")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExistsError, match="is a file"):
        download([ARCHIVE], tmp_path / "file")
