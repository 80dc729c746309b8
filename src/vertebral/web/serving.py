"""A web server for one person on one computer: loopback only, behind a secret address."""

import secrets
import socket
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vertebral.core.errors import ConfigError

HOST = "127.0.0.1"
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True)
class Address:
    """Where a server listens: a bound socket, and the secret that its addresses begin with."""

    listening: socket.socket
    token: str

    @property
    def url(self) -> str:
        """What to open in the browser."""
        return f"http://{HOST}:{self.listening.getsockname()[1]}/{self.token}/"


class SafeHeaders:
    """Adds to each answer what keeps other sites, frames and caches away from it; an answer's own headers stay."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; see the class."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                added = [(n.encode(), v.encode()) for n, v in _HEADERS.items() if n.encode() not in own]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self.app(scope, receive, send_with_headers)


def listen(port: int) -> Address:
    """Take `port` of the loopback address, or any free one for 0. Raises ConfigError where it is taken."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(f"--port {port}: cannot be listened on ({error}): choose another, or 0 for any") from error
    return Address(listening, secrets.token_urlsafe(24))


def guarded(routes: Sequence[BaseRoute], token: str, **options: Any) -> Starlette:
    """Return the application: `routes` below the secret, nothing elsewhere, and no other Host than this computer.

    The Host header is checked because a site may point its own name at 127.0.0.1 (DNS rebinding).
    """
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
    mount = Mount(f"/{token}", routes=list(routes))
    return Starlette(routes=[mount], middleware=[Middleware(SafeHeaders), hosts], **options)


def serve(app: ASGIApp, address: Address, open_browser: bool, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM. Nothing is logged: addresses hold the secret."""
    config = uvicorn.Config(
        app,
        access_log=False,
        http="h11",
        log_level="critical",
        server_header=False,
        timeout_graceful_shutdown=3,
        ws="none",
    )
    try:
        say(address.url)
        if open_browser:
            webbrowser.open(address.url)
        uvicorn.Server(config).run(sockets=[address.listening])
    except KeyboardInterrupt:
        pass
    finally:
        address.listening.close()
