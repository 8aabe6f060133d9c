"""Why these words: where in the picture each word of a caption came from, as a figure and as JSON.

explain        asking: attention, or occlusion        occlusion   hiding parts of the picture
explanation    what is answered                       overlay     cells as light over a picture
figures        attention that is at hand              sheet       pictures with labels on paper
"""

from showtell.explain.explain import METHODS, WINDOWS, explain_attention, explain_caption
from showtell.explain.explanation import Explanation
from showtell.explain.figures import draw_attention, draw_attention_row
from showtell.explain.sheet import draw_sheet

__all__ = [
    "METHODS",
    "WINDOWS",
    "Explanation",
    "draw_attention",
    "draw_attention_row",
    "draw_sheet",
    "explain_attention",
    "explain_caption",
]
