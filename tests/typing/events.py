"""What callbacks are told is typed: events, changes and their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, assert_type
from uuid import UUID, uuid4

from fastapi_toolsets.models import Changes, Event, FieldChange, ModelEvent

assert_type(ModelEvent.CREATE, Literal[ModelEvent.CREATE])
text: str = ModelEvent.UPDATE
assert_type(ModelEvent("delete"), ModelEvent)

changes: Changes = {"status": {"old": "new", "new": "paid"}}
assert_type(changes, dict[str, FieldChange])
assert_type(changes["status"]["old"], Any)
plain: dict[str, FieldChange] = changes

event = Event(
    model=object,
    identity=(1,),
    type=ModelEvent.CREATE,
    changes=None,
    before=None,
    after={"id": 1},
    transaction_id=uuid4(),
    position=0,
)
assert_type(event.model, type[object])
assert_type(event.identity, tuple[Any, ...])
assert_type(event.type, ModelEvent)
assert_type(event.before, Mapping[str, Any] | None)
assert_type(event.changes, Mapping[str, Mapping[str, Any]] | None)
assert_type(event.transaction_id, UUID)
assert_type(event.position, int)

try:
    event.position = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
except AttributeError as error:
    assert_type(error, AttributeError)
