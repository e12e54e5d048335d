"""How good ways of dividing calls are, side by side: ``python -m benchmarks.segmentation [FOLDER…]``.

Over labelled calls (the sample scripts, or any folder in their format): the local model, asked over HTTP as a night
asks; floors that anything should be above; and, with ``--model``, any model of an OpenAI-compatible gateway, with what
it costs a call. So a model can be chosen before an archive is paid for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.bench import FOLDER
from benchmarks.processes import ROOT, clean_environment, running, say
from callphases.errors import CallphasesError
from callphases.gateway import Gateway
from callphases.labelled import LabelledCall, PredictedCall, read_labelled
from callphases.pipeline import Pipeline, load
from callphases.predictions import asked, pipeline_of
from callphases.scorecard import LABELS, Scorecard, scorecard
from callphases.scoring import Span
from callphases.segmentation import Segmenter

SAMPLES = ROOT / "include" / "samples" / "truth"
KEY = "bench-key"  # opens nothing: the local model answers on 127.0.0.1 alone
KEY_VARIABLE = "CALLPHASES_LLM_KEY"
ORDER = ("Introduction", "Complaint", "Resolution", "Goodbye")
NEED = re.compile(
    r"\b(calling (because|about|to)|problem|issue|wrong|broken|lost|stolen|not work\w*|doesn'?t|didn'?t|can'?t|never"
    r"|i('d| would) like|i need|i want|i have a)\b",
    re.IGNORECASE,
)
CLOSING = re.compile(
    r"\b(anything else|thank(s| you) for calling|have a (good|great|nice|lovely)|good ?bye|bye)\b", re.IGNORECASE
)

Way = Callable[[Sequence[LabelledCall]], list[PredictedCall]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Score all ways; returns 0, or 1 where something could not be scored."""
    wanted = _parser().parse_args(arguments)
    try:
        pipeline = load(wanted.pipeline) if wanted.pipeline else None
        calls = [call for call in read_labelled(wanted.folders or [SAMPLES]) if call.phases]
        cards: dict[str, Scorecard] = {}
        for name, way in FLOORS.items():
            cards[f"floor: {name}"] = scorecard(calls, way(calls))
        with _local() as url:
            say("==> the local model")
            cards["local model"] = _ask(calls, "local", url, KEY, pipeline)
        if wanted.model:
            key = os.environ.get(KEY_VARIABLE) or os.environ.get("ASSEMBLYAI_API_KEY") or ""
            if not wanted.url or not key:
                say(f"Give --url, and the gateway's key in {KEY_VARIABLE}.")
                return 1
            for model in wanted.model:
                say(f"==> {model}")
                cards[model] = _ask(calls, model, wanted.url.rstrip("/").removesuffix("/v1"), key, pipeline)
    except CallphasesError as error:
        say(f"BROKEN: {error}")
        return 1
    Console(width=None if sys.stdout.isatty() else 150).print(_table(cards, len(calls)))
    path = FOLDER / "segmentation.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: _figures(card) for name, card in cards.items()}, indent=1))
    say(f"==> Written: {path}")
    return 0


def longest(calls: Sequence[LabelledCall]) -> list[PredictedCall]:
    """One phase alone, the one that has most of the other calls' time."""
    return [
        _predicted(one, [Span(max(shares, key=shares.__getitem__), 0.0, one.end_s)])
        for one, shares in ((one, _shares(calls, one)) for one in calls)
    ]


def proportions(calls: Sequence[LabelledCall]) -> list[PredictedCall]:
    """Each call cut as the other calls are on the mean, in the usual order."""
    found: list[PredictedCall] = []
    for one in calls:
        shares = _shares(calls, one)
        total, start_s, spans = sum(shares.get(name, 0.0) for name in ORDER), 0.0, list[Span]()
        for name in ORDER:
            end_s = start_s + one.end_s * shares.get(name, 0.0) / (total or 1.0)
            spans.append(Span(name, start_s, end_s))
            start_s = end_s
        found.append(_predicted(one, spans))
    return found


def two_rules(calls: Sequence[LabelledCall]) -> list[PredictedCall]:
    """A pattern for the need and one for the close; the next turn of another speaker after the need is the answer."""
    found: list[PredictedCall] = []
    for one in calls:
        edges: list[tuple[str, float]] = [("Introduction", 0.0)]
        need = next((cue for cue in one.cues if NEED.search(cue.text)), None)
        if need is not None:
            edges.append(("Complaint", need.start_s))
            reply = next((cue for cue in one.cues if cue.number > need.number and cue.speaker != need.speaker), None)
            edges += [("Resolution", reply.start_s)] if reply is not None else []
        half_s = one.end_s / 2
        close = next((cue for cue in one.cues if cue.start_s > half_s and CLOSING.search(cue.text)), None)
        edges += [("Goodbye", close.start_s)] if close is not None else []
        edges.sort(key=lambda edge: edge[1])
        ends = [start_s for _, start_s in edges[1:]] + [one.end_s]
        spans = [Span(name, start_s, end_s) for (name, start_s), end_s in zip(edges, ends, strict=True)]
        found.append(_predicted(one, spans))
    return found


FLOORS: dict[str, Way] = {"longest phase": longest, "mean proportions": proportions, "two rules": two_rules}


def _shares(calls: Sequence[LabelledCall], without: LabelledCall) -> dict[str, float]:
    """The mean share of each phase in the calls but one."""
    others = [call for call in calls if call is not without] or [without]
    shares: dict[str, float] = defaultdict(float)
    for call in others:
        for span in call.phases:
            shares[span.name] += (span.end_s - span.start_s) / call.end_s / len(others)
    return dict(shares)


def _predicted(call: LabelledCall, spans: Sequence[Span]) -> PredictedCall:
    return PredictedCall(call.call_id, "", tuple(span for span in spans if span.end_s > span.start_s), call.end_s)


def _ask(calls: Sequence[LabelledCall], model: str, url: str, key: str, pipeline: Pipeline | None) -> Scorecard:
    predicted, spent = asked(calls, Segmenter(Gateway(key, url), pipeline_of(model, pipeline)))
    return scorecard(calls, predicted, spent=spent)


@contextlib.contextmanager
def _local() -> Iterator[str]:
    """speechbox as a process of its own; gives its address."""
    with tempfile.TemporaryDirectory(prefix="callphases-") as folder:
        command = [sys.executable, "-m", "speechbox", "--engine", "scripted", "--port", "0", "--data", folder]
        environment = {**clean_environment(), "SPEECHBOX_API_KEY": KEY}
        log = Path(folder) / "speechbox.log"
        with running(command, log, environment, announced_by="speechbox listening") as (_, url):
            yield url


def _figures(card: Scorecard) -> dict[str, Any]:
    worst = card.calls[0]
    return {
        "calls": len(card.calls),
        "mean": {name: asdict(mean) for name, mean in card.means.items()},
        "worst": {"call_id": worst.labelled.call_id, "accuracy": worst.score.accuracy},
        "usd_a_call": _usd_a_call(card),
    }


def _usd_a_call(card: Scorecard) -> float | None:
    return card.spent.usd / len(card.calls) if card.spent is not None and card.spent.usd is not None else None


def _table(cards: dict[str, Scorecard], calls: int) -> Table:
    table = Table(title=f"{calls} labelled calls", title_justify="left")
    for column in ("way", *LABELS.values(), "worst call", "a call"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, card in cards.items():
        usd = _usd_a_call(card)
        cost = "–" if card.spent is None or name == "local model" else "?" if usd is None else f"${usd:.5f}"
        means = (f"{card.means[label].mean:.3f}" for label in LABELS)
        table.add_row(name, *means, f"{card.calls[0].score.accuracy:.3f}", cost)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.segmentation", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="labelled calls; without, the sample scripts")
    parser.add_argument("--model", action="append", help="a model of --url to score too; may be given several times")
    parser.add_argument("--url", help=f"an OpenAI-compatible gateway; its key is read from {KEY_VARIABLE}")
    parser.add_argument("--pipeline", type=Path, help="a pipeline file, for its phases and prices")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
