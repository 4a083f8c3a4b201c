import errno
import hashlib
import http.server
import io
import re
import tarfile
import threading

import download_mobvoi
import pytest

from wekws.errors import ConfigError, DataError

AUDIO, RESOURCES = download_mobvoi.ARCHIVES


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; breaks off the answers named in `break_after` once; counts requests."""

    daemon_threads = True

    def __init__(self, files, has_range=True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.has_range = files, has_range
        self.break_after, self.requests = {}, []


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, with_body):
        name = self.path.lstrip("/")
        span = self.headers.get("Range")
        self.server.requests.append((self.command, name, span))
        if name not in self.server.files:
            return self.send_error(404)
        data = self.server.files[name]
        start = 0
        if span and self.server.has_range:
            start = int(re.fullmatch(r"bytes=(\d+)-", span)[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if with_body:
            self.wfile.write(data[start:][: self.server.break_after.pop(name, None)])


def _archive(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
    return stream.getvalue()


GOOD = {
    AUDIO: _archive({"mobvoi_hotword_dataset/a.wav": bytes(range(256)) * 40}),
    RESOURCES: _archive({"mobvoi_hotword_dataset_resources/p_train.json": b"[]"}),
}


@pytest.fixture
def serve():
    servers = []

    def start(files=GOOD, **options):
        server = Server(files, **options)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _download(server, out_dir, *more):
    url = f"http://127.0.0.1:{server.server_port}"
    arguments = ["--out_dir", str(out_dir), "--base_url", url, "--retry_pause_s", "0", *more]
    return download_mobvoi.main(arguments)


def test_downloads_once(serve, tmp_path, capsys):
    server = serve()
    assert _download(server, tmp_path) == 0
    assert (tmp_path / "mobvoi_hotword_dataset" / "a.wav").stat().st_size == 10240
    assert (tmp_path / "mobvoi_hotword_dataset_resources" / "p_train.json").exists()
    assert not (tmp_path / AUDIO).exists()
    before = len(server.requests)
    _download(server, tmp_path)
    assert len(server.requests) == before
    assert "nothing to do" in capsys.readouterr().out


def test_resumes_a_broken_transfer(serve, tmp_path):
    server = serve()
    server.break_after[AUDIO] = 100
    _download(server, tmp_path)
    spans = [span for command, name, span in server.requests if (command, name) == ("GET", AUDIO)]
    assert spans == [None, "bytes=100-"]
    assert (tmp_path / "mobvoi_hotword_dataset" / "a.wav").read_bytes() == bytes(range(256)) * 40


def test_goes_on_with_what_an_earlier_run_left(serve, tmp_path):
    (tmp_path / AUDIO).write_bytes(GOOD[AUDIO][:77])
    server = serve()
    _download(server, tmp_path)
    assert ("GET", AUDIO, "bytes=77-") in server.requests
    assert (tmp_path / "mobvoi_hotword_dataset" / "a.wav").exists()


def test_starts_anew_where_the_server_cannot_resume(serve, tmp_path):
    server = serve(has_range=False)
    server.break_after[AUDIO] = 100
    _download(server, tmp_path)
    assert (tmp_path / "mobvoi_hotword_dataset" / "a.wav").read_bytes() == bytes(range(256)) * 40


def test_gives_up_with_the_bytes_it_has(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(download_mobvoi, "NUM_TRIES", 1)
    server = serve()
    server.break_after[AUDIO] = 100
    with pytest.raises(DataError, match=rf"100 of {len(GOOD[AUDIO])} bytes after 1 tries"):
        _download(server, tmp_path)
    assert (tmp_path / AUDIO).stat().st_size == 100


def test_checksums(serve, tmp_path):
    server = serve()
    good = hashlib.md5(GOOD[AUDIO]).hexdigest()
    with pytest.raises(DataError, match=f"md5 {good}; expected {'0' * 32}"):
        _download(server, tmp_path, "--md5", f"{AUDIO}={'0' * 32}")
    assert not (tmp_path / AUDIO).exists() and not (tmp_path / "mobvoi_hotword_dataset").exists()
    assert _download(server, tmp_path, "--md5", f"{AUDIO}={good}") == 0
    with pytest.raises(ConfigError, match="NAME=MD5"):
        _download(server, tmp_path, "--md5", "other.tgz=12")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../evil.txt": b"x"}, "leads outside"),
        ({"mobvoi_hotword_dataset/../../evil.txt": b"x"}, "leads outside"),
        ({"/tmp/evil.txt": b"x"}, "leads outside"),
        ({"link": "/etc", "link/evil.txt": b"x"}, "is a link"),
    ],
)
def test_malicious_archives_are_refused(serve, tmp_path, members, message):
    out_dir = tmp_path / "deep" / "out"
    server = serve({**GOOD, AUDIO: _archive(members)})
    with pytest.raises(DataError, match=message):
        _download(server, out_dir)
    assert not list(tmp_path.rglob("evil.txt")) and not (out_dir / "link").exists()
    assert not (out_dir / f".{AUDIO}.complete").exists()


def test_damaged_archive(serve, tmp_path):
    server = serve({**GOOD, AUDIO: GOOD[AUDIO][:60]})
    with pytest.raises(DataError, match="cannot be unpacked"):
        _download(server, tmp_path)


def test_full_disk_is_noticed_before_the_first_byte(serve, tmp_path, monkeypatch):
    server = serve()
    monkeypatch.setattr(download_mobvoi, "MARGIN_BYTES", 1 << 60)
    with pytest.raises(DataError, match="GB needed"):
        _download(server, tmp_path)
    assert all(command == "HEAD" for command, _, _ in server.requests)


def test_wrong_address(serve, tmp_path):
    server = serve({})
    with pytest.raises(DataError, match="404.*--base_url"):
        _download(server, tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_one_flipped_bit_anywhere_is_found(tmp_path, share):
    """A bit in a file, in the end blocks of the tar, or in gzip's checksum behind them."""
    members = {f"mobvoi_hotword_dataset/{i}.wav": bytes(range(256)) * 8 for i in range(20)}
    content = bytearray(_archive(members))
    content[int(share * len(content))] ^= 4
    (tmp_path / "a.tgz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be unpacked"):
        download_mobvoi.unpack(tmp_path / "a.tgz", tmp_path / "out")


def test_an_archive_that_grows_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(download_mobvoi, "MARGIN_BYTES", 0)
    (tmp_path / "a.tgz").write_bytes(_archive({"a": bytes(1 << 20)}))
    with pytest.raises(DataError, match="unpacks to more than"):
        download_mobvoi.unpack(tmp_path / "a.tgz", tmp_path / "out")


def test_a_full_disk_does_not_cost_the_archive(tmp_path, monkeypatch):
    (tmp_path / "a.tgz").write_bytes(_archive({"a": b"x"}))

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    with pytest.raises(OSError, match="No space left"):
        download_mobvoi.unpack(tmp_path / "a.tgz", tmp_path / "out")
    assert (tmp_path / "a.tgz").exists()


@pytest.mark.parametrize("url", ["nonsense", "http://[", "ftp://127.0.0.1:1"])
def test_an_address_that_is_none(tmp_path, url):
    with pytest.raises(DataError, match="check --base_url"):
        download_mobvoi.main(["--out_dir", str(tmp_path), "--base_url", url])
