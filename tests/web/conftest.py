"""Servers on the loopback address, and a way to ask them what no browser would."""

import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp

from results import Made, phantom_parts
from vertebral.web.local_server import ServerAddress, listen


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Server:
    address: ServerAddress

    def ask(self, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
        """Ask for `path` below the secret address, as it stands: nothing is tidied up."""
        return self.ask_raw(f"/{self.address.token}/{path}", method, body, **headers)

    def ask_raw(self, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.address.listening.getsockname()[1], timeout=60)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return answer


@pytest.fixture(scope="session")
def made() -> Made:
    return phantom_parts()


@pytest.fixture(scope="module")
def serving() -> Iterator[Callable[[Callable[[str], ASGIApp]], Server]]:
    """`serving(lambda token: app)` starts a server in a thread; all are stopped at the end."""
    started: list[tuple[Any, threading.Thread, ServerAddress]] = []

    def start(make: Callable[[str], ASGIApp]) -> Server:
        address = listen(0)
        config = uvicorn.Config(make(address.token), access_log=False, http="h11", log_level="critical", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [address.listening]}, daemon=True)
        thread.start()
        started.append((server, thread, address))
        return Server(address)

    yield start
    for server, thread, address in started:
        server.should_exit = True
        thread.join(10)
        address.listening.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"
