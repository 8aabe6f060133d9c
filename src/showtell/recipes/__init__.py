"""Recipes: a captioner and its training in a few lines of TOML, checked key by key.

Each file in this folder is one recipe; `load_recipe` also reads a file of the user's own, which may name one of
these with `base = "..."` and change only what differs.
"""

from showtell.recipes.recipe import SECTIONS, Recipe, describe_recipe, list_recipes, list_sequels, load_recipe

__all__ = ["SECTIONS", "Recipe", "describe_recipe", "list_recipes", "list_sequels", "load_recipe"]
