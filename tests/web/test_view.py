import gzip
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from results import Made, write_result
from vertebral.cli import app
from vertebral.core.errors import ConfigError, InputError
from vertebral.io.result_folder import open_complete_result
from vertebral.stages.report.volumes import CT, LABELS
from vertebral.web.local_server import listen
from vertebral.web.served_result import prepare_result
from vertebral.web.view import view_app


@pytest.fixture(scope="module")
def server(made: Made, tmp_path_factory: pytest.TempPathFactory, serving: Callable[..., Any]) -> Any:
    tmp_path = tmp_path_factory.mktemp("view")
    out, ct = write_result(made, tmp_path / "r", stem="ca se")
    (tmp_path / "cache").mkdir()
    (out / "secret.txt").write_text("not of the manifest")
    served = prepare_result(open_complete_result(out), ct, tmp_path / "cache")
    return serving(lambda token: view_app(served, token))


def test_the_page_gets_its_volumes_at_full_resolution(server: Any, made: Made) -> None:
    page = server.ask("")
    text = page.body.decode()
    assert page.status == 200 and f'"{CT}":"volumes/ct.nii"' in text and f'data-name="{CT}"' not in text
    ct = nib.Nifti1Image.from_bytes(server.ask("volumes/ct.nii").body)
    assert ct.get_data_dtype() == np.int16 and ct.header.get_zooms() == pytest.approx((4, 4, 4))
    labels = nib.Nifti1Image.from_bytes(server.ask("volumes/labels.nii").body)
    place = np.argwhere(made.labels.array == 20)[5]
    voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(ct.affine), made.ct.grid.to_world(place))).astype(int)
    assert ct.dataobj[tuple(voxel)] == made.ct.array[tuple(place)]
    assert labels.dataobj[tuple(voxel)] == 20


def test_files_of_the_manifest_and_no_others(server: Any) -> None:
    found = server.ask("files/ca%20se_seg-vert_msk.nii.gz")
    assert found.status == 200 and gzip.decompress(found.body)[344:347] == b"n+1"
    assert found.headers["content-disposition"].startswith("attachment")
    assert found.headers["content-security-policy"].startswith("sandbox")
    assert json.loads(server.ask("files/manifest.json").body)["input"]["name"] == "ca se"
    report = server.ask("files/report.html")
    assert report.status == 200 and report.headers["content-type"] == "application/octet-stream"
    assert server.ask("files/secret.txt").status == 404


@pytest.mark.parametrize(
    "path",
    [
        "files/",
        "files",
        "files/..",
        "files/../r/ca se_ct.nii.gz",
        "files/%2e%2e%2fca%20se_ct.nii.gz",
        "files/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "files/....//....//etc/passwd",
        "files//etc/passwd",
        "files/%2fetc%2fpasswd",
        "files/..%5c..%5cetc%5cpasswd",
        "files/manifest.json%00",
        "volumes/../files/secret.txt",
        "volumes/",
        "volumes/ct.nii.gz",
        "volumes/%2e%2e/%2e%2e/etc/passwd",
        "../",
    ],
)
def test_no_path_leads_out(path: str, server: Any) -> None:
    answer = server.ask(path.replace(" ", "%20"))
    assert answer.status in (404, 307) and b"root:" not in answer.body
    if answer.status == 307:
        assert answer.headers["location"].endswith("/files/") or answer.headers["location"].endswith("/volumes/")


def test_without_the_secret_there_is_nothing(server: Any) -> None:
    token = server.address.token
    assert len(token) >= 32
    for path in ("/", "/files/manifest.json", f"/{token[:-1]}/", f"/{token}x/", f"/{token.swapcase()}/", "/%2f/", "//"):
        answer = server.ask_raw(path)
        assert answer.status == 404 and token.encode() not in answer.body


def test_a_name_that_was_pointed_here_is_refused(server: Any) -> None:
    port = server.address.listening.getsockname()[1]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "[::1]", "localhost.evil"):
        answer = server.ask("files/manifest.json", host=host)
        assert answer.status == 400 and b"input" not in answer.body
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert server.ask("files/manifest.json", host=host).status == 200


def test_other_sites_get_nothing(server: Any) -> None:
    answer = server.ask("files/manifest.json", origin="https://evil.example")
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in server.ask("").headers["content-security-policy"]
    assert server.ask("", "OPTIONS").status == 405 and server.ask("", "POST").status == 405


def test_a_link_in_the_folder_is_not_followed(made: Made, tmp_path: Path, serving: Callable[..., Any]) -> None:
    out, _ = write_result(made, tmp_path / "r")
    (tmp_path / "elsewhere").write_text("secret")
    (out / "case_L1.stl").unlink()
    (out / "case_L1.stl").symlink_to(tmp_path / "elsewhere")
    server = serving(lambda token: view_app(prepare_result(open_complete_result(out), None, tmp_path), token))
    assert server.ask("files/case_L1.stl").status == 404
    assert server.ask("files/case_L2.stl").status == 200


def test_it_listens_on_this_computer_only() -> None:
    address = listen(0)
    assert address.listening.getsockname()[0] == "127.0.0.1" and address.url.startswith("http://127.0.0.1:")
    with pytest.raises(ConfigError, match=r"--port \d+: cannot be used"):
        listen(address.listening.getsockname()[1])
    address.listening.close()


def test_a_result_without_a_page_is_served_too(made: Made, tmp_path: Path) -> None:
    out, ct = write_result(made, tmp_path, page=False)
    served = prepare_result(open_complete_result(out), None, tmp_path)
    assert set(served.contents.blobs) == {"T12.mz3", "L1.mz3", "L2.mz3"} and not served.volumes
    assert set(prepare_result(open_complete_result(out), ct, tmp_path).volumes) == {CT, LABELS}
    with pytest.raises(InputError, match="check the path"):
        prepare_result(open_complete_result(out), tmp_path / "none.nii.gz", tmp_path)


def test_view_refuses_what_is_no_result(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["view", str(tmp_path), "--no-browser", "--quiet"])
    assert done.exit_code == 2 and "no manifest.json" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_view_serves_until_it_is_stopped(number: signal.Signals, made: Made, tmp_path: Path) -> None:
    out, _ = write_result(made, tmp_path)
    command = [sys.executable, "-m", "vertebral", "view", str(out), "--no-browser", "--quiet"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        url = child.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert answer.status == 200
        child.send_signal(number)
        assert child.wait(30) == 0
        assert child.stderr.read() == ""
