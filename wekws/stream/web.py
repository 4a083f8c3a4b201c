"""One page on this machine that sends the browser's microphone to a detector and shows the result.

The page (`page.html`) and the server talk over one WebSocket per stream:

1. server: ``{"keywords": [{"text", "threshold"}], "hop_s"}``
2. page: ``{"sample_rate_hz"}``, then samples as little-endian float32, in pieces of any size
3. server, when frames are complete: ``{"first", "confidence": [[...]], "detections": [...]}``, a
   row per frame with the confidence of each keyword; or ``{"error"}``, and the end of the stream.
"""

import contextlib
import json
from collections.abc import Callable
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from wekws.dataset.audio import unsupported_rate
from wekws.dataset.resample import Resampler
from wekws.errors import ConfigError, DataError
from wekws.stream.network import SpotterModel
from wekws.stream.spotter import KeywordSpotter, StreamFrames

HOST = "127.0.0.1"
_OWN_NAMES = (HOST, "localhost")
_MAX_MESSAGE_BYTES = 1 << 20
_MAX_PORT = 65535


def serve(model: SpotterModel, port: int, on_start: Callable[[str], None]) -> None:
    """Serve the page until the process is interrupted.

    on_start: called with the address of the page when it can be opened.
    Raises: ConfigError if aiohttp is not installed, or the port is in use or no port.
    """
    if not 1 <= port <= _MAX_PORT:
        raise ConfigError(f"--port {port}: expected 1 to {_MAX_PORT}")
    app, web = make_app(model), _aiohttp_web()

    def announce(_: str) -> None:
        """Take the place of aiohttp's print, which is called once the port is ours."""
        on_start(f"http://{HOST}:{port}")

    try:
        web.run_app(app, host=HOST, port=port, print=announce)
    except OSError as error:
        raise ConfigError(f"--port {port}: {error.strerror}; give another one") from None


def make_app(model: SpotterModel) -> Any:
    """Return the server as an ``aiohttp.web.Application``."""
    web = _aiohttp_web()
    KeywordSpotter(model)  # an unusable model fails here, not when the page is opened
    page = resources.files("wekws.stream").joinpath("page.html").read_text(encoding="utf-8")

    async def show_page(request: Any) -> Any:
        _require_own_name(request)
        return web.Response(text=page, content_type="text/html")

    async def run_stream(request: Any) -> Any:
        _require_own_name(request)
        socket = web.WebSocketResponse(max_msg_size=_MAX_MESSAGE_BYTES)
        await socket.prepare(request)
        with contextlib.suppress(ConnectionError):  # it is closed already
            await _answer(socket, model)
            await socket.close()
        return socket

    def _require_own_name(request: Any) -> None:
        if not _is_own_page(request.host, request.headers.get("Origin")):
            raise web.HTTPForbidden(text="only the page of this server may use it")

    app = web.Application()
    app.router.add_get("/", show_page)
    app.router.add_get("/stream", run_stream)
    return app


async def _answer(socket: Any, model: SpotterModel) -> None:
    """Answer the messages of a page until it leaves, or sends one that cannot be used."""
    await socket.send_json(_greeting(model), dumps=_dumps)
    stream = BrowserStream(model)
    async for message in socket:
        try:
            reply = stream.reply(message.data)
        except DataError as error:
            await socket.send_json({"error": str(error)}, dumps=_dumps)
            break
        if reply is not None:
            await socket.send_json(reply, dumps=_dumps)


def _is_own_page(host: str, origin: str | None) -> bool:
    """Return False for pages of other sites, and names of other sites that lead to this machine.

    host, origin: headers of the request; origin: None: it has none.
    """
    try:
        is_own_name = urlsplit(f"//{host}").hostname in _OWN_NAMES
        return is_own_name and (origin is None or urlsplit(origin).netloc == host)
    except ValueError:  # no address, such as http://[
        return False


class BrowserStream:
    """The stream of one page."""

    def __init__(self, model: SpotterModel) -> None:
        """Wait for the sample rate."""
        self._frames: list[StreamFrames] = []
        self._spotter = KeywordSpotter(model, observer=self._frames.append)
        self._rate_hz = model.front_end.sample_rate_hz
        self._resampler: Resampler | None = None

    def reply(self, message: str | bytes) -> dict[str, Any] | None:
        """Take a message of the page and return the answer, None if there is none yet.

        Raises: DataError for a message that the page does not send, and for unusable samples.
        """
        if isinstance(message, str):
            self._resampler = Resampler(self._source_rate(message), self._rate_hz)
            return None
        if self._resampler is None:
            raise DataError("samples before their rate")
        if not isinstance(message, bytes) or len(message) % 4:
            raise DataError("expected samples of 4 bytes")
        samples = np.frombuffer(message, "<f4").astype(np.float32, copy=False)
        if not np.isfinite(samples).all():
            raise DataError("samples that are NaN or infinite")
        detections = self._spotter.accept(self._resampler(samples))
        if not self._frames:
            return None
        confidence = np.concatenate([frames.confidence for frames in self._frames])
        first = self._frames[0].first
        self._frames.clear()
        return {
            "first": first,
            "confidence": np.round(confidence.astype(np.float64), 4).tolist(),
            "detections": [vars(detection) for detection in detections],
        }

    def _source_rate(self, message: str) -> int:
        try:
            rate_hz = json.loads(message)["sample_rate_hz"]
        except (ValueError, KeyError, TypeError, RecursionError):
            rate_hz = None
        if not isinstance(rate_hz, int):
            raise DataError('expected {"sample_rate_hz": number}')
        if found := unsupported_rate(rate_hz, self._rate_hz):
            raise DataError(found)
        return rate_hz


def _greeting(model: SpotterModel) -> dict[str, Any]:
    keywords = [{"text": k.text, "threshold": k.threshold} for k in model.keywords]
    return {"keywords": keywords, "hop_s": model.front_end.hop_s}


def _dumps(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False)


def _aiohttp_web() -> Any:
    try:
        from aiohttp import web
    except ImportError:
        raise ConfigError("--web needs aiohttp: pip install aiohttp") from None
    return web
