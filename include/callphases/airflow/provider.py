"""Registers the connection type ``assemblyai`` and its form with Airflow, through the package's entry point."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The provider's metadata, as ``airflow providers`` shows it."""
    return {
        "package-name": "callphases",
        "name": "callphases",
        "description": "Call recordings to a table of call phases.",
        "connection-types": [
            {
                "connection-type": "assemblyai",
                "hook-class-name": "callphases.airflow.hook.AssemblyAIHook",
                "hook-name": "AssemblyAI",
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "port", "schema"],
                    "relabeling": {"host": "Speech API", "password": "API key"},
                    "placeholders": {"host": "https://api.assemblyai.com"},
                },
                "conn-fields": {
                    "llm_gateway_url": {
                        "label": "LLM Gateway",
                        "description": "Empty: the gateway of the speech API's region, or of the same server.",
                        "schema": {"type": ["string", "null"], "format": "url"},
                    },
                },
            }
        ],
    }
