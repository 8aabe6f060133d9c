"""The report: one page and one JSON file that say how good one or several captioners are, and where they fail.

judge      from models and a split to what the report holds     contents   what it holds
mistakes   rules that find probable mistakes                    words      the words that the rules know
nouns      which words are nouns                                usage      novelty and vocabulary
people     how people do by the same measures
page       all of it as one HTML file                           charts     pictures of numbers
summary    the page's first part, in words                      scores     its second
sections   the parts behind them                                cards      single images
markup     HTML whose text cannot break out                     files      the folder
"""

from showtell.report.contents import Report
from showtell.report.judge import EXAMPLES, PICTURES, judge_models
from showtell.report.mistakes import KINDS, Mistake, find_mistakes
from showtell.report.nouns import Nouns

__all__ = ["EXAMPLES", "KINDS", "PICTURES", "Mistake", "Nouns", "Report", "find_mistakes", "judge_models"]
