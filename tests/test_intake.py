"""What is captioned: words, folders, patterns and lists become items, each once and in order."""

from __future__ import annotations

import fnmatch
import io
import itertools
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rights import unprivileged
from showtell.errors import UsageError
from showtell.images import WebImage
from showtell.intake import Counted, Intake, expand_pattern, has_wildcards, scan_folder
from showtell.intake.lists import read_paths
from showtell.intake.scan import natural_key


def plant(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(words: list[str], **options: object) -> list[str]:
    return [item.name for item in Intake(words, **options)]  # type: ignore[arg-type]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Folders


def test_folders_are_sorted_as_people_count_and_hidden_names_are_passed_over(here: Path) -> None:
    plant(here, "b/10.jpg", "b/9.jpg", "b/sub/1.png", "a.JPEG", "c.heic", "notes.txt", ".x.jpg", ".git/y.jpg")
    assert names(["."]) == ["a.JPEG", "b/9.jpg", "b/10.jpg", "b/sub/1.png", "c.heic"]
    assert names(["b"]) == ["b/9.jpg", "b/10.jpg", "b/sub/1.png"]
    assert names(["./b/"]) == ["b/9.jpg", "b/10.jpg", "b/sub/1.png"]
    assert names([".git"]) == [".git/y.jpg"]  # named, so wanted


@pytest.mark.parametrize(
    "ordered",
    [["a2", "a10", "b1"], ["IMG_9", "img_10", "IMG_11"], ["1", "01", "2", "010"], ["a", "a-1", "a1", "aa"]],
)
def test_natural_order(ordered: list[str]) -> None:
    for shuffled in itertools.permutations(ordered):
        got = sorted(shuffled, key=natural_key)
        assert [name.lstrip("0") for name in got] == [name.lstrip("0") for name in ordered]


@given(st.text(), st.text())
def test_natural_keys_tell_all_names_apart(first: str, second: str) -> None:
    assert (natural_key(first) == natural_key(second)) == (first == second)


def test_links_to_folders_are_not_followed_and_loops_end(here: Path) -> None:
    plant(here, "photos/deep/a.jpg", "elsewhere/b.jpg")
    (here / "photos/loop").symlink_to(here / "photos")
    (here / "photos/self").symlink_to("self")
    (here / "photos/out").symlink_to(here / "elsewhere")
    (here / "photos/linked.jpg").symlink_to(here / "elsewhere/b.jpg")
    (here / "photos/broken.jpg").symlink_to("nowhere")
    intake = Intake(["photos"])
    assert [item.name for item in intake] == ["photos/broken.jpg", "photos/deep/a.jpg", "photos/linked.jpg"]
    assert intake.linked_folders == 2
    assert names(["photos/**/*.jpg"]) == ["photos/broken.jpg", "photos/deep/a.jpg", "photos/linked.jpg"]
    assert names(["photos/out"]) == ["photos/out/b.jpg"]  # named, so followed


def test_a_folder_that_may_not_be_opened_is_an_item_and_the_others_are_found() -> None:
    with unprivileged() as folder:
        plant(folder, "a/1.jpg", "b/2.jpg", "c/3.jpg")
        (folder / "b").chmod(0)
        items = list(scan_folder(str(folder)))
    assert [(item.name, item.error) for item in items] == [
        (f"{folder}/a/1.jpg", ""),
        (f"{folder}/b", "no permission to open this folder"),
        (f"{folder}/c/3.jpg", ""),
    ]


def test_very_deep_folders_need_no_recursion(here: Path) -> None:
    depth = 1200  # deeper than Python's own limit
    program = (
        "import os, sys\nfrom showtell.intake import scan_folder\n"
        f"for _ in range({depth}): os.mkdir('d'); os.chdir('d')\n"
        "open('x.jpg', 'w').close(); os.chdir(sys.argv[1])\n"
        "print([len(item.name) for item in scan_folder('')])"
    )
    words = [sys.executable, "-c", program, str(here)]
    ended = subprocess.run(words, cwd=here, capture_output=True, text=True)
    subprocess.run(["rm", "-rf", str(here / "d")], check=True)  # shutil.rmtree recurses
    assert (ended.stderr, ended.stdout) == ("", f"[{2 * depth + 5}]\n")


def test_folders_are_read_one_at_a_time(here: Path) -> None:
    for number in range(200):
        plant(here, *(f"{number:03d}/{'n' * 100}{image}.jpg" for image in range(20)))
    list(scan_folder(""))
    tracemalloc.start()
    count = sum(1 for _ in scan_folder(""))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 4000
    assert peak < 150_000  # all names alone would be 500,000 bytes


# Words


def test_each_image_comes_once_in_the_order_given(here: Path) -> None:
    plant(here, "p/a.jpg", "p/b.jpg", "odd.xyz")
    (here / "q").symlink_to("p")
    words = [
        "p/b.jpg",
        "./p",
        "p/../p/a.jpg",
        str(here / "p/a.jpg"),
        "q",
        "odd.xyz",
        "odd.xyz",
        "gone",
        "gone",
    ]
    assert names(words) == ["p/b.jpg", "p/a.jpg", "odd.xyz", "gone"]
    os.link("p/a.jpg", "p/c.jpg")  # another name is another image
    assert names(["p", "p"]) == ["p/a.jpg", "p/b.jpg", "p/c.jpg"]


def test_what_cannot_be_found_keeps_its_place(here: Path) -> None:
    plant(here, "a.jpg", "empty/notes.txt")
    items = list(Intake(["gone.jpg", "a.jpg", "empty", "", "x*.jpg"]))
    assert [item.name for item in items] == ["gone.jpg", "a.jpg", "empty", "", "x*.jpg"]
    errors = [item.error for item in items]
    assert errors[0] == "no such file or folder"
    assert errors[1] == ""
    assert errors[2].startswith("the folder has no images (.avif, ")
    assert errors[3] == "an empty word names no image"
    assert errors[4] == "no image matches this pattern"


def test_a_home_folder_is_found(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(here, "pictures/a.jpg")
    monkeypatch.setenv("HOME", str(here))
    assert names(["~/pictures/*.jpg"]) == [f"{here}/pictures/a.jpg"]


def test_an_address_on_the_web_is_no_pattern() -> None:
    [item] = Intake(["https://example.org/a*.jpg?key=secret"])
    assert item.name == "https://example.org/a*.jpg?key=secret"
    assert isinstance(item.source, WebImage)
    assert str(item.source) == "https://example.org/a*.jpg"  # what messages say
    assert item.path is None


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        ([], {}, "No image was given"),
        (["-"], {"listed": "-"}, "Standard input cannot be both"),
        (["a.jpg"], {"null": True}, "--null says how the paths of --from LIST are separated"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Intake(words, **options)  # type: ignore[arg-type]


# Patterns


def test_patterns(here: Path) -> None:
    plant(
        here, "a.jpg", "b/c.jpg", "b/d/e.jpg", "b/d/f.png", "b/.g.jpg", ".h/i.jpg", "b2/j.txt", "b3.jpg/k.gif"
    )
    assert names(["**/*.jpg"]) == ["a.jpg", "b/c.jpg", "b/d/e.jpg", "b3.jpg/k.gif"]
    assert names(["*/*.jpg"]) == ["b/c.jpg"]
    assert names(["b/**"]) == ["b/c.jpg", "b/d/e.jpg", "b/d/f.png"]
    assert names(["b*"]) == ["b/c.jpg", "b/d/e.jpg", "b/d/f.png", "b3.jpg/k.gif"]  # folders are opened
    assert names(["b/**/d/*"]) == ["b/d/e.jpg", "b/d/f.png"]
    assert names(["**/**/[ef].*"]) == ["b/d/e.jpg", "b/d/f.png"]
    assert names(["b/.*.jpg"]) == ["b/.g.jpg"]
    assert names([".h/*"]) == [".h/i.jpg"]
    assert names([f"{here}/?.jpg"]) == [f"{here}/a.jpg"]


def test_a_file_of_that_very_name_wins(here: Path) -> None:
    plant(here, "[1].jpg", "1.jpg", "*.jpg", "what?.png")
    assert names(["[1].jpg", "*.jpg", "what?.png"]) == ["[1].jpg", "*.jpg", "what?.png"]
    (here / "[1].jpg").unlink()
    assert names(["[1].jpg"]) == ["1.jpg"]


PARTS = st.sampled_from(["a", "b", "a*", "*b", "?", "[ab]", "*", "**"])


@given(st.lists(PARTS, min_size=1, max_size=4).filter(lambda parts: any(has_wildcards(one) for one in parts)))
def test_patterns_match_what_their_definition_says(parts: list[str]) -> None:
    def matches(path: list[str], parts: list[str]) -> bool:
        if not parts:
            return not path
        if parts[0] == "**":
            return matches(path, parts[1:]) or (bool(path) and matches(path[1:], parts))
        return bool(path) and fnmatch.fnmatchcase(path[0], parts[0]) and matches(path[1:], parts[1:])

    files = [f"{first}/{second}/{name}.jpg" for first in "ab" for second in ("a", "ab") for name in "ab"]
    with tempfile.TemporaryDirectory() as folder:
        plant(Path(folder), *files)
        found = [item.name[len(folder) + 1 :] for item in expand_pattern("/".join([folder, *parts]))]
    expected = [file for file in files if any(matches(file.split("/")[:depth], parts) for depth in range(4))]
    assert sorted(found) == sorted(expected)


# Lists


def listed(content: bytes, *, null: bool = False) -> list[str]:
    return list(read_paths(io.BytesIO(content), "list.txt", null=null))


def test_lists_of_lines() -> None:
    assert listed(b"a.jpg\nb c.jpg\r\n\n\xef\xbb\xbf\nlast") == ["a.jpg", "b c.jpg", "\ufeff", "last"]
    assert listed(b"\xef\xbb\xbfa.jpg\n") == ["a.jpg"]
    assert listed(b"*.jpg\n-\n~/x\n") == ["*.jpg", "-", "~/x"]  # names, not patterns
    assert listed(b"") == []


@given(st.lists(st.binary(min_size=1).filter(lambda name: b"\0" not in name and b"\xef\xbb\xbf" not in name)))
def test_lists_with_nul_hold_any_name(paths: list[bytes]) -> None:
    assert listed(b"".join(path + b"\0" for path in paths), null=True) == [
        os.fsdecode(path) for path in paths
    ]


def test_lists_of_the_wrong_kind_are_named() -> None:
    with pytest.raises(UsageError, match=r"list.txt: line 2 holds a NUL character. .* add --null"):
        listed(b"a.jpg\nb.jpg\0c.jpg\0")
    with pytest.raises(UsageError, match=r"an entry is longer than 1,048,576 bytes: .* leave out --null"):
        listed(b"a.jpg\n" * 300_000, null=True)


def test_a_list_is_read_as_it_comes() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        os.write(writing, b"first.jpg\nsecond")
        paths = read_paths(file, "pipe", null=False)
        assert next(paths) == "first.jpg"  # while the writer still has it open
        os.write(writing, b".jpg\n")
        os.close(writing)
        assert list(paths) == ["second.jpg"]


def test_words_come_before_the_list_which_may_name_folders(here: Path) -> None:
    plant(here, "a.jpg", "b/c.jpg", "d.jpg", "*.jpg")
    (here / "list.txt").write_text("b\n*.jpg\na.jpg\ngone.jpg\n")
    assert names(["d.jpg"], listed="list.txt") == ["d.jpg", "b/c.jpg", "*.jpg", "a.jpg", "gone.jpg"]


PROGRAM = """
import sys
from showtell.intake import Intake
intake = Intake([], listed="-", repeatable=sys.argv[1] == "True")
print([item.name for item in intake], intake.is_quick)
print([item.name for item in intake])
"""


@pytest.mark.parametrize(("repeatable", "again"), [(True, "['a.jpg', 'b.jpg']"), (False, "[]")])
def test_a_list_on_standard_input_is_kept_where_it_is_needed_twice(repeatable: bool, again: str) -> None:
    words = [sys.executable, "-c", PROGRAM, str(repeatable)]
    ended = subprocess.run(words, input="a.jpg\nb.jpg\n", capture_output=True, text=True, check=True)
    assert ended.stdout == f"['a.jpg', 'b.jpg'] {repeatable}\n{again}\n"


# Counting


@pytest.mark.parametrize(("ahead", "known"), [(0, None), (4, None), (5, None), (6, 5), (100, 5)])
def test_the_total_is_known_if_the_end_is_near(ahead: int, known: int | None) -> None:
    counted = Counted(range(5), ahead=ahead)
    assert counted.total == known
    assert list(counted) == [0, 1, 2, 3, 4]
    assert counted.total == 5


def test_nothing_is_taken_before_it_is_needed() -> None:
    source = itertools.count()
    counted = iter(Counted(source, ahead=3))
    assert next(source) == 3
    assert next(counted) == 0


def test_what_is_behind_a_closed_folder_is_not_called_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.lstat

    def closed(path: object, **options: object) -> os.stat_result:  # root may look everywhere
        if str(path).endswith("a.jpg"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "lstat", closed)
    [item] = Intake([str(tmp_path / "locked" / "a.jpg")])
    assert item.error == "no permission to look into its folder"
