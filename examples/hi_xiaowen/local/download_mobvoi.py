"""Download and unpack Mobvoi hotwords (SLR87): resumable, checked, safe to run again.

We know of no checksums published for these files. Without --md5 a file is checked against the
length that the server announces and by unpacking all of it (gzip carries a checksum of its own).
"""

import argparse
import hashlib
import http.client
import logging
import shutil
import sys
import tarfile
import time
import urllib.request
import zlib
from pathlib import Path, PurePosixPath

from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path
from wekws.log import run

logger = logging.getLogger(__name__)

BASE_URL = "https://www.openslr.org/resources/87"
ARCHIVES = ("mobvoi_hotword_dataset.tgz", "mobvoi_hotword_dataset_resources.tgz")
BLOCK = 1 << 20
UNPACKED_RATIO = 1.5  # audio shrinks little under gzip
MARGIN_BYTES = 1 << 28
NUM_TRIES = 5
TIMEOUT_S = 60


def remote_size(url):
    """Length of a remote file in bytes.

    Raises: DataError when the server cannot be asked or does not say: neither the disk nor the
        file could be checked then.
    """
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            length = response.headers.get("Content-Length")
    except (OSError, ValueError) as error:
        raise DataError(f"{url}: {error}; is --base_url right?") from error
    if length is None:
        raise DataError(f"{url}: the server announces no Content-Length")
    return int(length)


def check_disk(directory, needed):
    """Refuse to start what cannot end.

    Raises: DataError with needed and free space.
    """
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise DataError(
            f"{directory}: {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB needed to download "
            "and unpack; free some space or name another --out_dir"
        )


def fetch(url, path, size):
    """Add to `path` what is missing of `url`; starts anew where a server cannot resume."""
    have = path.stat().st_size if path.exists() else 0
    if have > size:  # the remains of another file
        path.unlink()
        have = 0
    if have == size:
        return
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        resumed = have > 0 and _range_start(response) == have
        logger.info("%s: %s at byte %d", url, "resumed" if resumed else "started", have * resumed)
        with open(path, "ab" if resumed else "wb") as stream:
            shutil.copyfileobj(response, stream, BLOCK)


def _range_start(response):
    """First byte of a partial answer, None if the answer is the whole file."""
    if response.status != 206:
        return None
    # Content-Range: bytes 100-199/200
    return int(response.headers["Content-Range"].split()[1].split("-")[0])


def download(url, path, size, md5, pause_s):
    """Fetch a file completely, over several tries, and check it.

    Raises: DataError when it stays incomplete or its checksum is another.
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
            f"{url}: {have} of {size} bytes after {NUM_TRIES} tries; run again to go on from there"
        )
    if md5 and file_md5(path) != md5.lower():
        found = file_md5(path)
        path.unlink()
        raise DataError(f"{path}: md5 {found}; expected {md5}; deleted, run again")


def file_md5(path):
    """MD5 of a file, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def check_member(member, archive):
    """Refuse a member that could land outside the target folder or is no plain file or folder.

    Raises: DataError that names archive and member.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{archive}: member '{member.name}' leads outside the target folder")
    if not (member.isfile() or member.isdir()):
        raise DataError(f"{archive}: member '{member.name}' is a link or device; none expected")


def unpack(archive, out_dir):
    """Unpack a .tgz; every member passes our check and tarfile's own before it is written.

    Raises: DataError when the archive is damaged or a member is not safe.
    """

    def is_safe(member, target):
        check_member(member, archive)
        return tarfile.data_filter(member, target)

    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(out_dir, filter=is_safe)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}); delete it, run again") from error


def parse_checksums(entries):
    """`NAME=MD5` options as a dict.

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


def parse_arguments(argv):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out_dir", type=Path, required=True)
    parser.add_argument("--base_url", default=BASE_URL)
    parser.add_argument("--md5", nargs="*", default=[], metavar="NAME=MD5")
    parser.add_argument("--keep_archives", action="store_true")
    parser.add_argument("--retry_pause_s", type=float, default=5.0)
    return parser.parse_args(argv)


def main(argv=None):
    """Download and unpack what is not there yet."""
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
