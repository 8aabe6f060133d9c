"""What users have today, written anew after the algorithms of the tutorials, and models from `transformers`.

Rivals import nothing of Showtell: what is measured is not helped by it, nor burdened.
"""
