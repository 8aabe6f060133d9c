"""The command line: one file per command, each with `add_parser(commands)` and `run(arguments) -> exit code`.

A command imports what it works with inside `run`, so that `showtell --help` starts at once and never loads a
deep-learning framework. Standard output carries results only; progress and messages go to standard error.
"""
