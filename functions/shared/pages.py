"""Pages for people: HTML and the files that it loads, read when they are first asked for, then kept in memory.

Nothing comes from elsewhere, and the browser is told to load nothing from elsewhere. All addresses are relative: a
proxy may put the pages below any path, and nobody has to say which.
"""

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from shared import edge, negotiation
from shared.problems import Problem

CONTENT_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' data:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
"""The Content-Security-Policy of a page, by directive."""
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
YEAR_SECONDS = 365 * 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class File:
    """What a browser gets: the content, the same compressed, and a tag that changes with it."""

    content: bytes
    compressed: bytes
    tag: str
    media_type: str


class Site:
    """The pages of a folder, and the files that they load: from an address that changes when any of them does."""

    def __init__(
        self, address: str, folder: Path, packaged: Mapping[str, str], replaced: Mapping[bytes, bytes] | None = None
    ) -> None:
        """Serve the files below `address`, the name of a folder beside the pages.

        `packaged` are files of installed packages, such as `package/folder/file.js`, by the names that they get.
        `replaced` is what is not served as it stands in a file.
        """
        self._address = address
        self._folder = folder
        self._packaged = packaged
        self._replaced = replaced or {}
        self._files: dict[str, File] = {}

    def page(self, name: str, policy: Mapping[str, str] = CONTENT_POLICY) -> edge.Function:
        """A function that answers with a page. Only the path of `index.html` ends with a slash."""

        async def answer(request: Request) -> Response:
            if request.scope["path"].endswith("/") != (name == "index.html"):
                return _moved(request)
            return _response(request, await self._loaded(name), "no-cache", policy)

        return answer

    async def file(self, request: Request) -> Response:
        """Answer with a file that pages load. Raises Problem 404."""
        path = request.scope["path"]
        folder, version, name = ("", "", *path.split("/"))[-3:]
        if folder != self._address or name not in self._paths:
            raise Problem(HTTPStatus.NOT_FOUND, f"There is nothing at {path}")
        file = await self._loaded(name)
        # During a rollout the page may come from another revision. It gets the file of this one, and does not keep it.
        kept = f"max-age={YEAR_SECONDS}, immutable" if version == self._version else "no-cache"
        return _response(request, file, kept, CONTENT_POLICY)

    async def _loaded(self, name: str) -> File:
        if name not in self._files:
            # In a thread of its own: those that all share may be busy for minutes. Imported once it is needed.
            from concurrent.futures import ThreadPoolExecutor

            executor = ThreadPoolExecutor(1)
            loaded = asyncio.get_running_loop().run_in_executor(executor, self._load, name)
            executor.shutdown(wait=False)
            self._files[name] = await loaded
        return self._files[name]

    @cached_property
    def _paths(self) -> dict[str, Path]:
        paths = {path.name: path for path in sorted(self._folder.iterdir()) if path.suffix in MEDIA_TYPES}
        for name, file in self._packaged.items():
            package, _, path = file.partition("/")
            found = find_spec(package)
            assert found and found.submodule_search_locations, f"the package {package} is installed"
            paths[name] = Path(found.submodule_search_locations[0]) / path
        return paths

    @cached_property
    def _version(self) -> str:
        return sha256(b"".join(path.read_bytes() for path in self._paths.values())).hexdigest()[:16]

    def _load(self, name: str) -> File:
        path = self._paths[name]
        content = path.read_bytes()
        if path.suffix == ".html":
            content = content.replace(b'"files/', f'"{self._address}/{self._version}/'.encode())
        for before, after in self._replaced.items():
            content = content.replace(before, after)
        # As the module gzip does. Nothing else here imports it.
        compressor = zlib.compressobj(9, wbits=31)
        compressed = compressor.compress(content) + compressor.flush()
        # Weak: it stands for both forms.
        tag = f'W/"{sha256(content).hexdigest()[:16]}"'
        return File(content, compressed, tag, MEDIA_TYPES[path.suffix])


def _moved(request: Request) -> Response:
    """To the same page, with the slash at the end of its path or without it: what the page loads is beside it."""
    *_, folder, name = request.scope["path"].split("/")
    query = request.scope["query_string"].decode("latin-1")
    location = (f"{name}/" if name else f"../{folder}") + (f"?{query}" if query else "")
    headers = {"Location": location, "Cache-Control": "no-cache"}
    return Response(status_code=HTTPStatus.PERMANENT_REDIRECT, headers=headers)


def _has(tags: str, tag: str) -> bool:
    """Whether a header If-None-Match says that the client has what the tag stands for (RFC 9110, 13.1.2).

    A proxy may have made a strong tag of a weak one, which is the same here.
    """
    return tags.strip() == "*" or tag.removeprefix("W/") in tags


def _response(request: Request, file: File, kept: str, policy: Mapping[str, str]) -> Response:
    headers = {
        "Cache-Control": kept,
        "ETag": file.tag,
        "Vary": "Accept-Encoding",
        "Content-Security-Policy": "; ".join(f"{directive} {sources}" for directive, sources in policy.items()),
        "Referrer-Policy": "no-referrer",
    }
    received = edge.headers(request)
    if _has(received.get("if-none-match", ""), file.tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    content = file.content
    if negotiation.quality(received.get("accept-encoding", ""), "gzip") > 0:
        headers["Content-Encoding"] = "gzip"
        content = file.compressed
    return Response(content, headers=headers, media_type=file.media_type)
