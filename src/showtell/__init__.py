"""Showtell: image captioning. An image goes in, a sentence comes out."""

__version__ = "0.1.0"
