"""The call that all recordings contain, in 25 cues, and the rules by which speechbox finds its phases."""

from __future__ import annotations

from typing import Any

PHASES = [
    {"match": "^thank you for calling", "name": "Introduction"},
    {"match": "^i'm waiting for", "name": "Complaint"},
    {"match": "^i can look into", "name": "Resolution"},
    {"match": "^is there anything else", "name": "Goodbye"},
]

_LINES = """
A Thank you for calling Swift Parcel, this is Megan speaking.
B Hello Megan, my name is Daniel Foster.
A Good morning, Mr Foster, how can I help you today?
B I'm waiting for a package that should have come on Monday, and it still hasn't arrived.
B The tracking page has said out for delivery for three days now.
A I'm sorry to hear that, that must be frustrating.
B It is, because it's a birthday present for my daughter and the party is tomorrow.
A And nobody has left a card or sent you a message?
B No, nothing at all, and I have been at home all week.
A I can look into that for you, do you have the tracking number there?
B One second, it's in the email, it ends in four seven nine two.
A Thank you, and could you confirm the postcode of the address?
B It's the one on Harbour Street, number eighteen.
A I can see it here, the parcel reached the depot on Monday morning.
A It seems that it was put on the wrong van twice, and came back both times.
B So it was never lost, it has just been driven around?
A That's right, and I have asked the depot to put it aside now.
B And when will somebody bring it to me?
A A driver will bring it this evening, before six o'clock.
B Can I be sure of that this time?
A You will get a text message as soon as it is on the van, and I have taken off the delivery charge.
A Is there anything else that I can do for you?
B No, that's all I needed, you have been very helpful.
A You're welcome, I hope she has a wonderful birthday.
B Thank you, goodbye.
"""
_GAP_S, _S_PER_WORD = 0.5, 0.4


def sentences() -> list[dict[str, Any]]:
    """Return the call in the format of speechbox's scripted engine, at an ordinary pace."""
    said: list[dict[str, Any]] = []
    at_s = 0.5
    for line in _LINES.strip().splitlines():
        speaker, text = line[0], line[2:]
        end_s = at_s + _S_PER_WORD * len(text.split())
        said.append({"speaker": speaker, "start_s": round(at_s, 2), "end_s": round(end_s, 2), "text": text})
        at_s = end_s + _GAP_S
    return said


CUES = len(sentences())
