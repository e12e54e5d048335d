"""Files that come with the package: table definitions for warehouses, the pipeline template."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def shipped(folder: str) -> Traversable:
    """A folder of these: ``sql`` or ``pipelines``. It is in the installed package, and beside it in a checkout.

    Raises:
        FileNotFoundError: it is in neither.
    """
    for place in (files("callphases") / folder, Path(__file__).parents[1] / folder):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"callphases was installed without its folder {folder}.")
