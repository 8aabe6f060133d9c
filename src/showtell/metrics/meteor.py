"""METEOR 1.5 (Denkowski and Lavie 2014) through its Java program, which comes with the package pycocoevalcap.

The program answers line by line. Three things keep that from standing still: its standard error goes to a
temporary file, so that it never waits for somebody to read it; one question is open at a time; and a timer
kills the process when it takes too long. Every call starts its own process, so calls never wait for each other.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from showtell.errors import MetricError, MissingExtraError

TIMEOUT = 1800.0  # seconds for one call; 1,000 images with four references each took 16 on two cores
_JAR = "meteor-1.5.jar"
_SEPARATOR = " ||| "


def score_meteor(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str], *, timeout: float = TIMEOUT
) -> tuple[float, list[float]]:
    """Scores one hypothesis per image.

    Args:
        references: per image, its references, at least one, as tokens joined by spaces.
        hypotheses: per image, its hypothesis, as tokens joined by spaces.
        timeout: seconds that the whole call may take.

    Returns:
        The score of the corpus (pooled, not the mean), and per image; each 0 to 1.

    Raises:
        MissingExtraError: pycocoevalcap is not installed.
        MetricError: there is no Java, or the Java program failed, hung or answered nonsense.
    """
    jar = _find_jar()
    with _java(jar, timeout) as ask:
        statistics = [
            ask(_SEPARATOR.join(("SCORE", *map(_clean, others), _clean(hypothesis))), 1)[0]
            for others, hypothesis in zip(references, hypotheses, strict=True)
        ]
        answers = ask(_SEPARATOR.join(("EVAL", *statistics)), len(statistics) + 1)
    try:
        *per_image, corpus = map(float, answers)
    except ValueError as error:
        raise MetricError(f"METEOR's Java program answered something that is no score: {error}.") from error
    return corpus, per_image


def _clean(caption: str) -> str:
    return caption.replace("|||", "").replace("  ", " ")


def _find_jar() -> Path:
    # The package is looked up, not imported: importing it costs time, and only its jar is needed.
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("pycocoevalcap", "meteor", "METEOR")
    folders = [Path(folder) / "meteor" for folder in spec.submodule_search_locations]
    for folder in folders:
        if (folder / _JAR).is_file():
            return folder / _JAR
    raise MetricError(
        f"METEOR's program {_JAR} is not in {folders[0]}. "
        'Install the package anew: pip install --force-reinstall "pycocoevalcap>=1.2"'
    )


class _Conversation:
    """One running METEOR process: asks it a line, reads the lines of its answer."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[bytes], timeout: float) -> None:
        self._process = process
        self._errors = errors
        self._timeout = timeout
        self.timed_out = False

    def __call__(self, question: str, lines: int) -> list[str]:
        if self._process.stdin is None or self._process.stdout is None:
            raise MetricError("METEOR's Java process was started without pipes.")
        answers = []
        try:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
            for _ in range(lines):
                answers.append(self._process.stdout.readline())
        except (OSError, UnicodeDecodeError) as error:
            raise self._failure(str(error)) from error
        if not answers[-1].endswith("\n"):
            raise self._failure("it stopped answering")
        return [answer.strip() for answer in answers]

    def stop(self) -> None:
        """Called by the timer."""
        self.timed_out = True
        self._process.kill()

    def _failure(self, what: str) -> MetricError:
        if self.timed_out:
            return MetricError(
                f"METEOR's Java process did not finish within {self._timeout:g} seconds and was stopped."
            )
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 2000))
        said = self._errors.read().decode("utf-8", "replace").strip() or "nothing"
        return MetricError(
            f"METEOR's Java process failed ({what}; exit status {self._process.poll()}). "
            f"It needs Java 8 or newer and about 2 GB of memory. Its last messages: {said}"
        )


@contextlib.contextmanager
def _java(jar: Path, timeout: float) -> Iterator[_Conversation]:
    """Starts METEOR and ends it in every case."""
    java = shutil.which("java")
    if java is None:
        raise MetricError(
            "METEOR needs Java, and there is no `java` on the PATH. Install a Java runtime, "
            "for example: apt install default-jre-headless"
        )
    # As coco-caption starts it, but with UTF-8 and decimal points wherever it runs.
    command = [java, "-Dfile.encoding=UTF-8", "-Duser.language=en", "-Xmx2G", "-jar", str(jar)]
    command += ["-", "-", "-stdio", "-l", "en", "-norm"]
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                cwd=jar.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise MetricError(
                f"METEOR's Java program cannot be started: {java}: {error.strerror}."
            ) from error
        conversation = _Conversation(process, errors, timeout)
        timer = threading.Timer(timeout, conversation.stop)
        timer.daemon = True
        timer.start()
        try:
            yield conversation
        finally:
            timer.cancel()
            process.kill()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what was not written to a dead process
                    if pipe is not None:
                        pipe.close()
            process.wait()
