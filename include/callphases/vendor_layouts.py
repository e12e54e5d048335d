"""The buckets of vendors: what ``recordings.layout`` sets, as far as their public documentation says it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

AMAZON_CONNECT: dict[str, Any] = {
    "prefix": "connect/{any}/CallRecordings/{date:%Y/%m/%d}/",
    "call_time": {
        "key_pattern": r"_(?P<time>\d{8}T\d\d:\d\d)_UTC\.",
        "format": "%Y%m%dT%H:%M",
        "timezone": "UTC",
    },
    "suffixes": [".wav"],
    "columns": {"contact_id": {"key_pattern": r"(?P<contact_id>[^/_]+)_\d{8}T[^/]*$"}},
    "channels": {1: "customer", 2: "agent"},
}
"""``connect/<instance>/CallRecordings/2026/11/20/<contact id>_20261120T14:05_UTC.wav``; days and times are in UTC.

Prefix: https://docs.aws.amazon.com/connect/latest/adminguide/set-up-recordings.html and
https://aws.amazon.com/blogs/contact-center/customize-retention-policies-for-contact-recordings-in-amazon-connect. The
agent is in the right channel, all others in the left one: "Where are recordings and transcripts stored?" of the former.
Redacted copies are below ``Analysis/``, which is not listed.
"""

GENESYS_CLOUD: dict[str, Any] = {
    "prefix": "{any}/year={date:%Y}/month={zero}{date:%-m}/day={zero}{date:%-d}/",
    "key_pattern": r"/hour=\d+/conversation_id=[^/]+/[^/]+$",
    "call_time": {
        "key_pattern": r"(?P<time>year=\d{4}/month=\d+/day=\d+/hour=\d+)/",
        "format": "year=%Y/month=%m/day=%d/hour=%H",
        "timezone": "UTC",
    },
    "suffixes": [".opus", ".ogg", ".mp3", ".wav"],
    "columns": {
        "conversation_id": {"key_pattern": "/conversation_id=(?P<conversation_id>[^/]+)/"},
        "recording_id": {"key_pattern": r"/(?P<recording_id>[^/.]+)[^/]*$"},
        "user_id": {"sidecar": "{stem}*_metadata.json", "path": "$.userIds[0]"},
    },
}
"""``<organization>/year=2026/month=11/day=20/hour=14/conversation_id=<id>/<recording id>.opus``, and the same name with
``_metadata.json`` at its end; the hour is that in which the conversation began, in UTC.

https://help.mypurecloud.com/articles/working-with-exported-recordings-in-aws-s3-bucket. It does not say whether months
and days have two digits, so both are listed; nor which channel is the agent's. Screen recordings (video) are left out.
"""

TWILIO: dict[str, Any] = {
    "prefix": "",
    "key_pattern": r"(^|/)AC[0-9a-fA-F]{32}/RE[0-9a-fA-F]{32}(\.[0-9A-Za-z]+)?$",
    "call_time": "last_modified",
    "suffixes": [""],
    "columns": {
        "account_sid": {"key_pattern": "(?P<account_sid>AC[0-9a-fA-F]{32})/RE"},
        "recording_sid": {"key_pattern": r"/(?P<recording_sid>RE[0-9a-fA-F]{32})[^/]*$"},
    },
    "channels": {1: "customer", 2: "agent"},
}
"""``[<path>/]<account SID>/<recording SID>``, without a suffix or a time: a recording is uploaded when it has ended.

https://www.twilio.com/docs/voice/recording-settings (external storage: the path below the URL of the bucket). The
customer who calls is in the left channel, the agent in the right one:
https://www.twilio.com/docs/flex/developer/insights/enable-dual-channel-recordings
"""

LAYOUTS = {"amazon_connect": AMAZON_CONNECT, "genesys_cloud": GENESYS_CLOUD, "twilio": TWILIO}
_KEYS = {
    "amazon_connect": r"^connect/[^/]+/CallRecordings/\d{4}/\d\d/\d\d/[^/]+_\d{8}T\d\d:\d\d_UTC\.wav$",
    "genesys_cloud": r"^[^/]+/year=\d{4}/month=\d+/day=\d+/hour=\d+/conversation_id=[^/]+/[^/]+$",
    "twilio": TWILIO["key_pattern"],
}


def recognized(keys: Iterable[str]) -> tuple[str, list[str]] | None:
    """The layout that at least half of ``keys`` are of, and those that are its recordings.

    Documents and reports do not count, nor what Amazon Connect keeps beside recordings of agents: analyses with their
    redacted copies, and what callers said to a menu.
    """
    keys = [key for key in keys if not re.search(r"(^|/)Analysis/|/CallRecordings/ivr/|\.(json|csv)$", key)]
    for layout, pattern in _KEYS.items():
        known = keys
        found = [key for key in known if re.search(pattern, key) and key.lower().endswith(_suffixes(layout))]
        if found and 2 * len(found) >= len(known):
            return layout, found
    return None


def _suffixes(layout: str) -> tuple[str, ...]:
    return tuple(LAYOUTS[layout]["suffixes"])
