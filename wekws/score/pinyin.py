"""Pinyin with tone marks, for readers and fonts without Chinese."""

import re
from itertools import groupby

_CJK = re.compile(r"[\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def has_cjk(text: str) -> bool:
    """Say whether the text contains a Chinese character."""
    return _CJK.search(text) is not None


def pinyin(text: str) -> str:
    """Return the text with Chinese runs as pinyin: ``嗨小问 v2`` becomes ``hāi xiǎo wèn v2``."""
    if not has_cjk(text):
        return text
    from pypinyin import Style, lazy_pinyin  # its tables take half a second to load

    pieces = []
    for is_chinese, run in groupby(text, has_cjk):
        piece = "".join(run)
        if is_chinese:
            piece = f" {' '.join(lazy_pinyin(piece, style=Style.TONE))} "
        pieces.append(piece)
    return " ".join("".join(pieces).split())


def with_pinyin(text: str) -> str:
    """Return the text, followed by its pinyin if it contains Chinese."""
    return f"{text} ({pinyin(text)})" if has_cjk(text) else text
