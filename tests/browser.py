"""The browser that tests of pages run in."""

import shutil

import pytest


def find_chromium() -> str:
    """Return the path of Chromium; without one the test is skipped."""
    for name in ("chromium", "chromium-browser", "chrome", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
