"""What a service says when it refuses a request. Only the two clients and their throttle read such text.

Services are told apart by the codes in their errors where they send codes, and by their words only where they don't.
Codes, formats and words are from the public documentation and from public reports of errors of AssemblyAI, OpenAI,
Anthropic, Azure OpenAI, Bedrock, Gemini and Vertex AI, OpenRouter, LiteLLM, vLLM, llama.cpp, Ollama, Groq, Mistral,
Together AI and others, as of November 2026; the tests hold a table of them.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import requests

from callphases.errors import without_secrets

LONGEST_BUSY_S = 600.0
"""A service that asks for a longer wait has a quota that is used up."""


class Reason(enum.Enum):
    """Why a service refuses a request."""

    BALANCE = "the account has no money or budget left"
    KEY = "the key is wrong, or does not grant access"
    MODEL = "the model is retired, unknown, or not open to this account"
    TOO_LONG = "the question does not fit into the model's context"
    CONTENT = "a filter rejects the content of this question"
    ANSWER = "the model did not produce an answer of the requested form"
    BUSY = "too many requests: another attempt may succeed"
    QUOTA = "the quota of a day or a month is used up"
    OTHER = "something else in the request"


@dataclass(frozen=True)
class Refusal:
    """An error of a service.

    Attributes:
        status: the HTTP status.
        text: the service's words for a log or a row: one line without secrets, or empty.
        words: more of them, to tell what they mean.
        codes: its error codes and types, in lower case without punctuation, so that a code has one form everywhere.
        parameter: the request's parameter that the error names in a field of its own, or empty.
        asked: the model that was asked, if one was.
        may_wait: a header says when to try again.
    """

    status: int
    text: str
    words: str = field(repr=False)
    codes: frozenset[str]
    parameter: str
    asked: str = ""
    may_wait: bool = False

    @property
    def reason(self) -> Reason:
        """Why the request was refused."""
        return _reason(self)


def read_refusal(response: requests.Response, clean: Callable[[str], str] = str, asked: str = "") -> Refusal:
    """Read an error response in any of the services' formats.

    Args:
        response: of any status.
        clean: removes from the service's words what must not be logged, before they are truncated.
        asked: the model that was asked, if one was.
    """
    document = document_of(response)
    if isinstance(document, list):  # Vertex AI wraps its errors
        document = next((one for one in document if isinstance(one, dict)), {})
    if document is None:
        document = re.sub(r"(?is)<(style|script)\b.*?</\1>|<[^>]*>", " ", response.text)
    refusal = refusal_of(document, response.status_code, clean)
    code = _code(response.headers.get("x-amzn-errortype", ""))
    return replace(refusal, codes=refusal.codes | {code}, asked=asked, may_wait="retry-after" in response.headers)


def refusal_of(document: object, status: int, clean: Callable[[str], str] = str) -> Refusal:
    """The error that a document, or a text, describes; see ``read_refusal``."""
    codes: list[str] = []
    parameters: list[str] = []
    _read_codes(document, codes, parameters)
    found = list(_words(document)) or (list(_strings(document)) if status >= 400 else [])
    words = " ".join(dict.fromkeys(" ".join(one.split()) for one in found if one.strip()))
    # Validation errors repeat their input, which is what callers say.
    words = re.sub(r"""(?i)['"]input['"]\s*:.*|\binput_value\s*=.*|\bflagged_input\b.*""", "…", words)
    words = clean("".join(sign if sign.isprintable() else " " for sign in words[:_MOST]))
    mentioned = re.findall(r"\b[A-Za-z]+(?:_[A-Za-z]+)+\b|\b(?:[A-Z][a-z]+){2,}\b", words)
    return Refusal(
        status=status,
        text=without_secrets(words),
        words=words,
        codes=frozenset(_code(one) for one in (*codes, *mentioned)),
        parameter=next((one for one in parameters if one), ""),
    )


def error_text(response: requests.Response) -> str:
    """The error message of a response, in any of the services' formats: one line without secrets, or empty."""
    return read_refusal(response).text


def document_of(response: requests.Response) -> object | None:
    """The JSON document of a response; None if its body is anything else."""
    try:
        return json.loads(response.content)  # type: ignore[no-any-return]
    except (ValueError, RecursionError):  # also digits without end, and bytes that are no text
        return None


def in_band_status(response: requests.Response) -> int:
    """The status of a response; of an error in the document of a 200, the status that the document gives.

    Gateways send such errors when they have answered 200 before the model failed.
    """
    document = document_of(response) if response.status_code < 300 else None
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, dict) or document.get("choices"):
        return response.status_code
    return status_in(document) or response.status_code


def status_in(document: dict[str, Any]) -> int | None:
    """The HTTP status that an error's document gives; None if it describes no error.

    Without a status of its own, an error counts as 429 if it says that the service is busy, else as 400.
    """
    error = document.get("error") or document.get("errors")
    for part in (error if isinstance(error, dict) else {}, document):
        for name in _STATUSES:
            if re.fullmatch(r"[45]\d\d", str(part.get(name))):
                return int(part[name])
    if not error:
        return None
    codes: list[str] = []
    _read_codes(document, codes, [])
    return 429 if _BUSY_CODES.intersection(map(_code, codes)) else 400


def is_throttled(refusal: Refusal) -> bool:
    """Whether to send the request again later: after most 429s, and after a 403 that gives no reason."""
    if refusal.status == 403 and refusal.reason is Reason.KEY:
        return not (refusal.codes & _KEY_CODES or _has_words(refusal.text))
    return 400 <= refusal.status < 500 and refusal.reason in (Reason.BUSY, Reason.QUOTA)


def is_outage(refusal: Refusal) -> bool:
    """Whether the service failed, so that another attempt may succeed: a 5xx that names no fault of the request."""
    if refusal.status in (408, 425):
        return True
    return refusal.status >= 500 and refusal.status != 501 and refusal.reason in (Reason.BUSY, Reason.OTHER)


def retired_model(text: str, asked: Sequence[str]) -> str | None:
    """The first of the ``asked`` models of which an error message says that it is gone, unknown or not open; else None.

    A message that a model lacks an option or a language does not mean that.
    """
    named = "|".join(re.escape(model) for model in sorted(asked, key=len, reverse=True) if model)
    if not named:
        return None
    found = _gone(rf"(?<![\w./-])(?:[\w-]+/)*(?P<name>{named})(?![\w-]|\.\w)").search(_plain(text))
    if found is None:
        return None
    name = next(one for one in found.groupdict().values() if one)
    return next(model for model in asked if model.casefold() == name.casefold())


def _words(part: object, depth: int = 0) -> Iterator[str]:
    """The messages in an error document: only of fields that hold messages, as others may repeat the request."""
    if depth > 6:
        return
    if isinstance(part, str):
        inner = _json_in(part)
        if inner is None:
            yield part
        else:
            yield from _words(inner, depth + 1)
    elif isinstance(part, list):
        for one in part:
            yield from _words(one, depth + 1)
    elif isinstance(part, dict):
        if "loc" in part and isinstance(part.get("msg"), str):  # of FastAPI
            where = part["loc"] if isinstance(part["loc"], list) else [part["loc"]]
            yield f"{'.'.join(map(str, where))}: {part['msg']}"
            return
        for name in _WORDY:
            yield from _words(part.get(name), depth + 1)
        metadata = part.get("metadata")
        if isinstance(metadata, dict):
            yield from _words(metadata.get("errors"), depth + 1)
            yield from _words(metadata.get("raw"), depth + 1)


def _strings(part: object, depth: int = 0) -> Iterator[str]:
    """All text in an error document that has its message in no known place."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict | list) and depth <= 6:
        for one in part.values() if isinstance(part, dict) else part:
            yield from _strings(one, depth + 1)


def _json_in(text: str) -> object | None:
    """The document in a message that is JSON itself, as proxies send it."""
    if text[:1] not in ("{", "["):
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict | list) else None


def _read_codes(part: object, codes: list[str], parameters: list[str], depth: int = 0) -> None:
    if depth > 6:
        return
    if isinstance(part, str):
        part = _json_in(part)
    if isinstance(part, list):
        for one in part:
            _read_codes(one, codes, parameters, depth + 1)
    elif isinstance(part, dict):
        codes += [part[name] for name in _CODED if isinstance(part.get(name), str)]
        parameters += [part["param"]] if isinstance(part.get("param"), str) else []
        if isinstance(part.get("loc"), list) and part["loc"]:
            parameters.append(str(part["loc"][-1]))
        for name in _NESTED:
            _read_codes(part.get(name), codes, parameters, depth + 1)


def _code(text: str) -> str:
    # Of AWS: com.amazonaws.bedrock#ValidationException:http://…
    return re.sub(r"[\W_]", "", text.rpartition("#")[2].partition(":")[0]).lower()


def _has_words(text: str) -> bool:
    """Whether a 403 gives a reason other than throttling."""
    generic = r"forbidden|access denied|too many requests|(request )?rate limit|exceeded|throttled|[\W\d_]"
    return bool(re.sub(generic, "", text.lower()))


def _plain(text: str) -> str:
    """A text with one kind of quote."""
    return re.sub(r"[‘’`“”\"]", "'", text)


def _reason(refusal: Refusal) -> Reason:
    status, codes, text = refusal.status, refusal.codes, _plain(refusal.words)

    def says(pattern: re.Pattern[str]) -> bool:
        # What a server writes when it fails is no verdict on the request; its codes are.
        return status < 500 and pattern.search(text) is not None

    is_busy = status == 429 or bool(codes & _BUSY_CODES)
    if codes & _BALANCE_CODES or (status == 402 and not refusal.may_wait):
        return Reason.BALANCE
    if _about_model(refusal) and (
        codes & _MODEL_CODES
        or refusal.parameter == "model"
        or (
            not is_busy
            and (says(_GONE) or (status < 500 and retired_model(refusal.words, [refusal.asked]) is not None))
        )
        or (codes & _NOT_FOUND_CODES and says(_MODEL_WORD))
    ):
        return Reason.MODEL
    if codes & _LONG_CODES or status == 413 or says(_TOO_LARGE if is_busy else _LONG):
        return Reason.TOO_LONG
    if says(_BALANCE) or (says(_BILLING) and not codes & {"resourceexhausted"}):
        return Reason.BALANCE
    if codes & _CONTENT_CODES or (not is_busy and says(_CONTENT)):
        return Reason.CONTENT
    if status == 401 or codes & _KEY_CODES or says(_KEY):
        return Reason.KEY
    if is_busy or status == 402:
        return Reason.QUOTA if _lasts(codes, text) else Reason.BUSY
    if status == 403:
        return Reason.KEY
    return Reason.ANSWER if codes & _ANSWER_CODES else Reason.OTHER


def _lasts(codes: frozenset[str], text: str) -> bool:
    """Whether a service that is too busy stays so for longer than a run waits."""
    if any("perday" in code for code in codes):
        return True
    if wait := _WAIT.search(text):
        hours, minutes, seconds = (float(wait[part] or 0) for part in ("h", "m", "s"))
        return hours * 3600 + minutes * 60 + seconds > LONGEST_BUSY_S
    return _LONG_QUOTA.search(text) is not None and _SHORT_QUOTA.search(text) is None


def _about_model(refusal: Refusal) -> bool:
    """Whether a refusal may be about the model: it names no parameter that could be the reason instead."""
    return refusal.parameter in ("", "None", "model") and not _PARAMETER.search(refusal.words)


_MOST = 4000
"""Characters of an error that are read."""
_STATUSES = ("code", "status", "status_code", "http_status_code", "llm_status_code")
_WORDY = ("error", "message", "Message", "detail", "details", "errors", "error_description", "error_message", "msg")
_CODED = ("code", "type", "status", "reason", "__type", "error_code", "quotaId", "error")
_NESTED = ("error", "errors", "detail", "details", "message", "metadata", "raw", "innererror", "violations")


def _codes(*names: str) -> frozenset[str]:
    return frozenset(_code(name) for name in " ".join(names).split())


_BALANCE_CODES = _codes(
    "insufficient_quota billing_hard_limit_reached billing_not_active billing_error billing_disabled",
    "credit_balance_too_low insufficient_credits insufficient_balance insufficient_funds credit_limit_exceeded",
    "budget_exceeded exceeded_budget BudgetExceededError exceeded_current_quota_error payment_required",
    "Arrearage AccountOverdueError invalid_payment_instrument spend_limit_exceeded",
)
_KEY_CODES = _codes(
    "invalid_api_key incorrect_api_key api_key_invalid api_key_expired missing_api_key authentication_error auth_error",
    "authentication_failed AuthenticationError invalid_authentication_error unauthenticated unauthorized",
    "account_deactivated access_terminated permission_error permission_denied PermissionDeniedError",
    "AccessDeniedException UnrecognizedClientException ExpiredTokenException service_disabled",
    "token_not_found_in_db no_db_connection",
)
_MODEL_CODES = _codes(
    "model_not_found ModelNotFoundError model_not_available model_not_supported model_not_exist model_decommissioned",
    "model_deprecated model_retired unsupported_model invalid_model invalid_model_name unknown_model ModelNotOpen",
    "DeploymentNotFound dedicated_endpoint_not_running key_model_access_denied team_model_access_denied",
    "user_model_access_denied org_model_access_denied project_model_access_denied",
)
_NOT_FOUND_CODES = _codes("not_found not_found_error NotFoundError ResourceNotFoundException resource_not_found")
_LONG_CODES = _codes(
    "context_length_exceeded exceed_context_size_error ContextWindowExceededError context_window_exceeded",
    "request_too_large payload_too_large string_above_max_length input_too_long prompt_too_long string_too_long",
    "model_max_prompt_tokens_exceeded",
)
_CONTENT_CODES = _codes(
    "content_filter content_filtered content_policy_violation ResponsibleAIPolicyViolation ContentPolicyViolationError",
    "data_inspection_failed moderation_blocked guardrail_intervened invalid_prompt",
)
_BUSY_CODES = _codes(
    "rate_limit_exceeded rate_limit_error RateLimitError rate_limited rate_limit_reached too_many_requests",
    "ThrottlingException throttled resource_exhausted overloaded_error overloaded engine_overloaded_error slow_down",
    "ModelNotReadyException ServiceQuotaExceededException capacity_exceeded",
)
_ANSWER_CODES = _codes("json_validate_failed")

_PARAMETER = re.compile(
    r"(?i)\b(max_tokens|max_completion_tokens|max_output_tokens|temperature|response_?format|response_?schema"
    r"|json_?schema|structured[ _]outputs?|output_config|guided[ _]json)\b"
)
_MODEL_WORD = re.compile(r"(?i)\b(model|deployment|engine)s?\b")
_BALANCE = re.compile(
    r"(?i)\b(credit|account|prepaid)s? balance\b|\bbalance (is|was|has|too|not)\b"
    r"|\b(insufficient|negative|not enough|(have|has) no|no (more|remaining)) (account )?(balance|credits?|funds)\b"
    r"|\bout of credits?\b"
    r"|\bused all (available |your )?credits\b|\b(requires?|needs?) more credits\b|\bspending limit\b"
    r"|\bbilling (hard limit|limit|account|is not active|not active|to be enabled)\b|\bbudget has been exceeded\b"
    r"|\bexceeded ?budget\b|\bkey limit exceeded\b|\bpurchase (more )?credits\b|\bincluded credits\b"
    r"|\bapi usage limits\b|\bpayment required\b|\bgood standing\b|余额不足|欠费"
)
_BILLING = re.compile(r"(?i)(?<!free )\bplan and billing\b")
_KEY = re.compile(
    r"(?i)\bapi key (not valid|is invalid|is not valid|expired|not found|missing)\b"
    r"|\b(invalid|incorrect|missing|no) (api|subscription) ?key\b|\borganization has been disabled\b"
    r"|\baccount (has been |is )?(deactivated|suspended|disabled)\b|\blocation is not supported\b"
)
_TOO_LARGE = re.compile(r"(?i)\brequest too large\b|\bmust be reduced\b")
_LONG = re.compile(
    r"(?i)\bcontext[_ ](length|window|size|limit)\b|\b(maximum|max) context\b|\btoo long\b"
    r"|\b(request|prompt|input|payload|body|entity|message)s? (is |are |was )?too (large|long|big)\b"
    r"|\b(prompt|input) (token count|length)\b|\bmaximum (prompt|input|number of (input )?tokens)\b"
    r"|\breduce the length\b|\btoo many (input |prompt )?tokens\b(?!.*\bwait\b)|\blonger than the model\b"
    r"|\bmax_new_tokens\b|\bwhile limit is\b|\bexceeds? (the )?(maximum )?(number of )?(input )?tokens\b"
    r"|\binput tokens exceed\b|\bn_ctx\b"
)
_CONTENT = re.compile(
    r"(?i)\bcontent[_ ](management|filter\w*|polic(y|ies)|moderation|exists risk)\b|\bflagged (as|for|by)\b"
    r"|\brequires moderation\b|\bguardrail\b|\bsafety (system|polic(y|ies)|filters?|reasons|settings)\b"
    r"|\busage polic(y|ies)\b|\bresponsible ai\b|\bprohibited content\b|\binappropriate content\b"
)
_WAIT = re.compile(
    r"(?i)\b(?:in|after|wait) (?=\d)(?:(?P<h>\d+) ?h(?:ours?)? ?)?(?:(?P<m>\d+) ?m(?:in(?:utes?)?)? ?)?"
    r"(?:(?P<s>\d+(?:\.\d+)?) ?s(?:ec(?:onds?)?)?)?\b"
)
_LONG_QUOTA = re.compile(r"(?i)\bper[ _-]?(day|week|month)\b|/ ?(day|month)\b|\b(tpd|rpd)\b|\b(daily|weekly|monthly)\b")
_SHORT_QUOTA = re.compile(r"(?i)\bper[ _-]?(minute|min|second)\b|\b(rpm|tpm)\b")

# What messages say of a model that is gone. Patterns see one kind of quote only.
_NOT = r"(?:not|cannot|can't|no longer|never|(?:is|was|are|has|does|do|did|could)n't|(?:does|do|did|could|can) not)"
_VERBS = r"(?:(?:is|was|are|were|has|have|had|been|be|currently|now|either|also|simply)\s+)*"
_STATE = (
    rf"(?:{_NOT}\s+(?:be\s+|been\s+|yet\s+|currently\s+)*"
    r"(?:found|exists?|supported|available|accessible|served|offered|allowed|enabled|deployed|loaded|known|open"
    r"|recogni[sz]ed|valid|accepted|permitted|an? (?:valid|known|supported))"
    r"|unknown|unsupported|unrecogni[sz]ed|unavailable|invalid|deprecated|retired|decommissioned|discontinued|sunset"
    r"|removed|shut ?down|disabled|(?:reached |past )?(?:the |its )?end[- ]of[- ](?:its )?life"
    r"|only supported in|marked by provider as legacy)\b"
    # A model that lacks a language or an option is not gone, and neither is one that is busy.
    r"(?!\s+(?:in|for|with|on|when)\s+(?:this |the |that |your |an? )?(?:\w+\s)?"
    r"(?:language|audio|file|feature|option|parameter|setting|request|combination|moment))"
    r"(?!.*\b(?:temporarily|overloaded|at capacity|high demand|is loading)\b)"
)
_BAD = (
    r"\b(?:unknown|invalid|unsupported|unrecogni[sz]ed|no such|deprecated|retired|unavailable|not a valid)"
    r" '?(?:\w+[ _])?model"
)
_LACKS = (
    r"\b(?:(?:no|have|grant|without|lacks?|denied) access to|not allowed to (?:use|access|call)"
    r"|(?:unable|failed|could not|couldn't|can ?not|can't)(?: to)? (?:access|find|load|locate)"
    r"|no (?:endpoints?|deployments?|providers?) (?:found|available)(?: (?:for|matching))?"
    r"|not (?:serve|support|offer|know))(?: (?:the|this|a|any|named|non-serverless|requested|selected|specified))*"
)
_KIND = r"(?:\s+(?:id|name|identifier|version|alias))?"
_COLON = r"\s*[=:]?\s*['\[(]*"


def _gone(name: str) -> re.Pattern[str]:
    """Matches a message in which the model ``name`` (a pattern) is gone, unknown or not open to the account."""
    forms = (
        rf"{name}['\])]*(?:\s+(?:\w+\s+)?(?:model|version))?\s*[,:]?\s+{_VERBS}{_STATE}",
        rf"{_BAD}s?'?{_KIND}(?: (?:passed in|specified|requested))?(?: model)?{_COLON}{name}",
        rf"\bmodels?[ _](?:(?:is|are) )?(?:not[ _](?:found|available|supported|exist)|unavailable){_COLON}{name}",
        rf"{_LACKS}(?: models?)?{_COLON}{name}",
    )
    # A group's name may occur once.
    named = (form.replace("?P<name>", f"?P<name{number}>") for number, form in enumerate(forms))
    return re.compile("(?i)" + "|".join(named))


_GONE = re.compile(
    rf"(?i)\b(?:models?|deployment|endpoint with name){_KIND}[\s:=/]*(?:'[^']*'|[\w@][\w./:@+-]*)?"
    rf"\s*[,:]?\s+{_VERBS}{_STATE}"
    rf"|{_BAD}\b|{_LACKS} (?:models?|deployment)\b|\bno (?:endpoints?|allowed providers) (?:found|available)\b"
    r"|\bno model named\b|\bunknown provider for model\b|\bverified to use the model\b"
    r"|\baccess to (?:the )?model.*\bdenied\b"
    r"|\bon-demand throughput isn't supported\b|\bLLM Provider NOT provided\b|\bNot found for account\b"
)
"""The same, of a model that need not be named: a question asks one model."""
