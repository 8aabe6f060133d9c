"""The commands that the documentation shows: what is in the code blocks of its pages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ["curl", "export", "find", "make", "nginx", "pip", "python", "showtell", "torchrun"]
_NOT_SHELL = ("python", "toml", "json", "nginx", "math", "text")  # languages of fenced blocks
_COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ +)*(?:{'|'.join(PROGRAMS)})(?: |$)")


@dataclass(frozen=True)
class Command:
    """One command as a page shows it, lines that a backslash joins as one."""

    page: str  # its path in the repository
    line: int
    text: str

    @property
    def bare(self) -> str:
        """The command without the variables that are set before it."""
        return re.sub(r"^(?:[A-Z_]+=\S+ +)*", "", self.text)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def find_pages() -> list[str]:
    """Every page of the documentation that is written by hand, as the site has them."""
    others = ["README.md", "CONTRIBUTING.md", "models/README.md", "benchmarks/README.md"]
    cards = (ROOT / "src").rglob("*.md")
    return others + sorted(
        path.relative_to(ROOT).as_posix() for path in [*cards, *(ROOT / "docs").glob("*.md")]
    )


def find_commands(page: str) -> list[Command]:
    """The commands in the code blocks of a page, fenced or indented."""
    return [command for block in _find_blocks(page) for command in block if _COMMAND.match(command.text)]


def find_shell_lines(page: str) -> list[Command]:
    """All lines of the blocks that are fenced as `console`: nothing but commands stands there."""
    return [line for block in _find_blocks(page, only="console") for line in block if line.text]


def find_inline(page: str) -> list[Command]:
    """The `showtell` commands within the text of a page."""
    found = []
    for number, line in enumerate(read_page(page).splitlines(), 1):
        if not line.startswith("    "):
            spans = re.findall(r"(?<!`)`(showtell [^`]+)`(?!`)", line)
            found += [Command(page, number, span) for span in spans]
    return found


def read_page(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _find_blocks(page: str, only: str = "") -> list[list[Command]]:
    """The lines of each code block."""
    blocks: list[list[Command]] = [[]]
    language: str | None = None  # of the fenced block that is open
    joined = ""
    for number, line in enumerate(read_page(page).splitlines(), 1):
        fence = re.match(r"```(\w*)", line)
        if fence:
            language = fence[1] if language is None else None
            blocks.append([])
        elif (only and language != only) or language in _NOT_SHELL:
            continue
        elif language is not None or line.startswith("    "):
            text = joined + line.strip()
            joined = text[:-1] if text.endswith("\\") else ""
            if not joined:
                blocks[-1].append(Command(page, number, re.sub(r"\s+#\s.*", "", text)))
    return blocks
