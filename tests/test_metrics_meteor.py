"""METEOR against pycocoevalcap, and with Java programs that misbehave."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from showtell.errors import MetricError, MissingExtraError
from showtell.metrics import meteor, score
from showtell.text.tokenizer import tokenize

REFERENCES = {
    "1": ["A dog runs through the snow.", "The dog is running in the snow"],
    "2": ["Two girls play with a ball in the café, isn't it?", "Girls (playing)", "..."],
    "3": ["A man rides a red bicycle."],
    "4": ["one"],
}
HYPOTHESES = {"1": "A dog runs in the snow.", "2": "A girl plays in the café", "3": "A bike rider", "4": ""}

# Answers as the real program does: statistics for SCORE, one line per image and one for the corpus for EVAL.
ANSWER = """
for line in sys.stdin:
    if line.startswith("SCORE"):
        print("1 2 3", flush=True)
    else:
        print("\\n".join(["0.5"] * line.count("|||") + ["0.25"]), flush=True)
"""


@pytest.fixture
def fake_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a `java` on the PATH that is a Python script, and a jar where METEOR looks for it."""
    package = tmp_path / "pycocoevalcap"
    (package / "meteor").mkdir(parents=True)
    (package / "meteor" / "meteor-1.5.jar").touch()
    spec = importlib.util.spec_from_loader("pycocoevalcap", None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(package)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def install(body: str) -> None:
        java = tmp_path / "java"
        java.write_text(f"#!{sys.executable}\nimport os, sys, time\n{body}\n")
        java.chmod(0o755)

    return install


@pytest.mark.java
def test_equals_pycocoevalcap() -> None:
    module = pytest.importorskip("pycocoevalcap.meteor.meteor", reason="needs pycocoevalcap")
    if shutil.which("java") is None:
        pytest.skip("needs a Java runtime")
    truth = {
        key: [" ".join(tokenize(caption)) for caption in captions] for key, captions in REFERENCES.items()
    }
    found = {key: [" ".join(tokenize(HYPOTHESES[key]))] for key in REFERENCES}
    theirs = module.Meteor()
    corpus, column = theirs.compute_score(truth, found)
    for pipe in (theirs.meteor_p.stdout, theirs.meteor_p.stderr):
        pipe.close()
    ours = score(REFERENCES, HYPOTHESES, metrics=["METEOR"])
    assert ours.corpus == {"METEOR": pytest.approx(corpus, abs=1e-6)}
    assert [row["METEOR"] for row in ours.per_image.values()] == pytest.approx(column, abs=1e-6)
    assert 0 < ours.per_image["1"]["METEOR"] < 1


def test_scores_come_from_the_answers(fake_java: Callable[[str], None]) -> None:
    fake_java(ANSWER)
    scores = score(REFERENCES, HYPOTHESES, metrics=["METEOR"])
    assert scores.corpus == {"METEOR": 0.25}
    assert scores.per_image == {key: {"METEOR": 0.5} for key in REFERENCES}


def test_a_program_that_writes_megabytes_of_messages_does_not_stand_still(
    fake_java: Callable[[str], None],
) -> None:
    fake_java("for _ in range(50): sys.stderr.write('x' * 100_000)\n" + ANSWER)
    assert meteor.score_meteor([["a"]], ["a"], timeout=30) == (0.25, [0.5])


def test_thousands_of_images_do_not_fill_the_pipes(fake_java: Callable[[str], None]) -> None:
    fake_java(ANSWER)
    corpus, column = meteor.score_meteor([["a b c " * 30] * 5] * 3000, ["a"] * 3000, timeout=60)
    assert (corpus, len(column)) == (0.25, 3000)


@pytest.mark.parametrize("body", ["time.sleep(60)", "sys.stdin.readline()\ntime.sleep(60)"])
def test_a_program_that_hangs_is_stopped(fake_java: Callable[[str], None], body: str, tmp_path: Path) -> None:
    fake_java(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n{body}")
    started = time.monotonic()
    with pytest.raises(MetricError, match=r"did not finish within 1 seconds and was stopped"):
        meteor.score_meteor([["a"]], ["a"], timeout=1)
    assert time.monotonic() - started < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_program_that_does_not_read_is_stopped(fake_java: Callable[[str], None]) -> None:
    fake_java("time.sleep(60)")
    with pytest.raises(MetricError, match="did not finish within"):
        meteor.score_meteor([["a" * 5_000_000]], ["a"], timeout=1)


def test_a_program_that_dies_says_why(fake_java: Callable[[str], None]) -> None:
    fake_java("sys.stderr.write('Error: could not reserve enough space')\nsys.exit(3)")
    with pytest.raises(
        MetricError, match=r"exit status 3.*Its last messages: Error: could not reserve enough space"
    ):
        meteor.score_meteor([["a"]], ["a"], timeout=30)


def test_a_program_that_dies_half_way_says_so(fake_java: Callable[[str], None]) -> None:
    fake_java("sys.stdin.readline()\nprint('1 2 3', flush=True)\nsys.exit(1)")
    with pytest.raises(MetricError, match="METEOR's Java process failed"):
        meteor.score_meteor([["a"]] * 3, ["a"] * 3, timeout=30)


def test_an_answer_that_is_no_number_is_refused(fake_java: Callable[[str], None]) -> None:
    fake_java(ANSWER.replace("0.25", "nothing"))
    with pytest.raises(MetricError, match=r"answered something that is no score.*nothing"):
        meteor.score_meteor([["a"]], ["a"], timeout=30)


def test_the_separator_in_a_caption_cannot_add_references(fake_java: Callable[[str], None]) -> None:
    fake_java(
        "print(sys.stdin.readline().count('|||'), flush=True)\nn = sys.stdin.readline().split()[-1]\nprint(n)\nprint(n)"
    )
    assert meteor.score_meteor([["a ||| b"]], ["c ||| d"], timeout=30) == (2, [2])


def test_two_calls_at_once_do_not_wait_for_each_other(fake_java: Callable[[str], None]) -> None:
    fake_java("time.sleep(1)\n" + ANSWER)
    results: list[tuple[float, list[float]]] = []
    calls = [
        threading.Thread(target=lambda: results.append(meteor.score_meteor([["a"]], ["a"], timeout=30)))
        for _ in range(4)
    ]
    started = time.monotonic()
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert results == [(0.25, [0.5])] * 4
    assert time.monotonic() - started < 3.9  # one after the other takes 4


def test_without_java_the_message_says_what_to_install(
    fake_java: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MetricError, match=r"no `java` on the PATH\. Install a Java runtime"):
        score(REFERENCES, HYPOTHESES, metrics=["METEOR"])


def test_a_java_that_cannot_be_started_is_an_error(fake_java: Callable[[str], None], tmp_path: Path) -> None:
    (tmp_path / "java").write_text("#!/does/not/exist\n")
    (tmp_path / "java").chmod(0o755)
    with pytest.raises(MetricError, match="cannot be started"):
        score(REFERENCES, HYPOTHESES, metrics=["METEOR"])


def test_without_pycocoevalcap_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r'METEOR needs the package .*pip install "showtell\[meteor\]"'
    ):
        score(REFERENCES, HYPOTHESES, metrics=["METEOR"])


def test_a_package_without_the_jar_is_an_error(fake_java: Callable[[str], None], tmp_path: Path) -> None:
    (tmp_path / "pycocoevalcap" / "meteor" / "meteor-1.5.jar").unlink()
    with pytest.raises(MetricError, match=r"meteor-1\.5\.jar is not in .*Install the package anew"):
        score(REFERENCES, HYPOTHESES, metrics=["METEOR"])
