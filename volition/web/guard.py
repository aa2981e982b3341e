"""What every page of ours is guarded by: headers, where requests come from, and how long their bodies may be."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY = 64 * 1024  # bytes of a request: a ranking of nine completions with a long note takes 5 KiB
PATIENCE = 20.0  # seconds for a body to arrive
GUARD = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Refused(Exception):
    """A request that cannot be granted: its HTTP status and one line for whoever made it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Guard:
    """Puts GUARD on every answer, and answers 403 to whatever another site's page would have changed here."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                have = {name for name, _ in message["headers"]}
                message["headers"] += [(n.encode(), v.encode()) for n, v in GUARD.items() if n.encode() not in have]
                if b"cache-control" not in have:
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        request = Request(scope)
        if request.method not in ("GET", "HEAD") and not _from_here(request):
            return await PlainTextResponse("this came from another site's page", 403)(scope, receive, guarded)
        await self.app(scope, receive, guarded)


def _from_here(request: Request) -> bool:
    """Whether a browser says that one of our own pages asks (Sec-Fetch-Site, or Origin in older ones)."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    return urlsplit(request.headers.get("origin", "")).netloc == request.headers.get("host")


async def read(request: Request) -> bytes:
    """The body, which must be small and come soon."""
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                body += part
                if len(body) > BODY:
                    raise Refused(413, f"a request has at most {BODY // 1024} KiB")
    except TimeoutError:
        raise Refused(408, "the request took too long to arrive") from None
    return bytes(body)


async def read_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object."""
    try:
        body = json.loads(await read(request))
    except (ValueError, RecursionError):
        raise Refused(400, "the request is no JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "the request is no JSON object")
    return body


def refused(request: Request, error: Exception) -> Response:
    """The answer to a request that is refused."""
    assert isinstance(error, Refused)
    return JSONResponse({"error": str(error)}, error.status)
