"""Whether all that callbacks will be told of a flush can still be had after it, as of most: asked before each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy.orm.attributes import instance_dict

from .. import compatibility
from ..plan import ATOMS, NO_VALUE
from ..plans import plans

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.orm import InstanceState
    from sqlalchemy.orm.instrumentation import ClassManager

    from ..plans import Routes

States: TypeAlias = "Collection[InstanceState[Any]]"


def olds_are_at_hand(modified: States, routes: Routes) -> bool:
    """Whether all old values of what a flush writes can be had after it, as most can: nothing to keep or to load."""
    manager: ClassManager[Any] | None = None
    plan = None
    for state in modified:
        if state.manager is not manager:
            manager = state.manager
            plan, reach, has_orphans, heard = routes[manager.mapper]
            is_orphan_heard = has_orphans and (plan is not None or heard.before_delete or heard.after_delete)
            if reach or is_orphan_heard or heard.before_update or heard.after_update:
                return False
            if plan is not None:
                if not plan.follows_updates:
                    plan = None
                elif plan.keeps_more:
                    return False
        if plan is not None and (instance := state.obj()) is not None:
            loaded = instance_dict(instance)
            for key, old in state.committed_state.items():
                # Those that were not loaded are unknown, and those of SQL expressions the flush would throw away.
                if old is NO_VALUE or type(loaded.get(key, NO_VALUE)) not in ATOMS:
                    return False
    return True


def rows_are_at_hand(deleted: States, routes: Routes) -> bool:
    """Whether the objects of all rows that a flush deletes show them as they are: nothing to load either."""
    manager: ClassManager[Any] | None = None
    plan = None
    are_heard = False
    for state in deleted:
        if state.manager is not manager:
            manager = state.manager
            plan, reach, _, heard = routes[manager.mapper]
            if reach or (plan is not None and plan.deferred) or heard.before_delete or heard.after_delete:
                return False
            if plans.deleted_by_database[manager.mapper]:
                return False
        if plan is not None:
            if state.committed_state or state.expired_attributes or state.callables:
                return False
            are_heard = True
            if plan.made and not plan.made <= state.dict.keys():
                return False
    return not (are_heard and compatibility.were_deleted(deleted))


def stands_alone(new: States, routes: Routes) -> bool:
    """Whether no row that somebody listens to changes with the new ones that a flush inserts."""
    manager: ClassManager[Any] | None = None
    for state in new:
        if state.manager is not manager:
            manager = state.manager
            _, reach, _, heard = routes[manager.mapper]
            if reach or heard.before_insert or heard.after_insert:
                return False
    return True
