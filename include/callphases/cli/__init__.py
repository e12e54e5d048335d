"""The command line: one module for each command."""

from callphases.cli.program import main

__all__ = ["main"]
