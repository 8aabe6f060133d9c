"""Web pages: which of their pictures lack alt text, what it could be, and how it gets in and nothing else changes."""

from __future__ import annotations

from showtell.pages.document import Document, parse_page
from showtell.pages.edits import edit_page, write_copy, write_in_place
from showtell.pages.findings import EMPTY, MISSING, POOR, PROBLEMS, Finding, find_images, judge_alt
from showtell.pages.proposals import PageProposals, Proposal, propose
from showtell.pages.site import PAGE_SUFFIXES, PageFile, find_pages
from showtell.pages.sources import Located, find_base, locate, shorten_address

__all__ = [
    "EMPTY",
    "MISSING",
    "PAGE_SUFFIXES",
    "POOR",
    "PROBLEMS",
    "Document",
    "Finding",
    "Located",
    "PageFile",
    "PageProposals",
    "Proposal",
    "edit_page",
    "find_base",
    "find_images",
    "find_pages",
    "judge_alt",
    "locate",
    "parse_page",
    "propose",
    "shorten_address",
    "write_copy",
    "write_in_place",
]
