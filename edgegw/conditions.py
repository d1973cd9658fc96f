"""Conditions: named states that an operator may need to know, each `ok` or `raised`.

A condition is declared once, with what it is about; the gateway is ready when no required one is raised. Raising what is
raised renews its words, not its time, and is not told again: a log line and a count mark transitions only.

Conditions belong to the thread that made them, the event loop's: another thread goes through `loop.call_soon_threadsafe`,
and an assertion holds it to that.
"""

from threading import get_ident
from time import gmtime, strftime
from typing import Literal, Protocol

from edgegw.clock import Clock

Severity = Literal["warning", "error"]


class TransitionLog(Protocol):
    """Who is told of transitions: `edgegw.observe.log.Log`, or a test."""

    def warning(self, event: str, /, *, condition: str, what: str, hint: str) -> None:
        """A condition was raised."""

    def info(self, event: str, /, *, condition: str) -> None:
        """A condition was cleared."""


class Condition:
    """One condition; `what` and `hint` say what is wrong and what to do while it is raised, and are empty otherwise."""

    __slots__ = ("hint", "is_raised", "name", "required", "severity", "since_ms", "text", "transitions", "what")

    def __init__(self, name: str, text: str, severity: Severity, required: bool, since_ms: int) -> None:
        self.name = name
        self.text = text
        self.severity = severity
        self.required = required
        self.since_ms = since_ms
        self.is_raised = False
        self.what = ""
        self.hint = ""
        self.transitions = 0

    def to_json(self) -> dict[str, object]:
        """The condition as an operator reads it."""
        since = strftime("%Y-%m-%dT%H:%M:%S", gmtime(self.since_ms // 1000))
        return {
            "name": self.name,
            "status": "raised" if self.is_raised else "ok",
            "severity": self.severity,
            "required": self.required,
            "since": f"{since}.{self.since_ms % 1000:03d}Z",
            "text": self.text,
            "what": self.what,
            "hint": self.hint,
        }


class Conditions:
    """All conditions of one gateway, in the order of their declaration."""

    def __init__(self, clock: Clock, log: TransitionLog) -> None:
        self._clock = clock
        self._log = log
        self._conditions: dict[str, Condition] = {}
        self._thread = get_ident()

    def declare(self, name: str, *, required: bool, text: str, severity: Severity | None = None, waits_for: str = "") -> None:
        """Make a condition known; again, with the same terms, it stays as it is.

        Severity is `error` when it is required, else `warning`. With `waits_for` it starts out raised, which is no transition:
        what a starting gateway is not ready without.
        """
        assert get_ident() == self._thread
        known = self._conditions.get(name)
        severity = severity or ("error" if required else "warning")
        if known is not None:
            assert (known.required, known.text, known.severity) == (required, text, severity), f"condition {name} is two things"
            return
        condition = Condition(name, text, severity, required, self._clock.wall_ms())
        condition.is_raised = bool(waits_for)
        condition.what = waits_for
        self._conditions[name] = condition

    def raise_(self, name: str, what: str, hint: str = "") -> None:
        """It is so: `what` is wrong, and `hint` says what to do. The condition was declared before."""
        assert get_ident() == self._thread
        condition = self._conditions[name]
        condition.what = what
        condition.hint = hint
        if not condition.is_raised:
            self._turn(condition)
            self._log.warning("condition.raised", condition=name, what=what, hint=hint)

    def clear(self, name: str) -> None:
        """It is so no longer."""
        assert get_ident() == self._thread
        condition = self._conditions[name]
        if condition.is_raised:
            condition.what = condition.hint = ""
            self._turn(condition)
            self._log.info("condition.cleared", condition=name)

    def withdraw(self, name: str) -> None:
        """What it was about is gone, and nobody is told of it any more."""
        assert get_ident() == self._thread
        self.clear(name)
        del self._conditions[name]

    def _turn(self, condition: Condition) -> None:
        condition.is_raised = not condition.is_raised
        condition.since_ms = self._clock.wall_ms()
        condition.transitions += 1

    @property
    def is_ready(self) -> bool:
        """Whether no required condition is raised."""
        return not any(condition.required and condition.is_raised for condition in self._conditions.values())

    def is_raised(self, name: str) -> bool:
        """Whether this one is raised."""
        return self._conditions[name].is_raised

    def snapshot(self) -> list[dict[str, object]]:
        """All of them, for JSON."""
        return [condition.to_json() for condition in self._conditions.values()]

    def raised(self) -> list[tuple[tuple[str, ...], int]]:
        """1 or 0 for each, for a gauge by name."""
        return [((condition.name,), int(condition.is_raised)) for condition in self._conditions.values()]

    def transitions(self) -> list[tuple[tuple[str, ...], int]]:
        """How often each was raised or cleared, for a counter by name."""
        return [((condition.name,), condition.transitions) for condition in self._conditions.values()]
