import sys
from pathlib import Path

import pytest

LOCAL_DIR = Path(__file__).parents[3] / "examples" / "hi_xiaowen" / "local"
sys.path.insert(0, str(LOCAL_DIR))


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory):
    """The tiny Mandarin corpus, made once."""
    pytest.importorskip("espeakng_loader")
    import synthesise

    out_dir = tmp_path_factory.mktemp("tiny")
    assert synthesise.main(["--size", "tiny", "--out_dir", str(out_dir), "--num_workers", "2"]) == 0
    return out_dir
