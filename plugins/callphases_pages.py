"""Registers the pages in Airflow's UI where the package is on the path but not installed.

An installed package does it by its entry point. Airflow 3.2 warns of a plugin that it finds twice, 3.3 shows an error.
"""

from importlib.metadata import entry_points

if not entry_points(group="airflow.plugins", name="callphases_pages"):
    from callphases.pages.plugin import CallphasesPages as CallphasesPages
