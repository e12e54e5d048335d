"""Which failed calls a run tries again, in place of whatever is not done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from callphases.errors import ALL_FAILED, ConfigurationError, failure_classes
from callphases.recordings import Recording, names_of

Names = str | Iterable[str] | None
"""Names in a list, or in a string with commas; None or empty if there are none."""


@dataclass(frozen=True)
class Replay:
    """A replay of the calls that have failed with one of ``classes`` and are one of ``calls``.

    Attributes:
        classes: failure classes; None for any.
        calls: as ``recordings.names_of`` has them; None for any.
    """

    classes: frozenset[str] | None = None
    calls: frozenset[str] | None = None

    @classmethod
    def of(cls, classes: Names = None, calls: Names = None) -> Replay | None:
        """From the Params ``replay``, where ``all`` stands for any class, and ``calls``; None if both are empty.

        Raises:
            ConfigurationError: there is no such failure class.
        """
        # A list is taken for a string here: names of classes have no commas. Keys may have.
        of_classes = _names(classes if classes is None or isinstance(classes, str) else ",".join(classes))
        of_calls = _names(calls)
        known = failure_classes() | {ALL_FAILED}
        if unknown := of_classes - known:
            raise ConfigurationError(
                f"replay: there is no failure class {', '.join(sorted(unknown))}; expected some of "
                f"{', '.join(sorted(known))}."
            )
        if not of_classes and not of_calls:
            return None
        return cls(None if ALL_FAILED in of_classes else of_classes or None, of_calls or None)

    def named(self, recording: Recording) -> frozenset[str]:
        """Those of ``calls`` that name a recording; empty if ``calls`` is None."""
        return self.calls & names_of(recording.call_id, recording.uri) if self.calls is not None else frozenset()


def _names(given: Names) -> frozenset[str]:
    names = given.split(",") if isinstance(given, str) else given or ()
    return frozenset(name.strip() for name in names if name.strip())
