"""`python -m midiex` is the command line."""

from .cli import main

main()
