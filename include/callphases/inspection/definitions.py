"""Table definitions for warehouses, filled in for a pipeline, and questions in an engine's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources.abc import Traversable

from callphases.errors import ConfigurationError
from callphases.pipeline import Column, Pipeline
from callphases.shipped import shipped
from callphases.tables.schema import SCHEMAS

QUESTIONS = "questions"
_LIKE = {"string": "run_id", "int64": "llm_input_tokens", "double": "duration_s", "timestamp": "processed_at"}
"""For types of a pipeline's own columns: a column of the tables that has it."""
_DOUBLE = re.compile(r"(?i)\bDOUBLE PRECISION\b|\bDOUBLE\b|\bFLOAT64\b")
_BOOLEAN = {"bigquery": "BOOL", "clickhouse": "Bool", "athena": "boolean"}
_DOUBLES = {"bigquery": "FLOAT64", "redshift": "DOUBLE PRECISION"}
"""What these engines call a double, where the questions say DOUBLE."""


def engines() -> list[str]:
    """The engines that there are definitions for."""
    return sorted(one.name for one in shipped("sql").iterdir() if one.is_dir() and one.name != QUESTIONS)


def definition(engine: str, pipeline: Pipeline | None = None, filled: Mapping[str, str] | None = None) -> str:
    """The statements that define the tables in an engine.

    Args:
        engine: one of ``engines()``.
        pipeline: whose ``output.tables`` and own columns are put in.
        filled: values of other placeholders.

    Raises:
        ConfigurationError: there is no such engine, or no such placeholder.
    """
    text = (_folder(engine) / "tables.sql").read_text(encoding="utf-8")
    values = dict(filled or {})
    if pipeline is not None:
        text = _with_columns(text, engine, pipeline.recordings.columns)
        values.setdefault("tables", pipeline.output.tables)
    known = set(placeholders(text))
    if unknown := values.keys() - known:
        raise ConfigurationError(
            f"{engine} has no placeholder {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}."
        )
    for name, value in values.items():
        # The comments keep what they explain, and lose what is filled in.
        text = re.sub(r"(?m)^(?!--)(.*)$", lambda line: line[1].replace(f"{{{name}}}", value), text)  # noqa: B023
    return text


def placeholders(text: str) -> list[str]:
    """The placeholders of a definition that are not filled in."""
    statements = re.sub(r"(?m)^--.*$", "", text)
    return sorted(set(re.findall(r"\{([a-z_]+)\}", statements)))


def questions(engine: str) -> dict[str, str]:
    """The questions by name, as the engine understands them.

    Raises:
        ConfigurationError: there is no such engine.
    """
    _folder(engine)
    found = sorted((shipped("sql") / QUESTIONS).iterdir(), key=lambda one: one.name)
    return {
        one.name.removesuffix(".sql"): one.read_text(encoding="utf-8").replace(
            "AS DOUBLE)", f"AS {_DOUBLES.get(engine, 'DOUBLE')})"
        )
        for one in found
        if one.name.endswith(".sql")
    }


def _folder(engine: str) -> Traversable:
    if engine not in engines():
        raise ConfigurationError(f"There is no definition for {engine!r}; there are: {', '.join(engines())}.")
    return shipped("sql") / engine


def _with_columns(text: str, engine: str, columns: Mapping[str, Column]) -> str:
    """The definitions with a pipeline's own columns after the last of each table."""
    if not columns:
        return text
    lines = text.splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith("CREATE")]
    patterns = {name: _line_of(lines, like) for name, like in _LIKE.items()}
    patterns["boolean"] = _DOUBLE.sub(_BOOLEAN.get(engine, "BOOLEAN"), patterns["double"].replace("Float64", "DOUBLE"))
    new = [
        re.sub(rf"\b{_LIKE.get(column.type, 'duration_s')}\b", name, patterns[column.type])
        for name, column in columns.items()
    ]
    for table, schema in SCHEMAS.items():
        start = next(at for at in starts if re.search(rf"\b{table}\b", lines[at]))
        last = next(at for at in range(start, len(lines)) if re.search(rf"\b{schema.names[-1]}\b", lines[at]))
        comma = "," if lines[last].endswith(",") else ""
        lines[last] = "\n".join([f"{line.rstrip(',')}," for line in [lines[last], *new]]).removesuffix(",") + comma
    return "\n".join(lines) + "\n"


def _line_of(lines: list[str], column: str) -> str:
    """The line that defines a column."""
    return next(line for line in lines if not line.startswith("--") and re.search(rf"\b{column}\b", line))
