"""``python -m benchmarks.segmentation``: scores the local model, other models and baselines on labeled calls.

The results go to ``segmentation.json`` and ``segmentation.txt`` in ``.callphases/bench``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.bench import FOLDER, Bench
from benchmarks.figures import Figure
from benchmarks.floors import floors
from benchmarks.processes import ROOT, Broken, clean_environment, running, say
from callphases.connections import gateway_to_score
from callphases.errors import CallphasesError
from callphases.pipeline import load
from callphases.scoring.labelled import LabelledCall, read_labelled
from callphases.scoring.predictions import pipeline_of, predict
from callphases.scoring.scorecard import LABELS, Scorecard, document, scorecard
from callphases.segmentation.gateway import Gateway
from callphases.segmentation.segmenter import Segmenter

SAMPLES = ROOT / "include" / "samples" / "truth"
LOCAL = "speechbox's local model"


def main(arguments: Sequence[str] | None = None) -> int:
    """Score all models; returns 1 if one could not be queried."""
    given = _parser().parse_args(arguments)
    if len(given.url) not in (1, len(given.model)) and given.model:
        raise SystemExit("Give one --url for all models, or one per model.")
    failed = 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        calls = read_labelled(given.folders or [SAMPLES])
        cards = _floors(calls)
        say(f"==> {len(calls)} labeled calls")
        with local_model(FOLDER / "segmentation.log") as url:
            cards[LOCAL] = _model(calls, "local", Gateway("any", url), given.pipeline)
        for place, model in enumerate(given.model):
            say(f"==> {model}")
            try:
                gateway = gateway_to_score(given.url[place % len(given.url)])
                cards[model] = _model(calls, model, gateway, given.pipeline)
            except CallphasesError as error:
                failed += 1
                say(f"BROKEN {model}: {error}")
    except (CallphasesError, Broken) as error:
        raise SystemExit(f"segmentation: {error}") from None
    Console(width=None if sys.stdout.isatty() else 150).print(table(cards))
    for path in write(cards, FOLDER):
        say(f"==> Written: {path}")
    return 1 if failed else 0


def measure(_: Bench) -> list[Figure]:
    """Score the local model and the baselines on the sample calls, for ``python -m benchmarks``.

    Raises:
        Broken: a library is missing, or the local model does not respond.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        calls = read_labelled([SAMPLES])
        cards = _floors(calls)
        with local_model(FOLDER / "segmentation.log") as url:
            cards[LOCAL] = _model(calls, "local", Gateway("any", url), None)
        write(cards, FOLDER)
        return [
            Figure(f"accuracy: {name}", card.means["accuracy"].mean, note=f"worst call {_worst(card)}")
            for name, card in cards.items()
        ]
    except CallphasesError as error:
        raise Broken(str(error)) from None


@contextlib.contextmanager
def local_model(log: Path) -> Iterator[str]:
    """Run speechbox without a speech model, for its segmenter; yields its URL.

    Raises:
        Broken: speechbox did not start.
    """
    with tempfile.TemporaryDirectory(prefix="segmentation-") as data:
        command = [sys.executable, "-m", "speechbox", "--engine", "scripted", "--port", "0", "--data", data]
        with running(command, log, clean_environment(), announced_by="speechbox listening") as (_, url):
            yield url


def table(cards: dict[str, Scorecard]) -> Table:
    """Create a table with one line per model or baseline."""
    drawn = Table(title="phases compared with labeled calls (95 % intervals over calls)", title_justify="left")
    drawn.add_column("by")
    for name in (*LABELS.values(), "worst call", "$ a call"):
        drawn.add_column(name, justify="right")
    for by, card in cards.items():
        means = [
            f"{mean.mean:.3f} [{mean.low:.3f}–{mean.high:.3f}]" if name == "accuracy" else f"{mean.mean:.3f}"
            for name, mean in card.means.items()
        ]
        drawn.add_row(by, *(text.replace("[", r"\[") for text in means), _worst(card), _cost(card))
    return drawn


def write(cards: dict[str, Scorecard], folder: Path) -> list[Path]:
    """Write the table and all figures; returns the paths."""
    paths = [folder / "segmentation.json", folder / "segmentation.txt"]
    about = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    whole = {**about, "ways": {name: document(card) for name, card in cards.items()}}
    paths[0].write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with paths[1].open("w", encoding="utf-8") as out:
        Console(file=out, width=150).print(table(cards))
    return paths


def _floors(calls: Sequence[LabelledCall]) -> dict[str, Scorecard]:
    if sum(bool(call.phases) for call in calls) < 2:
        return {}  # the baselines learn from the other calls
    return {name: scorecard(calls, predicted) for name, predicted in floors(calls).items()}


def _model(calls: Sequence[LabelledCall], model: str, gateway: Gateway, pipeline: Path | None) -> Scorecard:
    set_up = pipeline_of(model, load(pipeline) if pipeline is not None else None)
    predicted, spent = predict(calls, Segmenter(gateway, set_up))
    return scorecard(calls, predicted, spent=spent)


def _worst(card: Scorecard) -> str:
    return f"{card.calls[0].score.accuracy:.3f}"


def _cost(card: Scorecard) -> str:
    if card.spent is None or card.spent.models == ["local"]:
        return "0"
    return "?" if card.spent.usd is None else f"{card.spent.usd / len(card.calls):.5f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.segmentation",
        description="Scores the local model, baselines, and models behind OpenAI-compatible gateways on labeled calls.",
        epilog="The gateway's key is read from CALLPHASES_LLM_KEY, else ASSEMBLYAI_API_KEY.",
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="labeled calls; default: the samples")
    parser.add_argument("--model", action="append", default=[], help="another model to score; may be repeated")
    parser.add_argument("--url", action="append", default=[], help="gateway: one for all models, or one per model")
    parser.add_argument("--pipeline", type=Path, help="pipeline file with phases, descriptions and prices")
    return parser


if __name__ == "__main__":
    sys.exit(main())
