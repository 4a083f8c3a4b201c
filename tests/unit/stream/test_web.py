"""The page's server: what it answers to the messages of a page, and what it refuses."""

import asyncio
import logging
import socket
import sys

import numpy as np
import pytest
import soundfile
from browser import find_chromium
from small_detector import detector

from wekws.errors import ConfigError, DataError
from wekws.stream import KeywordSpotter
from wekws.stream.web import BrowserStream, make_app, serve


@pytest.fixture
def with_client():
    """Run a coroutine function with a client of a server of a model."""
    pytest.importorskip("aiohttp")
    from aiohttp.test_utils import TestClient, TestServer

    def run(model, use):
        async def main():
            async with TestClient(TestServer(make_app(model))) as client:
                return await use(client)

        return asyncio.run(main())

    return run


def test_the_page_and_its_stream(model, audio, with_client):
    seen = []
    expected = KeywordSpotter(model, observer=seen.append).accept(audio)
    num_frames = len(seen)

    async def use(client):
        page = await client.get("/")
        assert page.status == 200 and "getUserMedia" in await page.text()
        messages = []
        async with client.ws_connect("/stream") as stream:
            messages.append(await stream.receive_json())
            await stream.send_json({"sample_rate_hz": 16000})
            for place in range(0, len(audio), 1600):
                await stream.send_bytes(audio[place : place + 1600].astype("<f4").tobytes())
            while sum(len(reply["confidence"]) for reply in messages[1:]) < num_frames:
                messages.append(await stream.receive_json())
        return messages

    greeting, *replies = with_client(model, use)
    assert greeting == {
        "keywords": [{"text": k.text, "threshold": k.threshold} for k in model.keywords],
        "hop_s": 0.03,
    }
    assert [d for r in replies for d in r["detections"]] == [vars(d) for d in expected]
    assert expected
    firsts = np.cumsum([0, *(len(r["confidence"]) for r in replies)])
    assert [r["first"] for r in replies] == firsts[:-1].tolist()
    np.testing.assert_allclose(
        np.concatenate([r["confidence"] for r in replies]),
        np.concatenate([frames.confidence for frames in seen]),
        atol=1e-4,
    )


def test_other_rates_are_resampled(model, audio):
    stream = BrowserStream(model)
    assert stream.reply('{"sample_rate_hz": 48000}') is None
    reply = stream.reply(np.repeat(audio, 3).astype("<f4").tobytes())
    assert len(reply["confidence"]) == pytest.approx(4 / 0.03, abs=6)


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([b"\0\0\0\0"], "samples before their rate"),
        (["{}"], "expected .*sample_rate_hz"),
        (["[" * 100_000], "expected .*sample_rate_hz"),
        (['{"sample_rate_hz": "16000"}'], "expected .*sample_rate_hz"),
        (['{"sample_rate_hz": 3}'], "sample rate 3 Hz"),
        (['{"sample_rate_hz": 16000}', b"\0\0\0"], "4 bytes"),
        (['{"sample_rate_hz": 44100}', np.float32([np.nan]).tobytes()], "NaN"),
        (['{"sample_rate_hz": 16000}', np.float32([1e30]).tobytes()], "from -1 to 1"),
    ],
)
def test_unusable_messages(model, messages, error):
    stream = BrowserStream(model)
    with pytest.raises(DataError, match=error):
        for message in messages:
            stream.reply(message)


def test_an_error_is_sent_and_ends_the_stream(model, with_client):
    async def use(client):
        async with client.ws_connect("/stream") as stream:
            await stream.receive_json()
            await stream.send_str("no JSON")
            error = await stream.receive_json()
            end = await stream.receive()
            return error, end.type.name

    error, end = with_client(model, use)
    assert "sample_rate_hz" in error["error"] and end == "CLOSE"


def test_a_page_that_breaks_the_protocol_is_no_error_of_the_server(model, with_client, caplog):
    """aiohttp closes the connection itself, so that no answer can be sent."""

    async def use(client):
        async with client.ws_connect("/stream") as stream:
            await stream.receive_json()
            await stream.send_bytes(bytes(2 << 20))
            return (await stream.receive()).type.name

    assert with_client(model, use) == "CLOSE"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://example.org"},
        {"Host": "example.org"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Host": "["},
    ],
)
def test_other_sites_are_refused(model, with_client, headers):
    async def use(client):
        return [(await client.get(path, headers=headers)).status for path in ("/", "/stream")]

    assert with_client(model, use) == [403, 403]


def test_the_page_is_announced_when_its_port_answers(model):
    pytest.importorskip("aiohttp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def connect(address):
        assert address == f"http://127.0.0.1:{port}"
        socket.create_connection(("127.0.0.1", port)).close()
        raise KeyboardInterrupt  # ends the server

    serve(model, port, connect)


def test_a_server_that_cannot_start_says_why(model, monkeypatch):
    pytest.importorskip("aiohttp")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        addresses = []
        with pytest.raises(ConfigError, match=f"--port {port}: .*give another one"):
            serve(model, port, addresses.append)
        assert addresses == []  # another program's page
    for number in (-1, 0, 65536, 99999):
        with pytest.raises(ConfigError, match=f"--port {number}: expected 1 to 65535"):
            serve(model, number, addresses.append)
    with pytest.raises(ConfigError, match="no threshold"):
        make_app(detector(model.network, threshold=None))
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ConfigError, match="pip install aiohttp"):
        make_app(model)


def test_the_page_in_chromium(model, audio, tmp_path):
    """A wav file is the microphone of Chromium; the page shows what the detector finds in it."""
    pytest.importorskip("aiohttp")
    playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")
    from aiohttp.test_utils import TestServer

    wav = tmp_path / "microphone.wav"
    soundfile.write(wav, audio, 16000, subtype="PCM_16")
    path = find_chromium()
    flags = [
        "--no-sandbox",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={wav}",
    ]

    problems = []

    async def main():
        async with TestServer(make_app(model)) as server, playwright.async_playwright() as tool:
            browser = await tool.chromium.launch(executable_path=path, args=flags)
            page = await browser.new_page()
            page.on("console", lambda message: problems.append(message.text))
            page.on("pageerror", lambda error: problems.append(str(error)))
            await page.goto(str(server.make_url("/")))
            await page.click("#button")
            await page.wait_for_selector("#rows tr", timeout=20_000)
            # One look at both: a detection between two looks would change one of them only.
            look = "['#rows', '#flash'].map(name => document.querySelector(name).innerText)"
            found = await page.evaluate(look)
            await browser.close()
            return found

    rows, flash = asyncio.run(main())
    assert problems == []
    assert flash in {"嗨小", "问问小"} and flash in rows
