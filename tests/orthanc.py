"""A real Orthanc with its DICOMweb plugin on the loopback address, with test credentials and a temporary storage."""

import json
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

USER, PASSWORD = "tester", "only-for-tests"
_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_START_S = 30.0


@dataclass(frozen=True)
class Server:
    """A running one; `address` wants the UIDs of a series."""

    port: int

    def address(self, study: str, series: str) -> str:
        return f"dicomweb://localhost:{self.port}/dicom-web/studies/{study}/series/{series}"

    def upload(self, folder: Path) -> None:
        for file in sorted(folder.iterdir()):
            _request(f"http://localhost:{self.port}/instances", file.read_bytes())

    def modalities(self) -> list[str]:
        """The modality of each series that it holds, in order."""
        series = json.loads(_request(f"http://localhost:{self.port}/series?expand"))
        return sorted(one["MainDicomTags"]["Modality"] for one in series)

    def files(self, modality: str) -> list[bytes]:
        """The DICOM files of all series of a modality, as they are stored."""
        series = json.loads(_request(f"http://localhost:{self.port}/series?expand"))
        found = [i for one in series if one["MainDicomTags"]["Modality"] == modality for i in one["Instances"]]
        return [_request(f"http://localhost:{self.port}/instances/{instance}/file") for instance in found]


@contextmanager
def orthanc(folder: Path) -> Iterator[Server]:
    """Start one with its files in `folder`; skip the test where it is not installed."""
    program = shutil.which("Orthanc") or shutil.which("orthanc", path="/usr/sbin:/usr/bin")
    if program is None or not _PLUGIN.exists():
        pytest.skip("no Orthanc with its DICOMweb plugin (Debian: orthanc, orthanc-dicomweb)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(_PLUGIN)],
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        _wait(port, process, folder / "orthanc.log")
        yield Server(port)
    finally:
        process.terminate()
        process.wait(timeout=20)


@contextmanager
def tls_in_front(port: int, certificate: Path, key: Path) -> Iterator[int]:
    """Give a port that speaks TLS and passes all on to `port`, as a proxy does (Debian's Orthanc crashes over TLS)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Tunnel(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                client = context.wrap_socket(self.request, server_side=True)
            except OSError:
                return  # a client that does not trust the certificate hangs up
            with client, socket.create_connection(("127.0.0.1", port)) as inner:
                answers = threading.Thread(target=_pump, args=(inner, client), daemon=True)
                answers.start()
                _pump(client, inner)
                answers.join(timeout=10)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _wait(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"Orthanc did not start: {log.read_text()[-2000:]}")


def _request(url: str, body: bytes | None = None) -> bytes:
    token = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    request = urllib.request.Request(url, data=body, headers={"Authorization": f"Basic {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        content: bytes = answer.read()
    return content
