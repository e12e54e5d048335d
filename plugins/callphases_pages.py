"""Registers the pages in Airflow's UI where the package is on the path but not installed.

An installed package registers the same plugin through its entry point; Airflow takes one of the two.
"""

from callphases.pages.plugin import CallphasesPages

__all__ = ["CallphasesPages"]
