"""callphases: from a bucket of call recordings to a table of call phases."""

__all__ = ["__version__"]

__version__ = "0.2.0"
