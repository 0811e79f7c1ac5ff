"""Metrics, as a scrape gets them."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fastapi_toolsets.errors import CascadeLimitError, ObserverError
from fastapi_toolsets.models import Changes, ModelEvent, Phase, listens_for
from fastapi_toolsets.observability.prometheus import instrument_prometheus

from ..contract.event_models import LOCAL
from ..contract.transaction_models import Base, ExpectedError, Order
from ..front_ends import FrontEnd, scenario
from .test_observers import awaits, cancelled_commit, raises, returns

Scrape = dict[str, float]


def scrape(registry: CollectorRegistry) -> Scrape:
    """What is exposed, by name and labels; of the histograms the counts, as times are not asserted."""
    found: Scrape = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            if sample.name.endswith(("_bucket", "_sum", "_created")):
                continue
            name = sample.name.removeprefix("fastapi_toolsets_")
            labels = [
                sample.labels[key] for key in ("event", "model", "phase", "callback", "outcome") if key in sample.labels
            ]
            found[" ".join([name, *(label.rpartition(".")[2] for label in labels if label)])] = sample.value
    return found


@scenario(Base.metadata)
async def test_metrics_of_commits(front: FrontEnd) -> None:
    """C4, C7: callbacks by outcome, how often each was timed, and nothing in progress afterwards."""
    registry = CollectorRegistry()
    listens_for(Order)(awaits)
    listens_for(Order, ModelEvent.UPDATE)(returns)
    listens_for(Order, ModelEvent.UPDATE)(raises)
    with instrument_prometheus(registry):
        orders = [Order(id=number) for number in (1, 2, 3)]
        await front.add_all(orders)
        await front.commit()
        orders[0].status = "paid"
        front.session.on_commit(returns, None, None, None)
        await front.commit()
        found = scrape(registry)
    assert found == {
        "callbacks_total create Order after_commit awaits success": 3,
        "callbacks_total update Order after_commit awaits success": 1,
        "callbacks_total update Order after_commit returns success": 1,
        "callbacks_total update Order after_commit raises error": 1,
        "callbacks_total on_commit after_commit returns success": 1,
        "callback_duration_seconds_count create Order after_commit awaits": 3,
        "callback_duration_seconds_count update Order after_commit awaits": 1,
        "callback_duration_seconds_count update Order after_commit returns": 1,
        "callback_duration_seconds_count update Order after_commit raises": 1,
        "callback_duration_seconds_count on_commit after_commit returns": 1,
        "callbacks_in_progress create Order after_commit awaits": 0,
        "callbacks_in_progress update Order after_commit awaits": 0,
        "callbacks_in_progress update Order after_commit returns": 0,
        "callbacks_in_progress update Order after_commit raises": 0,
        "callbacks_in_progress on_commit after_commit returns": 0,
        "dispatch_duration_seconds_count after_commit": 2,
        "dispatches_in_progress after_commit": 0,
    }


@scenario(Base.metadata, databases=LOCAL)
async def test_in_progress(front: FrontEnd) -> None:
    """A callback sees itself, and the commit that waits for it."""
    registry = CollectorRegistry()
    seen: list[Scrape] = []

    @listens_for(Order)
    async def look(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        seen.append(scrape(registry))

    with instrument_prometheus(registry):
        await front.add(Order(id=1))
        await front.commit()
    in_progress = [{key: count for key, count in found.items() if "in_progress" in key} for found in seen]
    assert in_progress == [
        {"callbacks_in_progress create Order after_commit look": 1, "dispatches_in_progress after_commit": 1}
    ]


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=0.0)
async def test_cancelled_committer(front: FrontEnd) -> None:
    """C5: what was cut short and what is never called are counted as such."""
    registry = CollectorRegistry()
    waiting = anyio.Event()

    @listens_for(Order)
    async def waits(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        waiting.set()
        await asyncio.Event().wait()

    listens_for(Order)(returns)
    with instrument_prometheus(registry):
        await cancelled_commit(front, waiting)
        found = scrape(registry)
    assert {key: value for key, value in found.items() if key.startswith("callbacks_total")} == {
        "callbacks_total create Order after_commit waits cancelled": 1,
        "callbacks_total create Order after_commit returns not_called": 1,
    }


@scenario(Base.metadata, databases=LOCAL, cascade_limit=2)
async def test_end_of_a_chain(front: FrontEnd) -> None:
    """C6: what the bound leaves out is counted."""
    registry = CollectorRegistry()

    @listens_for(Order)
    async def feed(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await front.add(Order(id=order.id + 1))
        await front.commit()

    with instrument_prometheus(registry):
        await front.add(Order(id=1))
        with pytest.raises(CascadeLimitError):
            await front.commit()
        found = scrape(registry)
    assert {key: value for key, value in found.items() if key.startswith("callbacks_total")} == {
        "callbacks_total create Order after_commit feed success": 3,
        "callbacks_total create Order after_commit feed not_called": 1,
    }


@scenario(Base.metadata, databases=LOCAL)
async def test_phases(front: FrontEnd) -> None:
    """P1, P2: each phase is counted by itself."""
    registry = CollectorRegistry()
    for phase in Phase:
        listens_for(Order, phase=phase)(returns)
    with instrument_prometheus(registry):
        await front.add(Order(id=1))
        await front.commit()
        await front.add(Order(id=2))
        await front.flush()
        await front.rollback()
        found = scrape(registry)
    assert {key: value for key, value in found.items() if "in_progress" not in key} == {
        "callbacks_total create Order before_commit returns success": 1,
        "callbacks_total create Order after_commit returns success": 1,
        "callbacks_total create Order after_rollback returns success": 1,
        "callback_duration_seconds_count create Order before_commit returns": 1,
        "callback_duration_seconds_count create Order after_commit returns": 1,
        "callback_duration_seconds_count create Order after_rollback returns": 1,
        "dispatch_duration_seconds_count before_commit": 1,
        "dispatch_duration_seconds_count after_commit": 1,
        "dispatch_duration_seconds_count after_rollback": 1,
    }


def bounds(registry: CollectorRegistry) -> dict[str, list[str]]:
    """The upper bounds of each histogram's buckets."""
    return {
        family.name: [sample.labels["le"] for sample in family.samples if sample.name.endswith("_bucket")]
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        if family.type == "histogram"
    }


@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_buckets(front: FrontEnd) -> None:
    """Both histograms have those that were asked for."""
    registry = CollectorRegistry()
    listens_for(Order)(returns)
    with instrument_prometheus(registry, buckets=(0.1, 1.0)):
        await front.add(Order(id=1))
        await front.commit()
        assert bounds(registry) == {
            "fastapi_toolsets_callback_duration_seconds": ["0.1", "1.0", "+Inf"],
            "fastapi_toolsets_dispatch_duration_seconds": ["0.1", "1.0", "+Inf"],
        }


@pytest.mark.parametrize(
    ("buckets", "why"), [((2.0, 1.0), "Buckets not in sorted order"), ((), "Must have at least two buckets")]
)
def test_wrong_buckets_leave_nothing_behind(buckets: tuple[float, ...], why: str) -> None:
    """The error names them, and the right ones may be given next."""
    registry = CollectorRegistry()
    with pytest.raises(ObserverError) as caught:
        instrument_prometheus(registry, buckets=buckets)
    assert str(caught.value) == f"buckets was given {buckets!r}: {why}. Give it upper bounds in seconds, ascending"
    assert list(registry.collect()) == []
    instrument_prometheus(registry, buckets=(1.0, 2.0)).remove()


def test_what_is_no_registry_is_named() -> None:
    given: Any = "metrics"
    with pytest.raises(ObserverError) as caught:
        instrument_prometheus(given)
    assert str(caught.value) == (
        "instrument_prometheus() was given an object of type str, which is no registry: give it a CollectorRegistry, "
        "or nothing for the client's own"
    )


def test_a_name_that_is_taken_leaves_nothing_behind() -> None:
    """Also where it is the last of the five."""
    registry = CollectorRegistry()
    taken = Gauge("fastapi_toolsets_dispatches_in_progress", "Of somebody else.", registry=registry)
    with pytest.raises(ObserverError):
        instrument_prometheus(registry)
    registry.unregister(taken)
    instrument_prometheus(registry).remove()


@scenario(Base.metadata, databases=LOCAL)
async def test_removed_again(front: FrontEnd) -> None:
    """Nothing is counted, and the registry is as it was: it may be instrumented again."""
    registry = CollectorRegistry()
    listens_for(Order)(returns)
    instrument_prometheus(registry).remove()
    await front.add(Order(id=1))
    await front.commit()
    assert generate_latest(registry) == b""
    with instrument_prometheus(registry):
        assert scrape(registry) == {}


def test_instrumented_twice() -> None:
    """For one registry it is a mistake, which leaves the first as it is; each of two has its own metrics."""
    registry, other = CollectorRegistry(), CollectorRegistry()
    with instrument_prometheus(registry), instrument_prometheus(other):
        before = generate_latest(registry)
        with pytest.raises(
            ObserverError, match=r"call remove\(\) on what the first instrument_prometheus\(\) returned"
        ):
            instrument_prometheus(registry)
        assert generate_latest(registry) == before


@scenario(Base.metadata, databases=LOCAL)
async def test_no_value_is_exposed(front: FrontEnd) -> None:
    """C4: labels are names, whatever an error says."""
    registry = CollectorRegistry()

    @listens_for(Order)
    def tells(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise ExpectedError(order.status)

    with instrument_prometheus(registry):
        await front.add(Order(id=1, status="secret"))
        await front.commit()
        assert "secret" not in generate_latest(registry).decode()
