"""What was delivered beside what was expected: as many events as can be are matched, in order."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, TypeAlias

from .recorded_events import RecordedEvent, shown_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_COMPARED = 1_000_000
"""So many pairs of events that may be equal are compared; of more alike events, those that stand at like places."""

_COMPARED_IN_ANY_ORDER = 1_000


def difference(delivered: Sequence[RecordedEvent], expected: Sequence[object]) -> list[str]:
    """Describe, a line for each event, what was delivered but not expected (+) and the reverse (-)."""
    lines = ["  (- expected and not delivered, + delivered and not expected)"]
    row = column = 0
    for next_row, next_column in (*_in_common([*delivered], expected), (len(delivered), len(expected))):
        lines += (f"  - {shown_value(event)}" for event in expected[column:next_column])
        lines += (f"  + {event!r}" for event in delivered[row:next_row])
        lines += (f"    {event!r}" for event in delivered[next_row : next_row + 1])
        row, column = next_row + 1, next_column + 1
    if len(delivered) == len(expected) <= _COMPARED_IN_ANY_ORDER and _same_in_any_order(delivered, expected):
        lines.append("  The same events, in another order.")
    return lines


def _in_common(delivered: list[RecordedEvent], expected: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Find the most events that both have in common, in order; return the place of each in both."""
    begin, end = 0, min(len(delivered), len(expected))
    while begin < end and delivered[begin] == expected[begin]:
        begin += 1
    tail = 0
    while tail < end - begin and delivered[-1 - tail] == expected[-1 - tail]:
        tail += 1
    yield from zip(range(begin), range(begin), strict=True)
    middle = delivered[begin : len(delivered) - tail], expected[begin : len(expected) - tail]
    yield from ((begin + row, begin + column) for row, column in _longest(*middle))
    yield from zip(
        range(len(delivered) - tail, len(delivered)), range(len(expected) - tail, len(expected)), strict=True
    )


_Chain: TypeAlias = "tuple[int, int, _Chain | None]"


def _longest(delivered: list[RecordedEvent], expected: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Do that by the method of Hunt and Szymanski, from the ends on: it costs as much as there are pairs of equals."""
    candidates = _Candidates(expected, _COMPARED // max(len(delivered), 1) + 1)
    firsts: list[int] = []  # of the chains of each length, how near to the end the nearest begins, negated
    chains: list[_Chain] = []
    for row in reversed(range(len(delivered))):
        for column in candidates.of(delivered[row]):
            if delivered[row] == expected[column]:
                length = bisect_left(firsts, -column)
                chain = row, column, chains[length - 1] if length else None
                firsts[length : length + 1], chains[length : length + 1] = [-column], [chain]
    rest = chains[-1] if chains else None
    while rest is not None:
        yield rest[:2]
        rest = rest[2]


class _Candidates:
    """Where among the expected events those stand that may equal one that was delivered."""

    def __init__(self, expected: Sequence[object], most: int) -> None:
        self._most = most
        self._by_key: defaultdict[object, list[int]] = defaultdict(list)
        """Those of a row, and those of any row, or of one that has no hash; ``None`` for what is no event."""
        self._by_kind: defaultdict[object, list[int]] = defaultdict(list)
        self._asked: Counter[object] = Counter()
        for column, event in enumerate(expected):
            key: object = None
            if isinstance(event, RecordedEvent):
                self._by_kind[event.model, event.type].append(column)
                key = _key(event)
            self._by_key[key].append(column)

    def of(self, event: RecordedEvent) -> list[int]:
        """Return their places in order, for one event after the other from the last on."""
        kind, key = (event.model, event.type), _key(event)
        lists = [self._by_kind[kind]] if key == kind else [self._by_key[key], self._by_key[kind]]
        found: list[int] = []
        for which, places in zip((key, kind), lists, strict=False):
            found += self._near(which, places)
        return sorted(found + self._near(None, self._by_key[None]))

    def _near(self, key: object, places: list[int]) -> list[int]:
        """Return the places for a key; of too many, as many before as behind the one whose turn it is."""
        if len(places) <= self._most:
            return places
        self._asked[key] += 1
        begin = len(places) - self._asked[key] - self._most // 2
        begin = max(0, min(begin, len(places) - self._most))
        return places[begin : begin + self._most]


def _key(event: RecordedEvent) -> object:
    """Return what is equal for equal events of one row, or what they are where the row is not known so."""
    kind = event.model, event.type
    try:
        hash(event.identity)
    except TypeError:
        return kind
    return kind if event.identity is None else (*kind, event.identity)


def _same_in_any_order(delivered: Sequence[object], expected: Sequence[object]) -> bool:
    rest = list(expected)
    for event in delivered:
        if event not in rest:
            return False
        rest.remove(event)
    return not rest
