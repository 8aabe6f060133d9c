"""What the alt texts of a site's pages could be: each picture is captioned once, however often it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from showtell.alt_text import REVIEW_BELOW, AltText, write_alt_text
from showtell.captioner import CaptionedPicture, Captioner
from showtell.decoding import DecodingSettings
from showtell.errors import PageError
from showtell.pages.document import parse_page
from showtell.pages.edits import edit_page
from showtell.pages.findings import EMPTY, MISSING, POOR, Finding, find_images
from showtell.pages.site import PageFile, check_page
from showtell.pages.sources import Located, find_base, locate, shorten_address

PROPOSED, LEFT, FAILED = "proposed", "left", "failed"
_LEFT = {
    EMPTY: 'alt="" says that it is decoration',
    POOR: "it has an alt text, though a poor one",
}


@dataclass(frozen=True)
class Proposal:
    """What could be done about one picture that lacks alt text."""

    finding: Finding
    status: str  # "proposed"; "left" on purpose; "failed" by somebody's mistake
    text: AltText | None = None  # set where a text is proposed
    reason: str = ""  # why none is proposed, or why somebody should read it first


@dataclass(frozen=True)
class PageProposals:
    """What could be done about one page."""

    page: PageFile
    proposals: tuple[Proposal, ...]
    error: str = ""  # why the page could not be read, if it could not
    digest: str = ""  # SHA-256 of the page as it was read

    def edit(self) -> tuple[bytes, bytes]:
        """Reads the page again, and returns it as it is and with the proposed texts in it.

        Raises:
            PageError: it has changed since it was read, or a text cannot be put in without changing something else.
            OSError: it cannot be read any more.
        """
        data = self.page.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.digest:
            raise PageError("it has changed meanwhile, and was left alone. Run the same command again")
        texts = {one.finding.element: one.text.text for one in self.proposals if one.text is not None}
        return data, edit_page(parse_page(data, xml=self.page.xml), texts)


def propose(
    pages: Sequence[PageFile],
    captioner: Captioner,
    settings: DecodingSettings | None = None,
    *,
    problems: Collection[str] = (MISSING,),
    review_below: float = REVIEW_BELOW,
    progress: Callable[[int, int], object] | None = None,
) -> Iterator[PageProposals]:
    """Yields what could be done about each page, in order, as soon as its pictures are captioned.

    A page or picture that cannot be read says so, and the others are done.

    Args:
        pages: as `find_pages` gives them.
        captioner: captions the pictures.
        settings: of its search; its own by default.
        problems: what gets a proposal: "missing", "empty", "poor". The rest is only reported.
        review_below: of `write_alt_text`.
        progress: called with (done, total) after each picture that was captioned.
    """
    read = [_read(page, problems) for page in pages]
    # Addresses of equal pictures have equal keys.
    pictures = {one.key: one.image for page in read for _, one in page.found if one.image is not None}
    captions = zip(pictures, captioner.caption(pictures.values(), settings), strict=True)
    done: dict[str, CaptionedPicture] = {}
    for page in read:
        proposals = []
        for finding, located in page.found:
            while located.image is not None and located.key not in done:
                key, picture = next(captions)
                done[key] = picture
                if progress is not None:
                    progress(len(done), len(pictures))
            proposals.append(_propose(finding, located, done.get(located.key), review_below))
        yield PageProposals(page.file, tuple(proposals), page.error, page.digest)


@dataclass(frozen=True)
class _ReadPage:
    file: PageFile
    digest: str
    found: tuple[tuple[Finding, Located], ...]
    error: str = ""


def _read(page: PageFile, problems: Collection[str]) -> _ReadPage:
    if page.error:
        return _ReadPage(page, "", (), page.error)
    try:
        data = page.path.read_bytes()
        check_page(data, page.path)
        document = parse_page(data, xml=page.xml)
    except PageError as error:
        return _ReadPage(page, "", (), str(error))
    except OSError as error:
        return _ReadPage(page, "", (), f"it cannot be read: {error.strerror or error}")
    base = find_base(document)
    found = []
    for finding in find_images(document):
        if finding.only_reported:
            located = Located(None, reason=finding.only_reported)
        elif finding.problem not in problems:
            located = Located(None, reason=_LEFT.get(finding.problem, "it was not asked for"))
        else:
            located = locate(finding.candidates, page.path, page.root, base)
        # Pictures inside of the page are long, and known by now.
        found.append((replace(finding, candidates=(), source=shorten_address(finding.source)), located))
    return _ReadPage(page, hashlib.sha256(data).hexdigest(), tuple(found))


def _propose(
    finding: Finding, located: Located, picture: CaptionedPicture | None, review_below: float
) -> Proposal:
    if picture is None:
        return Proposal(finding, FAILED if located.failed else LEFT, reason=located.reason)
    if picture.error is not None:
        reason = str(picture.error)
        if isinstance(located.image, Path):
            reason = reason.removeprefix(str(located.image)).removeprefix(":").strip()
        return Proposal(finding, FAILED, reason=reason)
    best = picture.captions[0]
    text = write_alt_text(best.text, confidence=best.confidence, review_below=review_below)
    if not text.text:
        return Proposal(finding, FAILED, reason="the model found no words for it")
    if finding.names_link:
        reason = "it is all that a link or button holds: the text should say where that leads"
        return Proposal(finding, PROPOSED, replace(text, needs_review=True), reason)
    return Proposal(finding, PROPOSED, text)
