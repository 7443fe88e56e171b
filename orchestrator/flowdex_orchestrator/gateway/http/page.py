"""The web page: static files from the package, at `/` and below `/page/`.

GET / --> index.html     GET /page/PATH --> the file of that name, if it is one of the page's     304 by its ETag

The files are read once, at the first request for any of them: a gateway that nobody looks at pays nothing. A path is
looked up among their names and never goes to the file system, so it cannot lead out of the folder. What draws attention
is in `flowdex.attention`, whose pages of their own hold the same files.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response

from flowdex import attention
from flowdex.errors import NotFound

__all__ = ["HEADERS", "Page", "StaticFile", "make_page_router"]

HEADERS = {
    # Scripts, styles and requests of this origin alone; nothing inline, so that no document's text can become code.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # kept, but asked for again each time: an upgrade shows at once
}
"""On every file of the page."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_INDEX = "index.html"


@dataclass(frozen=True)
class StaticFile:
    """A file as it is sent.

    Attributes:
        content: Its bytes.
        media_type: For the header `Content-Type`.
        etag: Names this content.
    """

    content: bytes
    media_type: str
    etag: str


class Page:
    """The files of the page, by their path below its folder.

    Args:
        folder: Where they are; the package's own by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(__file__).parent.parent / "page"
        self._files: dict[str, StaticFile] | None = None

    async def file(self, path: str) -> StaticFile:
        """A file of the page.

        Raises:
            NotFound: It has none of this name.
        """
        if self._files is None:
            self._files = await asyncio.to_thread(self._read)
        if path not in self._files:
            raise NotFound(f"the page has no file {path!r}")
        return self._files[path]

    def _read(self) -> dict[str, StaticFile]:
        found = {}
        for path in sorted(self._folder.rglob("*")):
            if media_type := _TYPES.get(path.suffix):
                found[path.relative_to(self._folder).as_posix()] = _static(path, media_type)
        for name in attention.DRAWING:
            path = Path(attention.__file__).parent / name
            found[f"views/attention_{name}"] = _static(path, _TYPES[path.suffix])
        return found


def _static(path: Path, media_type: str) -> StaticFile:
    content = path.read_bytes()
    return StaticFile(content, media_type, f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"')


def make_page_router(page: Page | None = None) -> APIRouter:
    """The routes of the page."""
    page = page or Page()
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        return _respond(request, await page.file(_INDEX))

    @router.api_route("/page/{path:path}", methods=["GET", "HEAD"])
    async def file(path: str, request: Request) -> Response:
        return _respond(request, await page.file(path))

    return router


def _respond(request: Request, file: StaticFile) -> Response:
    headers = {**HEADERS, "ETag": file.etag}
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
