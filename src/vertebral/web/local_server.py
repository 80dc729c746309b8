"""A web server for one user on this computer: loopback only, at a secret address."""

import secrets
import socket
import webbrowser
from collections.abc import Callable, Mapping, Sequence
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
class ServerAddress:
    """Where a server listens: a bound socket, and the secret first segment of its paths."""

    listening: socket.socket
    token: str

    @property
    def url(self) -> str:
        """The address to open in the browser."""
        return f"http://{HOST}:{self.listening.getsockname()[1]}/{self.token}/"


class SecurityHeaders:
    """Adds headers that keep other sites, frames and caches out; headers that a response has stay."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and add headers to the response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                added = [(n.encode(), v.encode()) for n, v in _HEADERS.items() if n.encode() not in own]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self.app(scope, receive, send_with_headers)


def listen(port: int) -> ServerAddress:
    """Listen on `port` of the loopback address, 0 for any free one. Raises ConfigError if it is in use."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(f"--port {port}: cannot be used ({error}); choose another, or 0 for any free one") from error
    return ServerAddress(listening, secrets.token_urlsafe(24))


def protected_app(
    routes: Sequence[BaseRoute], token: str, exception_handlers: Mapping[Any, Any] | None = None
) -> Starlette:
    """Return an application that serves `routes` below the secret `token` and nothing else.

    The Host header must name this computer, because a site may point its own name at 127.0.0.1 (DNS rebinding).
    """
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
    mount = Mount(f"/{token}", routes=list(routes))
    return Starlette(
        routes=[mount], middleware=[Middleware(SecurityHeaders), hosts], exception_handlers=exception_handlers
    )


def serve(app: ASGIApp, address: ServerAddress, open_browser: bool, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM. Nothing is logged: addresses contain the secret."""
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
