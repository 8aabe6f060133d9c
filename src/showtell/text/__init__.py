"""Text: the tokeniser that training and scoring share, and the vocabulary."""

from showtell.text.tokenizer import tokenize
from showtell.text.vocabulary import FIRST_WORD, SPECIAL, SpecialTokens, Vocabulary

__all__ = ["FIRST_WORD", "SPECIAL", "SpecialTokens", "Vocabulary", "tokenize"]
