"""The tokeniser against coco-caption's, which is a Java program."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.text import tokenizer
from showtell.text.tokenizer import COCO_PUNCTUATION, tokenize

CAPTIONS = (
    "A black dog is running after a white dog in the snow .",
    "Two young girls are playing with Lego toys .",
    "A man's hat, his wife's umbrella & their dogs' leashes; all red.",
    "A girl (in a pink dress) climbs a set of stairs. She is smiling!",
    "The U.S. flag isn't seen at 10:30 a.m. on the 3rd of Jan. near St. John's",
    "An 18-year-old on a T-shirt with No. 5, 1/2 price: $3.50 and 50% off",
)

# What the Java program gives, after coco-caption's removal of punctuation.
EXPECTED = {
    "": "",
    ".": "",
    "A dog runs .": "a dog runs",
    "A dog runs. It's happy.": "a dog runs it 's happy",
    "end.Begin": "end.begin",
    "A man (in red) [left] {x}": "a man -lrb- in red -rrb- -lsb- left -rsb- -lcb- x -rcb-",
    "The U.S. flag at 10 a.m. The end": "the u.s. flag at 10 a.m. the end",
    "Mr. Smith vs. Dr. J. No. 5 etc.": "mr. smith vs. dr. j. no. 5 etc.",
    "vitamin A. The end": "vitamin a the end",
    "no. not here": "no not here",
    "“curly” ‘single’ don’t `tick` ``two'' \"plain\"": "curly single do n't tick two plain",
    "rock'n'roll rock 'n' roll": "rock 'n' roll rock 'n' roll",
    "can't cannot Gonna gimme won't": "ca n't can not gon na gim me wo n't",
    "'tis 'twas 'em y'all o'clock ma'am": "'t is 't was 'em y' all o'clock ma'am",
    "I'm it's he'd we'll they've dogs' 80's '80s": "i 'm it 's he 'd we 'll they 've dogs 80 's '80s",
    "O'Neil's d'or jack-o'-lantern": "o'neil 's d'or jack-o lantern",
    "mother-in-law a--b a - b -a and/or a/b/c/d": "mother-in-law a b a b a and/or a/b/c / d",
    "wait... wait … . . . – —": "wait wait",
    "1,000 3.5 1/2 $5 50% #1 1st 10:30 5'10\"": "1,000 3.5 1/2 $ 5 50 % # 1 1st 10:30 5 10",
    "1 1/2 cups (415) 555-1234": "1\xa01/2 cups -lrb-415-rrb-\xa0555-1234",
    "½ cup £5 5¢ €7 US$9": "1/2 cup # 5 5 cents $ 7 us$ 9",
    "AT&T &amp; R&B a & b M&M's": "at&t & r&b a & b m&m 's",
    "see http://www.example.com/a?b=c, me@example.com.": "see http://www.example.com/a?b=c me@example.com",
    "example.com photo.jpg @user #tag": "example.com photo.jpg @user #tag",
    "<start> a dog <unk> <end> <a b='c'>": "<start> a dog <unk> <end> <a\xa0b='c'>",
    "smile :) ;-) :( 😀 <3": "smile :-rrb- ;--rrb- :-lrb- < 3",
    "wow!! really?! no! ?? *** ___": "wow !! really ?! no ?? *** ___",
    "café NAÏVE Ångström cafe\u0301 ΣΑΣ": "café naïve ångström cafe\u0301 σας",
    "日本語 текст עברית العربية": "日本語 текст עברית العربية",
    "no\xa0break\u2003em\tspace\x07bell\u200bzero": "no break em space bell zero",
    "soft\xadhyphen C# C++ © ™ x² °": "softhyphen c# c++ © ™ x ² °",
    "a\nb": "a b",
}

ADVERSARIAL = (
    *EXPECTED,
    *CAPTIONS,
    "etc.a etc.abc Inc.-b St.Louis St.-Louis Ph.D. B.Sc. U.S.-based U.S.'s ab., x",
    "Mass. mass. Ill. ill. Sat. Sun. Mon. May. June. Sept. Calif. no.5 No.5 fig.2 pp. 7",
    "A. A. The x. J. Smith B. <b> C. Mr. D. It's E. Two",
    "<a b=c> <a@b.c> <1> < a> <br/> <br /> </p > <!-- x y --> <?php?> <é> <a<b>> a<b a>b",
    "&lt;b&gt; &quot;x&quot; &eacute;t&eacute; caf&eacute; &#39; &#x27; &foo; &HT; AT&amp;T",
    "'s 'S 'll's n't N'T don't've y'know d'ye l'ab j'ai c'est qu'il Hawai'i B'way g'day o'x",
    "'80 '80s '800s '8 80s' 'n 'n'x n'x 'em' ''x'' ‘80s ’80s ’n’ ’tis it’s don‘t can`t",
    "1-2.5 -1 --1 +1 1+1 1. 1., .5 ,5 1.2.3 1:2:3 1/2/2010 12-31-2010 1 / 2 5/8ths 22/7ths",
    "1 415 555 1234 +44 20 1234 5678 555-1234 5551234 (415)555-1234 (41) 5-6",
    "a_b _a a__b a-b_c a_b-c a.b_c 1,000-foot a,b-c x-d'or x-U.S. a\\/b 1\\/2 \\* \\",
    "(^_^) (-_-) ^_^ x_x :O :o :-D =) 8) <:) >:( :'( :* (o_o) \\o/ d(^^)b",
    "A+B C++ F# G# .NET a#b.com &.com www.a.de/xy a.com/xy a.com/x ftp://a.b file.tar.gz",
    "“”‘’ ‘’ ’’ “„ ”` `` ```` ''' \" '\" \"' « » ‹ ›",
    "a@ @a a@@b a@b@c @a@b a.@b a@.b !@# $$$ %% ^^ ~~ == ** *** -- --- ---- ----- ------",
    "½ 1½ 1 ½ ⅓cup ² ²² ₂ ¢ £5 ¤ € ₤ ¥ ° µ × ÷ ¬ ¦ § ¶ · ¿ ¡",
    "नमस्ते สวัสดี שָׁלוֹם ١٢٣ 1٣ ٣.٥ 한국어 ßß ŉ ǅ ﬁ K Å İ I",
)


def java_tokenize(captions: list[str], folder: Path) -> list[list[str]]:
    """Returns coco-caption's tokens; a line after each caption keeps them apart."""
    spec = importlib.util.find_spec("pycocoevalcap")
    if shutil.which("java") is None or spec is None or not spec.submodule_search_locations:
        pytest.skip("needs a Java runtime and pycocoevalcap (pip install pycocoevalcap)")
    jar = Path(spec.submodule_search_locations[0]) / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    source = folder / "captions.txt"
    lines = (f"{caption.replace(chr(10), ' ')}\nBetween {i} Lines\n" for i, caption in enumerate(captions))
    source.write_text("".join(lines), encoding="utf-8", newline="")
    command = [
        "java",
        "-cp",
        str(jar),
        "edu.stanford.nlp.process.PTBTokenizer",
        "-preserveLines",
        "-lowerCase",
    ]
    done = subprocess.run([*command, str(source)], capture_output=True, check=True, timeout=120)
    parts = re.split(r"\nbetween \d+ lines\n", done.stdout.decode("utf-8"))
    assert len(parts) == len(captions) + 1, "captions and tokens are out of step"
    punctuation = {"''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-"}
    punctuation |= {".", "?", "!", ",", ":", "-", "--", "...", ";"}
    return [[w for w in part.rstrip().split(" ") if w and w not in punctuation] for part in parts[:-1]]


@pytest.mark.parametrize("caption", EXPECTED, ids=ascii)
def test_known_captions(caption: str) -> None:
    assert tokenize(caption) == [word for word in EXPECTED[caption].split(" ") if word]


@pytest.mark.java
def test_the_known_captions_are_what_java_gives(tmp_path: Path) -> None:
    expected = [[word for word in text.split(" ") if word] for text in EXPECTED.values()]
    assert java_tokenize(list(EXPECTED), tmp_path) == expected


@pytest.mark.java
@pytest.mark.parametrize("caption", ADVERSARIAL, ids=ascii)
def test_adversarial_captions_equal_java(caption: str, adversarial: dict[str, list[str]]) -> None:
    assert tokenize(caption) == adversarial[caption]


@pytest.fixture(scope="module")
def adversarial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    captions = list(ADVERSARIAL)
    return dict(zip(captions, java_tokenize(captions, tmp_path_factory.mktemp("java")), strict=True))


def read_shared_captions(shared: Path) -> list[str]:
    captions = [
        line.split("\t", 1)[1]
        for line in (shared / "data/flickr8k/Flickr8k.token.txt").read_text(encoding="utf-8").splitlines()
    ]
    for name in ("captions_train.json", "captions_dev.json"):
        data = json.loads((shared / "data/coco" / name).read_text(encoding="utf-8"))
        captions += [annotation["caption"] for annotation in data["annotations"]]
    assert len(captions) > 43_000
    return captions


@pytest.mark.java
@pytest.mark.shared
def test_all_shared_captions_equal_java(shared: Path, tmp_path: Path) -> None:
    captions = read_shared_captions(shared)
    java = java_tokenize(captions, tmp_path)
    differing = [(c, j, tokenize(c)) for c, j in zip(captions, java, strict=True) if tokenize(c) != j]
    assert differing == []


@pytest.mark.java
def test_every_character_alone_and_between_letters_equals_java(tmp_path: Path) -> None:
    # Without surrogates and what Java takes for the end of a line.
    skipped = {0x0A, 0x0B, 0x0C, 0x0D, 0x2028, 0x2029}
    points = [p for p in range(0x2700) if p not in skipped] + list(range(0xFF00, 0x10000))
    captions = [form.format(chr(p)) for p in points for form in ("{0}", "a{0}b", "5{0}5")]
    java = java_tokenize(captions, tmp_path)
    differing = [(c, j, tokenize(c)) for c, j in zip(captions, java, strict=True) if tokenize(c) != j]
    assert differing == []


@pytest.mark.java
def test_damaged_captions_equal_java_but_for_a_handful(tmp_path: Path) -> None:
    generator = random.Random(0)
    marks = list(".,'-/()\"!?:;&@#$%*+<>=[]{}|\\^_`~") + list("’‘“”–—…½é£€•😀中\xa0¿²ñ\t\x07 0123456789")
    bits = re.split(r"\s+", " ".join(ADVERSARIAL))

    def damage(caption: str) -> str:
        for _ in range(generator.choice((1, 1, 2, 3, 4))):
            place = generator.randrange(len(caption) + 1)
            inserted = generator.choice(marks) if generator.random() < 0.7 else f" {generator.choice(bits)} "
            caption = caption[:place] + inserted + caption[place + generator.choice((0, 0, 0, 1)) :]
        return caption

    captions = [damage(generator.choice(CAPTIONS)) for _ in range(8_000)]
    java = java_tokenize(captions, tmp_path)
    differing = [(c, j, tokenize(c)) for c, j in zip(captions, java, strict=True) if tokenize(c) != j]
    assert len(differing) <= 8, differing[:5]  # the kinds that the module's docstring lists


@given(st.text())
def test_any_text_gives_clean_tokens(caption: str) -> None:
    for token in tokenize(caption):
        assert token
        assert token not in COCO_PUNCTUATION
        assert not set(token) & set(" \t\n\r\v\f\u2028\u2029")


@given(st.lists(st.sampled_from(("a", "dog", "runs", "over", "green", "hills")), min_size=1))
def test_plain_words_come_back_as_they_are(words: list[str]) -> None:
    assert tokenize(" ".join(words).upper() + " .") == words


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\v", "\f", "\u2028", "\u2029"], ids=ascii)
def test_line_breaks_are_spaces(line_break: str) -> None:
    assert tokenize(f"a dog{line_break}runs") == ["a", "dog", "runs"]


def test_half_a_surrogate_pair_is_dropped() -> None:
    assert tokenize("a\ud83ddog") == ["a", "dog"]


def test_remembered_words_do_not_leak_into_the_result() -> None:
    tokenize("can't stop").clear()
    assert tokenize("can't stop") == ["ca", "n't", "stop"]


def alone_or_together(caption: str) -> bool:
    """Whether words scanned alone and remembered give what one scan of the whole caption gives."""
    return tokenizer.tokenize(caption) == tokenizer._scan(caption)


@pytest.mark.parametrize("caption", ADVERSARIAL, ids=ascii)
def test_the_quick_way_equals_the_slow_one(caption: str) -> None:
    assert alone_or_together(caption)


@pytest.mark.shared
def test_the_quick_way_equals_the_slow_one_on_all_shared_captions(shared: Path) -> None:
    captions = read_shared_captions(shared)
    assert [caption for caption in captions if not alone_or_together(caption)] == []


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        st.lists(
            st.sampled_from([bit for caption in ADVERSARIAL for bit in caption.split(" ")]), max_size=9
        ).map(" ".join),
        st.text("aAbSst 1.,'-/()<>;:!?&$£ \xa0é½", max_size=30),
    )
)
def test_the_quick_way_equals_the_slow_one_on_any_caption(caption: str) -> None:
    assert alone_or_together(caption)


def test_a_bounded_number_of_words_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer._Words, "_MOST", 3)
    words = tokenizer._Words()
    for round_ in range(2):
        for word in ("a", "can't", "dogs.", "b", "c"):
            assert words[word] == tuple(tokenizer._scan(word)), round_
            assert len(words) <= 3


def test_repeated_words_are_kept() -> None:
    assert tokenize("a a dog dog dog") == ["a", "a", "dog", "dog", "dog"]


@pytest.mark.parametrize("piece", ["a=", "<!a", "#.", "x'", "a@", "1 ", "a.", "<a b ", "&eacute", "(", "-"])
def test_long_hostile_captions_end(piece: str) -> None:
    started = time.monotonic()
    tokenize(piece * 5_000)
    assert time.monotonic() - started < 10
