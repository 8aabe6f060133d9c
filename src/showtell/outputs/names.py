r"""How names of files are written, since they may hold any byte but NUL and "/".

Two rules. In structured formats a byte that is not UTF-8 becomes `\xff` and everything else stays, because the format
itself quotes line ends and the like; JSON then has the true bytes as well, in base64. In lines of text whatever could
break or disguise a line is escaped, and so is the backslash, so that every name can be told from every other.
"""

from __future__ import annotations

import os
import re
import unicodedata

_SHORT = {"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
_JOINERS = "\u200c\u200d"  # format characters that words and emoji are made with


def readable(name: str) -> str:
    r"""Returns the name as text that can be encoded: bytes that are not UTF-8 as `\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def one_line(text: str, *, restorable: bool = True) -> str:
    r"""Returns a name, or a sentence with names in it, for a line of text: control characters, line separators and what
    turns the direction of writing as `\n`, `\x1b` or `\u202e`, bytes that are not UTF-8 as `\xff`.

    Args:
        text: the name or the sentence.
        restorable: whether a backslash becomes two, so that every name can be told from every other. On Windows, where
            it stands between folders and no name has control characters, it stays single in any case.
    """
    escaped = (one if one == "\\" and not restorable else _escape(one) for one in text)
    return "".join(escaped)


def restore(line: str) -> str:
    """Returns the name that `one_line` wrote."""
    signs = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}

    def undo(match: re.Match[str]) -> str:
        code = match[1]
        if code in signs:
            return signs[code]
        value = int(code[1:], 16)
        return chr(value) if code[0] != "x" or value < 0x80 else chr(0xDC00 + value)

    return re.sub(r"\\(\\|n|r|t|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})", undo, line)


def _escape(character: str) -> str:
    if character == "\\" and os.sep == "\\":
        return character
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in _JOINERS:
        return character
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
