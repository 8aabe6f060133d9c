"""coco-caption's tokens without Java.

Published captioning scores are computed on the tokens of Stanford's `PTBTokenizer` (CoreNLP 3.4.1, options
`-preserveLines -lowerCase`), from which coco-caption then drops a list of punctuation marks. `tokenize` gives the
same tokens from a few dozen regular expressions, fitted to the observed behaviour of that program: single
characters, all short strings over several alphabets, and mutated captions were run through both.

How it works. Every character is first replaced by a representative of its class (all non-ASCII letters behave
alike, and so on), one for one, so that rules stay short and offsets stay valid. At each place the rule with the
longest match wins, the earlier one on a tie; what a rule looked ahead at counts as matched, as in the generated
scanner that the Java program is. Most captions have no markup, telephone numbers and the like that reach over
spaces; then each word is scanned alone and its tokens are remembered.

Quirks of the original that are kept because scores depend on them: brackets come out as `-lrb-`, `-rsb-`, ... and
are *not* dropped (coco-caption's list has them in capitals); `!!` and `?!` are not dropped, `!` is; markup such as
`<start>` stays one token; what the original cannot tokenise (emoji, control characters) vanishes; `£` becomes `#`.

Known differences from the Java program. They show in 1 to 8 of 60,000 captions with random damage, in about 1 of
2,000 random strings of punctuation, letters and digits, and in none of 43,000 captions that people wrote:

- Line breaks inside a caption (`\\r`, vertical tab, form feed, U+2028, U+2029) are white space here. coco-caption
  replaces only `\\n`; with the others its captions slip out of step with their images.
- Each caption is tokenised alone. Java reads all captions as one text, so that an open markup tag, or the single
  letter or the digits at the end of one line, may be read together with the start of the next.
- Soft hyphens next to hyphens, underscores and digits; addresses, host names and URLs with unusual characters or
  more than nine labels; compounds of abbreviations with words like `o'clock` (`St.-o'clock`): some are cut elsewhere.
- Half of a surrogate pair, which Java cannot be given, is dropped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import chain

COCO_PUNCTUATION = frozenset(
    ("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";")
)

# --- Characters ------------------------------------------------------------------------------------------------------
# The Java program knows the letters of Unicode 6; these ranges hold the younger ones, which it drops.
_YOUNGER_LETTERS = (
    "37f 528-52f 560 588 5ef 860-88e 8a1 8ad-8c9 978 980 9fc af9 c34 c5a-c5d c80 cdd d04 d54-d5f de6-def e86 "
    "e89 e8c e8e-e93 e98 ea0 ea8-ea9 eac 13f5-13fd 16f1-16f8 170d 171f 1878 191d-191e 19b0-19c0 19c8-19c9 1b4c "
    "1c80-1cbf 1cf2-1cf3 1cfa 2c2f 2c5f 312e-312f 31bb-31bf 4db6-4dbf 9fcd-9fff a698-a69d a78f a794-a79f "
    "a7ab-a7f7 a8fd-a8fe a9e0-a9fe aa7e-aa7f ab30-abbf"
)
# Parts of words that are no letters: combining accents, vowel signs.
_MARKS = (
    "2c2-2c5 2d2-2df 2e5-2eb 2ed 2ef-36f 375 378-379 384-385 3f6 483-487 55a-55f 591-5bd 5bf 5c1-5c2 5c4-5c5 5c7 "
    "615-61a 64b-65e 670 6d6-6e4 6e7-6ed 6fd-6fe 70f 711 730-74c 7a6-7b0 7eb-7f3 900-903 93c 93e-94e 951-955 "
    "962-963 981-983 9bc 9be-9c4 9c7-9c8 9cb-9cd 9d7 9e2-9e3 a01-a03 a3c a3e-a4f a81-a83 abc abe-acf b82 bbe-bc2 "
    "bc6-bc8 bca-bcd c01-c03 c3e-c56 d3e-d44 d46-d48 e31 e34-e3a e47-e4e eb1 eb4-ebc ec8-ecd"
)
# Each of these is a token of its own.
_SYMBOLS = (
    "a1 a5-a9 ac ae-b1 b4 b6-b8 bf d7 f7 37e 387 589 5be 5c0 5c3 5c6 5f3-5f4 600-603 606-60c 614 61b 61e-61f 66a "
    "66d 6d4 700-70d 7f6-7f8 964-965 e3f e4f 1fbd 2016-2017 2020-2023 2030-2038 203b 203e-2042 207a-207e "
    "208a-208e 20a4 2100-2101 2103-2106 2108-2109 2114 2116-2118 211e-2123 2125 2127 2129 212e 213a-213b "
    "2140-2144 214a-214d 214f 2155-215e 2190-2bff 3001-3002 3012 30fb ff01-ff0f ff1a-ff20 ff3b-ff40 ff5b-ff65 "
    "ffe0-ffe1 ffe5-ffe6"
)
# Non-ASCII characters that rules name: quotes, dashes, currencies, fractions, also where Windows-1252 has them.
_NAMED = "\x80\x85\x91\x92\x93\x94\x96\x97\xa0¢£¤«\xad²³¹»¼½¾\u058a\u2010\u2011–—―‘’‚‛“”„‟…‹›⁄⁰⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉₠€⅓⅔٫٬"
_LETTER, _DIGIT, _MARK, _SYMBOL, _DROPPED, _SPACE = "é", "٣", "\u0301", "§", "\0", "\t"


def _code_points(ranges: str) -> frozenset[int]:
    points: set[int] = set()
    for part in ranges.split():
        first, _, last = part.partition("-")
        points.update(range(int(first, 16), int(last or first, 16) + 1))
    return frozenset(points)


class _Shapes(dict[int, str]):
    """Code point -> the representative of its class, found when first asked for; made for `str.translate`."""

    def __init__(self) -> None:
        super().__init__({ord(character): character for character in _NAMED})
        for point in range(128):
            self[point] = chr(point) if 32 <= point < 127 else _DROPPED
        for point in (*b"\t\n\v\f\r", 0x2028, 0x2029, 0x3000, *range(0x2000, 0x200B)):
            self[point] = _SPACE
        self._classes = (
            (_DROPPED, _code_points(_YOUNGER_LETTERS)),
            (_MARK, _code_points(_MARKS)),
            (_SYMBOL, _code_points(_SYMBOLS)),
            (_LETTER, frozenset((0x1885, 0x1886))),  # letters then, marks now
        )

    def __missing__(self, point: int) -> str:
        shape = next((shape for shape, points in self._classes if point in points), None)
        if shape is None:
            category = unicodedata.category(chr(point))
            if point > 0xFFFF:
                shape = _DROPPED
            elif category == "Nd":
                shape = _DIGIT
            else:
                shape = _LETTER if category.startswith("L") else _DROPPED
        self[point] = shape
        return shape


_SHAPES = _Shapes()

# --- Pieces of rules -------------------------------------------------------------------------------------------------
_BLANK = r"[ \t\xa0]"
_L = "A-Za-zé"
_D = "0-9٣"
_AN = f"[{_L}{_D}]"
_ACCENTED = "&[aeiou](?:acute|grave|uml);"
_WORD = rf"(?:[{_L}\u0301\xad]|{_ACCENTED})(?:[{_L}{_D}\u0301\xad]|{_ACCENTED})*"
_APOSTROPHE = r"(?:['\x92’]|&apos;)"
_QUOTE = r"(?:['`\x91\x92‘’‛]|&apos;)"
_HYPHEN = r"[-\u058a\u2010\u2011]"
_NUMBER = rf"(?:[{_D}]*(?:[.:,\xad\u066b\u066c][{_D}]+)+|[{_D}]+)"
_PART = rf"(?:[dlo]{_QUOTE}{_AN})?{_AN}(?:{_AN}|(?<![{_D}])\xad)*"
_INITIALS = r"[A-Za-z](?:\.[A-Za-z])+\."
_COMPOUND = rf"{_PART}(?:_{_PART}|{_HYPHEN}(?:{_INITIALS}|{_PART}))*"
_POINTED = rf"[A-Za-z0-9][A-Za-z0-9.,]*(?:{_HYPHEN}(?:{_INITIALS}|[A-Za-z0-9]+))+"
_PATH = r"""[^ \t\xa0"<>|(){}]+[^ \t\xa0"<>|.!?(){},-]"""
_HOST = r"(?-i:[^ \t\xa0\0A-Z\"$'(),./0-9:;<=>?@\[\\\]^_`{|}!-]){1,63}\."
_DOMAIN = rf"(?:{_HOST}){{1,9}}(?:com|net|org|edu)(?:/{_PATH})?"
_SLASHED = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"


def _any(words: str, *, capital: bool = False) -> str:
    """Returns a pattern for any of the words; with `capital`, only when written with a capital first letter."""
    return "(?:" + "|".join(f"(?-i:{w[0].upper()}){w[1:]}" if capital else w for w in words.split()) + ")"


# Abbreviations keep their full stop. Those of the first list may end a sentence.
_FINAL_ABBREVIATION = _any(
    r"al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb fla fri "
    r"ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn ph\.d plc "
    r"ppte ppty pte ptes pty ptys rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo"
)
_CAPITAL_ABBREVIATION = _any("az la pa ark del ill ore tex mass miss wash", capital=True)
_TITLE = _any(
    "adj adm adv alex asst atty attys assoc ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft gen "
    "gov govs hon insp invt jos lieut lt maj messrs mfg mlle mme mr mrs ms msgr mt mtg natl pfc ph pres prof profs pvt "
    "rep reps rev sen sens sfc sgt spc st ste supt treas vs wm"
)
_BEFORE_NUMBER = _any("art ca fig figs no nos op pp prop")
# A single letter keeps its full stop, as in "J. Smith", unless one of these follows: "vitamin A. The".
_STARTER = _any(
    "A About According After An As At But Earlier He Her Here However If In It Last Many More Now Once One Other Our "
    "She Since So Some Such That The Their Then There These They This We What When While Yet You",
    capital=True,
)
_FILE_TYPE = _any(
    "bat bmp c cgi class cpp dll docx? exe gif gz h html? jar java jpe?g mov mp3 pdf php pl png ppt ps py sql tar txt "
    "wav x xml zip"
)

_MARKUP_RULE = (
    rf"""<(?:/{_NAME} *|{_NAME}(?: +{_NAME}(?: *= *(?:"[^"]*"|'[^']*'))?)* */? *|[!?][A-Za-z-][^>]*)>"""
)

# --- Rules -----------------------------------------------------------------------------------------------------------
# Where a rule has a group `t`, that is the token, and the rest of the match is what it looked ahead at.
_WORD_RULES = (
    "(?P<t>can)not",
    "(?P<t>gon|wan)na",
    "(?P<t>got)ta",
    "(?P<t>lem|gim)me",
    f"d{_QUOTE}ye",
    f"(?P<t>y{_QUOTE})all",
    rf"(?P<t>{_WORD}(?:[.!?]{_WORD})*){_APOSTROPHE}(?:[dms]|re|ve|ll)",
    rf"(?P<t>[A-Za-z\xad]*[A-MO-Z\xad])n{_QUOTE}t",
    f"n{_QUOTE}t",
    _WORD,
    f"{_AN}+",
    r"[A-Za-z]\.",
    rf"(?P<t>[A-Za-z])\.{_BLANK}+(?:{_STARTER}{_BLANK}|{_STARTER}(?<! A)\.{_BLANK}(?!\Z)|M[rs]\.{_BLANK})",
    rf"(?P<t>[A-Za-z])\.{_BLANK}+{_MARKUP_RULE}{_BLANK}",
    _INITIALS,
    rf"{_TITLE}\.",
    rf"{_BEFORE_NUMBER}\.(?={_BLANK}?[{_D}])",
    f"{_WORD}(?:[.!?]{_WORD})+",
    f"(?P<t>{_FINAL_ABBREVIATION}\\.|{_CAPITAL_ABBREVIATION}\\.)..?",
    "(?-i:[A-Z]+(?:(?:[&+]|&amp;)[A-Z]+)+)",
    _COMPOUND,
    rf"{_COMPOUND}\.(?=[,:;])",
    _POINTED,
    rf"{_POINTED}\.(?=[,:;])",
    rf"{_AN}[{_L}{_D}\u0301]*\.(?=[,:;])",
    rf"{_WORD}(?:[.!?]{_WORD})+\.(?=[,:;])",
    "x_[-x^=~<>']",
    rf"{_SLASHED}(?:\\?/{_SLASHED}){{1,2}}",
    f"(?-i:[A-HJ-XZn]){_QUOTE}[{_L}]{{2,}}",
    f"[dl]{_APOSTROPHE}|[jy]{_APOSTROPHE}(?=[A-Za-z])",
    r"[cf]#|c\+\+",
    f"[{_L}]+[aeiouy]{_QUOTE}(?-i:[aeiouA-Z])[{_L}]*",
    f"(?:o{_QUOTE}clock|c{_QUOTE}mon|nor{_QUOTE}easter|n?e{_QUOTE}er|ev{_QUOTE}ry|li{_QUOTE}l|nat{_QUOTE}l)",
    f"(?:s{_QUOTE}mores|(?:ol|somethin|dunkin){_APOSTROPHE}|c{_QUOTE}est)",
    rf"{_AN}+(?:\.{_AN}+)*\.{_FILE_TYPE}(?={_BLANK}|[.,])",
    f"https?://{_PATH}",
    _DOMAIN,
    rf"""www\.(?:[^ \t\xa0\0"`<>|.!?(){{}},]+\.)+[A-Za-z]{{2,4}}(?:/{_PATH})?""",
    r"(?-i:[A-Z]+)\$",
    _NUMBER,
    r"[0-9]{1,2}[-/][0-9]{1,2}[-/][0-9]{2,4}",
    rf"(?:[{_D}]{{1,4}}[- \xa0])?[{_D}]{{1,4}}(?:\\?/|⁄)[{_D}]{{1,4}}",
    r"(?:[0-9]{2,4}[- ])?[0-9]{2,4}[- .][0-9]{3,4}[- .]?[0-9]{3,5}",
)
_OTHER_RULES = (
    f"(?P<t>{_APOSTROPHE}(?:[dms]|re|ve|ll))[^A-Za-z]",
    r"[\x92’](?:[dms]|re|ve|ll)",
    "(?P<t>'t)(?:is|was)",
    f"(?:{_APOSTROPHE}em|'cause|'till?|{_APOSTROPHE}n{_APOSTROPHE}?)",
    f"{_APOSTROPHE}[0-9]0s",
    f"{_APOSTROPHE}[0-9][0-9](?={_BLANK})",
    r"(?P<t>')[A-Za-z][^ \t\xa0'’]",
    "[`‘’‛“”„‟‚‹›«»\x91\x92\x93\x94]{1,2}",
    "''",
    f"[+-]{_NUMBER}",
    _NUMBER,
    _WORD,
    r"(?:\([0-9]{2,3}\) ?|\+[0-9]{2,4}[- ](?:[0-9]{2,4}[- ])?)[0-9]{3,4}[- ]?[0-9]{3,5}",
    r"[<>]?[:;=](?:[-'*]|(?-i:o))?(?:[()@|\\{\[\]dp]|(?-i:O))(?![A-Za-z0-9])",
    "[-x^=~<>']_[-x^=~<>']",
    r"\([-x^=~<>'](?:[_.]?[-x^=~<>']|-['`x^=~<>])\)",
    _DOMAIN,
    "@[A-Za-z_][A-Za-z_0-9]*",
    "[²³¹⁰⁴-⁹]{2,}|[₀-₉]{2,}",
    rf"#[{_L}\u0301\xad]+",
    "&(?:amp|lt|gt|quot|apos|nbsp|[nm]dash|md|ht|tl|ur|lr|qc|ql|qr|odq|cdq|#[0-9]+);",
    r"[!?]{2,}|\*{2,}|_{2,}|@{2,}|#{2,}|<<|>>|\.{3,}|\. \. \.|-{5,}|-{2,4}|\\\*",
    ".",
)
_ADDRESS_RULE = (
    r"""<?[A-Za-z0-9][^ \t\xa0"<>|(){}]*@(?:[^ \t\xa0"<>|(){}.][^ \t\xa0"<>|(){}]*)?[^ \t\xa0"<>|(){}.]>?"""
)


def _compile(rules: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(rule, re.IGNORECASE | re.ASCII | re.DOTALL) for rule in rules)


_AT_WORD, _ELSEWHERE = _compile(_WORD_RULES), _compile(_OTHER_RULES)
_MARKUP, _ADDRESS = _compile((_MARKUP_RULE,)), _compile((_ADDRESS_RULE,))

# --- How tokens are written; None: dropped, as coco-caption's list of punctuation has it -----------------------------
_WRITTEN: dict[str, str | None] = {
    **dict.fromkeys(COCO_PUNCTUATION),
    **dict.fromkeys('"\x85\x91\x92\x93\x94\x96\x97\xad«»‘’‛“”‹›–—―…\u058a\u2010\u2011٫٬'),
    **dict.fromkeys(("---", "----", ". . .", "&quot;", "&apos;", "&nbsp;", "&mdash;", "&ndash;", "&md;")),
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">", "¢": "cents", "£": "#"},
    **dict.fromkeys("\x80¤₠€", "$"),
}
_CONTRACTION = re.compile(f"{_APOSTROPHE}(?:[dms]|re|ve|ll)|n{_QUOTE}t", re.IGNORECASE)
_QUOTES = re.compile("[`‘’‛“”„‟‚‹›«»\x91\x92\x93\x94]+")
_LATEX_QUOTES = str.maketrans(
    {
        **dict.fromkeys("‘‛‹\x91", "`"),
        **dict.fromkeys("’›\x92", "'"),
        **dict.fromkeys("“«\x93", "``"),
        **dict.fromkeys("”»\x94", "''"),
    }
)
_VERBATIM = re.compile("[@#<:]")  # in markup, addresses, URLs and tags soft hyphens and entities are kept


def _write(token: str) -> str | None:
    """Returns how a token is written, or None where it is dropped."""
    lower = token.lower()
    if lower in _WRITTEN:
        return _WRITTEN[lower]
    if token.isalnum():
        return lower
    if token.startswith("...") and not token.strip("."):
        return None
    if _CONTRACTION.fullmatch(token) or _QUOTES.fullmatch(token):
        token = token.replace("&apos;", "'").translate(_LATEX_QUOTES)
        return None if token in COCO_PUNCTUATION else token.lower()
    if not _VERBATIM.search(token):
        token = token.replace("\xad", "").replace("&amp;", "&")
    if not (token.startswith("<") and token.endswith(">")):
        token = token.replace("(", "-lrb-").replace(")", "-rrb-")
    token = token.replace(" ", "\xa0").lower()
    return token if token and token not in COCO_PUNCTUATION else None


_PLAIN_WORD = re.compile(rf"[{_L}]+(?={_BLANK})")
_SPLIT_WORDS = frozenset(("cannot", "gimme", "gonna", "gotta", "lemme", "wanna"))
_WORD_START = re.compile(rf"[{_L}{_D}\u0301\xad]")


def _scan(caption: str) -> list[str]:
    shape = caption.translate(_SHAPES) + _SPACE  # rules may look at the white space behind the last word
    extra = (_MARKUP if "<" in shape and ">" in shape else ()) + (_ADDRESS if "@" in shape else ())
    at_word, elsewhere = extra + _AT_WORD, extra + _ELSEWHERE
    tokens: list[str] = []
    position = 0
    while position < len(caption):
        first = shape[position]
        if first in " \t\xa0\0":
            position += 1
            continue
        plain = _PLAIN_WORD.match(shape, position)
        if plain and plain.group().lower() not in _SPLIT_WORDS:  # no rule can do otherwise; saves trying them
            tokens.append(caption[position : plain.end()].lower())
            position = plain.end()
            continue
        longest, end = 0, position + 1
        for rule in at_word if _WORD_START.match(first) else elsewhere:
            match = rule.match(shape, position)
            if match and match.end() - position > longest:
                longest = match.end() - position
                end = match.end("t") if rule.groupindex else match.end()
        written = _write(caption[position:end])
        if written is not None:
            tokens.append(written)
        position = end
    return tokens


# White space can be part of markup, fractions, telephone numbers and ". . .", or decide about a full stop.
# The pattern starts with a set of characters because `re` skips quickly to the next of a set.
_NEEDS_CONTEXT = re.compile(r"[<\d).](?:(?<=<)|(?<=[\d)]) +\d|(?<=\.) +[A-Z.\d<])")


class _Words(dict[str, tuple[str, ...]]):
    """Word -> the tokens that it gives when it is scanned alone; remembers a bounded number of words."""

    _MOST = 1 << 16

    def __missing__(self, word: str) -> tuple[str, ...]:
        if len(self) >= self._MOST:
            self.clear()
        tokens = self[word] = tuple(_scan(word))
        return tokens


_tokens_of_word = _Words().__getitem__


def tokenize(caption: str) -> list[str]:
    """Returns the lower-case tokens of one caption as coco-caption scores them.

    Args:
        caption: any text; line breaks count as spaces.

    Returns:
        The tokens in order; empty for a caption of nothing but punctuation. A token can hold a no-break space
        (`1\\xa01/2`) but no other white space.
    """
    if caption.isprintable() and not _NEEDS_CONTEXT.search(caption):
        return list(chain.from_iterable(map(_tokens_of_word, caption.split(" "))))
    return _scan(caption)
