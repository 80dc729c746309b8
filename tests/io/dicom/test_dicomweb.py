"""Fetching from and storing to a real Orthanc, and what goes wrong on the way."""

import http.server
import io
import shutil
import socket
import stat
import subprocess
import threading

import numpy as np
import pydicom
import pytest

from dicom_series import POSES, Series, labels_on
from orthanc import PASSWORD, USER, orthanc, tls_in_front
from vertebral.core.anatomy import BY_NAME
from vertebral.core.errors import ConfigError, PacsError
from vertebral.core.records import Surface
from vertebral.io.ct.read import read_scan
from vertebral.io.dicom import dicomweb
from vertebral.io.dicom.dicomweb import fetch_series, store_files
from vertebral.io.dicom.pacs_access import Access, parse_address
from vertebral.io.dicom_export.identity import Maker, save
from vertebral.io.dicom_export.rtstruct import make_rtstruct
from vertebral.io.dicom_export.seg import make_seg
from vertebral.io.dicom_export.source import read_source
from vertebral.io.dicom_export.stl import make_stls

ACCESS = Access(USER, PASSWORD)
SERIES = Series(POSES["oblique"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return SERIES.write(tmp_path_factory.mktemp("scan") / "ct")


@pytest.fixture(scope="module")
def server(tmp_path_factory, folder):
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        running.upload(folder)
        yield running


@pytest.fixture
def address(server):
    return parse_address(server.address(SERIES.study, SERIES.series))


def test_a_series_comes_as_it_was_stored(address, folder, tmp_path):
    shares = []
    assert fetch_series(address, ACCESS, tmp_path / "got", shares.append) == 9
    assert stat.S_IMODE((tmp_path / "got").stat().st_mode) == 0o700
    assert np.array_equal(read_scan(tmp_path / "got").volume.array, read_scan(folder).volume.array)
    assert np.allclose(read_scan(tmp_path / "got").volume.affine, read_scan(folder).volume.affine)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_results_are_stored_and_come_back(server, address, folder, tmp_path):
    labels, source = labels_on(read_scan(folder).volume), read_source(folder)
    corners = labels.grid.to_world(np.array([[1, 1, 1], [5, 1, 1], [1, 5, 1], [1, 1, 5]]))
    surface = Surface(BY_NAME["L1"], corners, np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
    seg = make_seg(labels, source, Maker())
    made = {
        "seg": seg,
        "rtstruct": make_rtstruct(labels, source, Maker()),
        "stl": make_stls([surface], source, Maker())[0],
    }
    files = [tmp_path / f"{name}.dcm" for name in made]
    for file, dataset in zip(files, made.values(), strict=True):
        save(dataset, file)
    store_files(address, ACCESS, files)
    assert server.modalities() == ["CT", "M3D", "RTSTRUCT", "SEG"]
    (content,) = server.files("SEG")
    again = pydicom.dcmread(io.BytesIO(content))
    assert again.SOPInstanceUID == seg.SOPInstanceUID
    assert again.PixelData == seg.PixelData
    (content,) = server.files("M3D")
    model = pydicom.dcmread(io.BytesIO(content))
    assert model.EncapsulatedDocument == made["stl"].EncapsulatedDocument


@pytest.mark.parametrize("proxied", [True, False])
def test_proxies_are_those_of_the_environment(monkeypatch, proxied):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "localhost" if proxied else "pacs.example")
    client = dicomweb._client(parse_address("dicomwebs://pacs.example/studies/1.2/series/1.3"), ACCESS)
    assert ("https" in client._session.proxies) is proxied


@pytest.mark.parametrize("access", [Access(), Access(USER, "wrong"), Access(token="wrong")])
def test_wrong_credentials(address, access, tmp_path):
    with pytest.raises(PacsError, match=r"did not accept the credentials \(401\): set VERTEBRAL_PACS_USER") as caught:
        fetch_series(address, access, tmp_path / "got")
    assert "wrong" not in str(caught.value)
    assert not (tmp_path / "got").exists()


def test_netrc_is_not_looked_at(address, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text(f"machine localhost login {USER} password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with pytest.raises(PacsError, match="401"):
        fetch_series(address, Access(), tmp_path / "got")


def test_no_such_series(server, tmp_path):
    with pytest.raises(PacsError, match="no such series: check the UIDs"):
        fetch_series(parse_address(server.address(SERIES.study, "1.2.3")), ACCESS, tmp_path / "got")


def test_wrong_path(server, tmp_path):
    wrong = server.address("1.2", "1.3").replace("dicom-web", "nothing")
    with pytest.raises(PacsError, match=r"no such study, series or path \(404\)"):
        fetch_series(parse_address(wrong), ACCESS, tmp_path / "got")


def test_what_is_no_ct(server, tmp_path):
    other = Series()
    server.upload(other.write(tmp_path / "mr", lambda n, ds: setattr(ds, "Modality", "MR")))
    with pytest.raises(PacsError, match="the series is MR, not CT"):
        fetch_series(parse_address(server.address(other.study, other.series)), ACCESS, tmp_path / "got")


def test_a_study_that_does_not_match_is_not_taken(server, folder, tmp_path):
    file = next(folder.iterdir())
    with pytest.raises(PacsError, match=f"to store {file.name}"):
        store_files(parse_address(server.address("1.2", "1.3")), ACCESS, [file])


def test_nobody_there(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(PacsError, match="cannot be reached: check host, port and network"):
        fetch_series(parse_address(f"dicomweb://localhost:{port}/studies/1.2/series/1.3"), ACCESS, tmp_path / "got")


def test_silence(tmp_path, monkeypatch):
    monkeypatch.setattr(dicomweb, "_READ_S", 0.3)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = parse_address(f"dicomweb://127.0.0.1:{mute.getsockname()[1]}/studies/1.2/series/1.3")
        with pytest.raises(PacsError, match="did not answer in time"):
            fetch_series(address, ACCESS, tmp_path / "got")


class Wrong(http.server.BaseHTTPRequestHandler):
    """A server that finds one series of two instances and sends a page instead."""

    def do_GET(self):
        found = '[{"00080060": {"vr": "CS", "Value": ["CT"]}, "00201209": {"vr": "IS", "Value": [2]}}]'
        query = "?" in self.path
        content = (found if query and "nothing" not in self.path else "<html>hello</html>").encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json" if query else "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("path", ["", "/nothing"])
def test_a_server_of_another_kind(tmp_path, path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Wrong) as wrong:
        threading.Thread(target=wrong.serve_forever, daemon=True).start()
        address = parse_address(f"dicomweb://127.0.0.1:{wrong.server_port}{path}/studies/1.2/series/1.3")
        with pytest.raises(PacsError, match="the answer is not DICOM: check that this is a DICOMweb server"):
            fetch_series(address, Access(), tmp_path / "got")
        wrong.shutdown()


def test_credentials_do_not_travel_in_the_open(tmp_path):
    with pytest.raises(ConfigError, match="credentials would be sent unencrypted; use dicomwebs://"):
        fetch_series(parse_address("dicomweb://192.0.2.1/studies/1.2/series/1.3"), ACCESS, tmp_path / "got")


def test_tls(server, tmp_path, folder):
    """A certificate that nobody vouches for is refused, and taken where it is named."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    made = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "certificate.pem")]
    subprocess.run(["openssl", *words.split(), *made], check=True, capture_output=True)
    with tls_in_front(server.port, tmp_path / "certificate.pem", tmp_path / "key.pem") as port:
        plain = server.address(SERIES.study, SERIES.series)
        address = parse_address(plain.replace("dicomweb:", "dicomwebs:").replace(str(server.port), str(port)))
        with pytest.raises(PacsError, match=r"its certificate is not trusted: give .* as --pacs-ca"):
            fetch_series(address, ACCESS, tmp_path / "got")
        trusting = Access(USER, PASSWORD, ca_bundle=tmp_path / "certificate.pem")
        store_files(address, trusting, sorted(folder.iterdir()))
        assert fetch_series(address, trusting, tmp_path / "got") == 9
