"""One reader a format: a function `read(path, options)` that gives a `Dataset`."""
