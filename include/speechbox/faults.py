"""Fault injection: the kinds of faults, the rules that trigger them, and the choice for a request or job."""

import fnmatch
import json
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import quote, unquote, urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from speechbox import chat
from speechbox.options import speech_models

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Json = dict[str, Any]

SUBMIT = "POST /v2/transcript"
CHAT = "POST /v1/chat/completions"
HEALTH_PATH, FAULTS_PATH = "/health", "/faults"
#: Paths without faults.
SPARED = (HEALTH_PATH, FAULTS_PATH)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """Where a kind of fault applies, and the parameters of its rules."""

    routes: tuple[str, ...] = ("*",)  # empty for faults of jobs
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


WRONG_ANSWERS = (
    "fenced", "wordy", "cut", "not_json", "empty", "wrong_name", "missing_call", "unordered", "unknown_cue",
    "missing_fields", "refusal", "no_choices",
)  # fmt: skip
KINDS = {
    "status": Kind(needs=("status",), takes=("retry_after_s", "shape", "message", "empty")),
    "drop": Kind(),
    "drop_answer": Kind(),
    "slow": Kind(needs=("delay_s",)),
    "negative_balance": Kind((SUBMIT, CHAT), takes=("shape", "message")),
    "retired_models": Kind((SUBMIT, CHAT), needs=("models",), takes=("shape",)),
    "no_response_format": Kind((CHAT,), takes=("shape",)),
    "context_limit": Kind((CHAT,), takes=("shape", "over_cues")),
    **dict.fromkeys(WRONG_ANSWERS, Kind((CHAT,))),
    "job_error": Kind((), takes=("message", "delay_s")),
    "job_slow": Kind((), needs=("delay_s",)),
    "speech_fallback": Kind((), needs=("model",)),
}
_COMMON = ("fault", "on", "match", "rate", "times")

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, StringConstraints(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Rule(_Strict):
    """A fault, and when it happens."""

    fault: str
    on: Text | None = None
    match: Text | None = None
    rate: float = Field(1.0, ge=0, le=1)
    times: int | None = Field(None, ge=0)
    status: int | None = Field(None, ge=400, le=599)
    retry_after_s: int | None = Field(1, ge=0)
    shape: Literal["nested", "flat", "status"] | None = None
    message: Text | None = None
    empty: bool = False
    delay_s: Seconds = 0.0
    models: list[Text] = Field([], min_length=1)
    model: Text | None = None
    over_cues: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        kind = KINDS.get(self.fault)
        if kind is None:
            raise ValueError(f"fault: {self.fault} is not one of {', '.join(KINDS)}")
        for name in kind.needs:
            if name not in self.model_fields_set:
                raise ValueError(f"{name}: needed by the fault {self.fault}")
        for name in sorted(self.model_fields_set.difference(_COMMON, kind.needs, kind.takes)):
            raise ValueError(f"{name}: not a parameter of the fault {self.fault}")
        if self.on is not None:
            if not kind.routes:
                raise ValueError(f"on: {self.fault} is a fault of jobs, which are told apart by match alone")
            if not re.fullmatch(r"\*|\S+ \S+", self.on):
                raise ValueError('on: a method and a path are expected, as in "GET /v2/transcript*"')
            if kind.routes != ("*",) and not any(map(self.hits, kind.routes)):
                raise ValueError(f"on: {self.fault} happens on {' and '.join(kind.routes)} only")
        if self.match is not None and kind.routes and not (self.hits(SUBMIT) and {SUBMIT, "*"} & {*kind.routes}):
            raise ValueError(f"match: goes with faults of jobs and of {SUBMIT} only")
        return self

    @property
    def is_of_jobs(self) -> bool:
        """Whether the fault applies to jobs rather than requests."""
        return not KINDS[self.fault].routes

    def hits(self, route: str) -> bool:
        """Whether the rule applies to requests with this method and path."""
        return fnmatch.fnmatchcase(route, self.on or "*")


class Document(_Strict):
    """The content of a fault file and of PUT /faults."""

    seed: int = 0
    rules: list[Rule] = []


def parse(text: str | bytes) -> Document:
    """Parse JSON or YAML; raises `ValueError` with a one-line message that names the key."""
    try:
        content = _loaded(text)
        return Document.model_validate({} if content is None else content)
    except ValidationError as error:
        raise ValueError("; ".join(map(_problem, error.errors()))) from None


def _problem(error: "ErrorDetails") -> str:
    where, what = ".".join(map(str, error["loc"])), error["msg"]
    own = what.removeprefix("Value error, ")  # starts with the key
    return f"{where}.{own}" if own != what else f"{where or 'the document'}: {what}"


def load(path: Path) -> Document:
    """Parse a file; raises `ValueError` or `OSError` with its name."""
    try:
        return parse(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _loaded(text: str | bytes) -> Any:
    try:
        return json.loads(text)  # YAML's parser rejects tabs, which JSON may contain
    except ValueError:
        pass
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (a safe loader)
    except yaml.YAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""  # type: ignore[attr-defined]
        raise ValueError(
            f"neither JSON nor YAML: {getattr(error, 'problem', None) or 'bad characters'}{line}"
        ) from None


class _Loader(yaml.SafeLoader):
    """A loader that reads `on` as a string rather than as true, unlike YAML 1.1."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        letter: [(tag, pattern) for tag, pattern in resolvers if letter not in "oO" or not tag.endswith(":bool")]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True)
class Asked:
    """The parts of a request that rules examine; the body is empty unless it is a JSON object that was read."""

    method: str
    path: str
    body: Json = field(default_factory=dict)

    @property
    def route(self) -> str:
        """Method and path, as rules name them."""
        return f"{self.method} {self.path}"

    @cached_property
    def models(self) -> list[str]:
        """The models that the request names."""
        named = self.body.get("speech_models")
        names = named if isinstance(named, list) else []
        return [name for name in (*names, self.body.get("speech_model"), self.body.get("model")) if name]

    @cached_property
    def question(self) -> Json:
        """The document of a chat, or an empty dict."""
        messages = self.body.get("messages")
        if not isinstance(messages, list):
            return {}
        try:
            return chat.question([message for message in messages if isinstance(message, dict)])
        except chat.InvalidChat:
            return {}


@dataclass(frozen=True)
class Firing:
    """A rule that fires; `turn` selects among alternatives such as error formats or the call to corrupt."""

    rule: Rule
    turn: int

    def one_of(self, ways: list[Any] | tuple[Any, ...]) -> Any:
        """Select an alternative."""
        return ways[self.turn % len(ways)]


#: Conditions of faults on a request beyond its route.
_CONDITIONS: dict[str, Callable[[Rule, Asked], bool]] = {
    "retired_models": lambda rule, asked: any(model in rule.models for model in asked.models),
    "no_response_format": lambda _, asked: bool(asked.body.get("response_format")),
    "context_limit": lambda rule, asked: rule.over_cues is None or _cues(asked.question) > rule.over_cues,
}


class _Active:
    """An active rule with its own random stream and counts."""

    def __init__(self, rule: Rule, seed: int, position: int) -> None:
        self.rule = rule
        self.looked_at = self.fired = 0
        self._seed = seed
        self._random = random.Random(f"{seed}/{position}")  # noqa: S311
        self._by_path: Counter[str] = Counter()

    def fits(self, asked: Asked) -> bool:
        """Whether the rule applies to the request."""
        rule, kind = self.rule, KINDS[self.rule.fault]
        if rule.is_of_jobs or not rule.hits(asked.route):
            return False
        if kind.routes != ("*",) and asked.route not in kind.routes:
            return False
        if rule.match is not None and (asked.route != SUBMIT or not self.matches(asked.body.get("audio_url"))):
            return False
        condition = _CONDITIONS.get(rule.fault)
        return condition is None or condition(rule, asked)

    def fits_job(self, audio_url: str, options: Mapping[str, Any]) -> bool:
        """Whether the rule applies to the job."""
        if not self.rule.is_of_jobs or not self.matches(audio_url):
            return False
        return self.rule.fault != "speech_fallback" or speech_models(options)[0] != self.rule.model

    def matches(self, audio_url: object) -> bool:
        """Whether the path of the audio's URL matches the rule."""
        return self.rule.match is None or fnmatch.fnmatchcase(_path(audio_url), self.rule.match)

    def draws(self, path: str | None) -> bool:
        """Draw whether the fault happens now, unless an earlier rule fires."""
        self.looked_at += 1
        hit = self._random.random() < self.rule.rate
        return hit and (self.rule.times is None or self._fired_for(path) < self.rule.times)

    def fire(self, path: str | None) -> Firing:
        """Count the fault."""
        self.fired += 1
        if self._is_by_path and path is not None:
            self._by_path[path] += 1
        return Firing(self.rule, self._seed + self.fired - 1)

    @property
    def _is_by_path(self) -> bool:
        return self.rule.is_of_jobs and self.rule.match is not None and self.rule.times is not None

    def _fired_for(self, path: str | None) -> int:
        return self._by_path[path] if self._is_by_path and path is not None else self.fired


class Faults:
    """The active rules; used from the event loop's thread only."""

    def __init__(self, document: Document | None = None) -> None:
        self.replace(document or Document())

    def replace(self, document: Document) -> None:
        """Replace the rules and reset the counts."""
        self._document = document
        #: Empty without faults, so that callers can skip everything else.
        self.rules = [_Active(rule, document.seed, position) for position, rule in enumerate(document.rules)]

    def report(self) -> Json:
        """Return the document, and for each rule how often it was evaluated and how often it fired."""
        return {
            "faults": self._document.model_dump(exclude_unset=True) | {"seed": self._document.seed},
            "counts": [
                {"fault": active.rule.fault, "looked_at": active.looked_at, "fired": active.fired}
                for active in self.rules
            ],
        }

    def of_request(self, asked: Asked) -> Firing | None:
        """Return the fault for the request, if any."""
        firing = _first((active for active in self.rules if active.fits(asked)), None)
        if firing:
            logger.info("fault %s on %s %s", firing.rule.fault, asked.method, quote(asked.path))
        return firing

    def of_job(self, transcript_id: str, audio_url: str, options: Mapping[str, Any]) -> Firing | None:
        """Return the fault for the job, if any; call it once per job, when the job starts."""
        fitting = (active for active in self.rules if active.fits_job(audio_url, options))
        firing = _first(fitting, _path(audio_url))
        if firing:
            logger.info("fault %s on transcript %s", firing.rule.fault, transcript_id)
        return firing


def _first(fitting: Iterable[_Active], path: str | None) -> Firing | None:
    # All rules draw, so that the draws of a rule depend on its own requests only.
    drawn = [active for active in fitting if active.draws(path)]
    return drawn[0].fire(path) if drawn else None


def _path(url: object) -> str:
    """Return the decoded path of a URL."""
    try:
        return unquote(urlsplit(url).path) if isinstance(url, str) else ""
    except ValueError:
        return ""


def _cues(question: Json) -> int:
    calls = question.get("calls")
    cues = (call.get("cues") for call in calls if isinstance(call, dict)) if isinstance(calls, list) else ()
    return sum(len(one) for one in cues if isinstance(one, list))
