"""Download and unpack Mobvoi hotwords (SLR87): resumable, checked, safe to run again.

No checksums are published for these files, as far as we know. Without --md5 a file is checked in
two ways: against the length that the server announces, and by unpacking all of it (gzip has its
own checksum).
"""

import argparse
import gzip
import hashlib
import http.client
import logging
import shutil
import sys
import tarfile
import time
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path
from wekws.log import run

logger = logging.getLogger(__name__)

BASE_URL = "https://www.openslr.org/resources/87"
ARCHIVES = ("mobvoi_hotword_dataset.tgz", "mobvoi_hotword_dataset_resources.tgz")
BLOCK = 1 << 20
UNPACKED_RATIO = 1.5  # unpacked size over archive size: gzip compresses audio little
MAX_UNPACKED_RATIO = 10  # an archive of audio that grows more than this is none
MARGIN_BYTES = 1 << 28
NUM_TRIES = 5
TIMEOUT_S = 60


def remote_size(url: str) -> int:
    """Length of a remote file in bytes.

    Raises: DataError when the server does not answer or announces no length: then neither the free
        disk space nor the file could be checked.
    """
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            length = response.headers.get("Content-Length")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DataError(f"{url}: {error}; check --base_url") from error
    if length is None:
        raise DataError(f"{url}: the server announces no Content-Length")
    return int(length)


def check_disk(directory: Path, needed: int) -> None:
    """Check that `needed` bytes are free.

    Raises: DataError with needed and free space.
    """
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise DataError(
            f"{directory}: {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB needed to download "
            "and unpack; free some space or name another --out_dir"
        )


def fetch(url: str, path: Path, size: int) -> None:
    """Download the missing part of a file; from the start where the server cannot resume."""
    have = path.stat().st_size if path.exists() else 0
    if have > size:  # left over from another file
        path.unlink()
        have = 0
    if have == size:
        return
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        resumed = have > 0 and _range_start(response) == have
        if resumed:
            logger.info("%s: download resumed at byte %d of %d", url, have, size)
        else:
            logger.info("%s: download of %d bytes started", url, size)
        with open(path, "ab" if resumed else "wb") as stream:
            shutil.copyfileobj(response, stream, BLOCK)


def _range_start(response: http.client.HTTPResponse) -> int | None:
    """First byte of a partial answer, None if the answer is the whole file."""
    if response.status != 206:
        return None
    # Content-Range: bytes 100-199/200
    return int(response.headers["Content-Range"].split()[1].split("-")[0])


def download(url: str, path: Path, size: int, md5: str | None, pause_s: float) -> None:
    """Download a whole file, with up to NUM_TRIES tries, and check it.

    Raises: DataError when the file stays incomplete or its checksum differs.
    """
    for attempt in range(NUM_TRIES):
        try:
            fetch(url, path, size)
        except (OSError, http.client.HTTPException) as error:
            logger.warning("%s: %s (try %d of %d)", url, error, attempt + 1, NUM_TRIES)
        have = path.stat().st_size if path.exists() else 0
        if have == size:
            break
        time.sleep(pause_s)
    else:
        raise DataError(
            f"{url}: {have} of {size} bytes after {NUM_TRIES} tries; run again to resume"
        )
    if md5 and file_md5(path) != md5.lower():
        found = file_md5(path)
        path.unlink()
        raise DataError(f"{path}: md5 {found}; expected {md5}; deleted, run again")


def file_md5(path: Path) -> str:
    """MD5 of a file, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def check_member(member: tarfile.TarInfo, archive: Path) -> None:
    """Refuse a member that would be written outside the target folder, a link or a device.

    Raises: DataError that names archive and member.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{archive}: member '{member.name}' leads outside the target folder")
    if not (member.isfile() or member.isdir()):
        raise DataError(f"{archive}: member '{member.name}' is a link or device; none expected")


def unpack(archive: Path, out_dir: Path) -> None:
    """Unpack a .tgz; every member passes our check and tarfile's own before it is written.

    The archive is read to its last byte, where gzip keeps the length and checksum of its content;
    tarfile alone stops before them.
    Raises: DataError when the archive is damaged, a member is not safe, or they are too large
        together; OSError when the disk cannot be written.
    """
    limit = archive.stat().st_size * MAX_UNPACKED_RATIO + MARGIN_BYTES
    unpacked = 0

    def checked(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo:
        nonlocal unpacked
        check_member(member, archive)
        unpacked += member.size
        if unpacked > limit:
            raise DataError(f"{archive}: unpacks to more than {limit / 1e9:.1f} GB; expected audio")
        return tarfile.data_filter(member, target)

    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|") as tar:
                tar.extractall(out_dir, filter=checked)
            while stream.read(BLOCK):
                pass
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}); delete it, run again") from error


def parse_checksums(entries: Sequence[str]) -> dict[str, str]:
    """Parse `NAME=MD5` options: archive name -> checksum.

    Raises: ConfigError for a name that is not one of the archives.
    """
    checksums = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        if name not in ARCHIVES or len(value) != 32:
            raise ConfigError(
                f"--md5 {entry}: expected NAME=MD5, NAME one of {', '.join(ARCHIVES)}"
            )
        checksums[name] = value
    return checksums


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out_dir", type=Path, required=True, help="folder for the archives and their contents"
    )
    parser.add_argument(
        "--base_url", default=BASE_URL, help="address of the archives (default: %(default)s)"
    )
    parser.add_argument(
        "--md5", nargs="*", default=[], metavar="NAME=MD5", help="expected checksum of an archive"
    )
    parser.add_argument(
        "--keep_archives", action="store_true", help="keep the archives after unpacking"
    )
    parser.add_argument(
        "--retry_pause_s",
        type=float,
        default=5.0,
        help="seconds to wait before a download is tried again (default: %(default)s)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Download and unpack the archives that are not unpacked yet."""
    arguments = parse_arguments(argv)
    checksums = parse_checksums(arguments.md5)
    out_dir = arguments.out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    missing = [name for name in ARCHIVES if not (out_dir / f".{name}.complete").exists()]
    urls = {name: f"{arguments.base_url.rstrip('/')}/{name}" for name in missing}
    sizes = {name: remote_size(url) for name, url in urls.items()}
    have = sum((out_dir / n).stat().st_size for n in missing if (out_dir / n).exists())
    if missing:
        total = sum(sizes.values())
        check_disk(out_dir, int(total * (1 + UNPACKED_RATIO)) - have + MARGIN_BYTES)
    for name in missing:
        archive = out_dir / name
        download(urls[name], archive, sizes[name], checksums.get(name), arguments.retry_pause_s)
        checked = "md5" if name in checksums else "length"
        unpack(archive, out_dir)
        with atomic_path(out_dir / f".{name}.complete") as temporary:
            temporary.write_text(f"{file_md5(archive)} {name}\n", encoding="utf-8")
        print(f"{name}: unpacked, checked by {checked}; md5 {file_md5(archive)}")
        if not arguments.keep_archives:
            archive.unlink()
    print(f"{out_dir}: complete" + ("" if missing else ", nothing to do"))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
