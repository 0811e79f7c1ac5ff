"""What random programs have found: the smallest program for each flaw, told in words."""

from __future__ import annotations

from .programs import Op, Program, Reaction
from .worlds import Worlds


def test_commit_inside_a_savepoint_block(worlds: Worlds) -> None:
    """T1, T3: ``commit()`` inside ``with begin_nested():`` after a change whose effects only the database knows."""
    assert worlds.disagreements(Program((Op("load", 1), Op("savepoint", 2), Op("change"), Op("commit")))) == []


def test_commit_inside_two_savepoints(worlds: Worlds) -> None:
    """T1, T3: as above, with a savepoint open inside the block, and a statement that went past the unit of work."""
    program = Program((Op("savepoint", 2), Op("on_commit", 1), Op("add", 0, 2, 1), Op("savepoint"), Op("commit")))
    assert worlds.disagreements(program) == []


def test_failed_commit_leaves_nothing_behind(worlds: Worlds) -> None:
    """T4: a COMMIT that fails for a deferred foreign key, and then another transaction on the same connection."""
    dangling = (Op("load", 3), Op("change", 0, 1, 3), Op("commit"))
    assert worlds.disagreements(Program((*dangling, Op("load", 6), Op("change", 2, 0, 1), Op("commit")))) == []
    assert worlds.disagreements(Program((*dangling, Op("close"), Op("load", 6)), on_error="leave")) == []


def test_row_switch_shows_values_made_by_the_database(worlds: Worlds) -> None:
    """E4, E8: a row switch is an UPDATE, with what ``onupdate`` has set."""
    assert worlds.disagreements(Program((Op("load", 2), Op("replace"), Op("commit")))) == []
    assert worlds.disagreements(Program((Op("load", 2), Op("replace", 0, 1), Op("commit")))) == []


def test_row_switch_of_an_object_changed_in_place(worlds: Worlds) -> None:
    """E5, E8: ``old`` is what the row was, not what the replaced object had become and never wrote."""
    program = Program(
        (Op("load"), Op("delete"), Op("mutate"), Op("replace"), Op("get", 0, 1), Op("delete"), Op("commit"))
    )
    assert worlds.disagreements(program) == []


def test_row_switch_of_an_expired_object_that_was_assigned(worlds: Worlds) -> None:
    """E3, E8: the replaced object's attribute was expired, then assigned: its row's value is still ``old``."""
    program = Program(
        (Op("load", 6), Op("expire", 1), Op("delete", 1), Op("change", 1, 0, 2), Op("add", 6, 1), Op("commit")),
        autoflush=False,
    )
    assert worlds.disagreements(program) == []


def test_values_before_of_a_model_with_watched_fields(worlds: Worlds) -> None:
    """N1: ``event.before`` is true for columns that nobody watches, too."""
    both = (Op("load", 4), Op("change", 0, 0, 1), Op("change", 0, 1, 1), Op("commit"))
    assert worlds.disagreements(Program(both)) == []
    assert worlds.disagreements(Program((Op("load", 4), Op("replace", 0, 1), Op("commit")))) == []
    unwatched_then_deleted = (Op("load", 4), Op("change", 0, 1, 1), Op("flush"), Op("delete"), Op("commit"))
    assert worlds.disagreements(Program(unwatched_then_deleted)) == []


def test_expunged_with_changes_that_were_never_flushed(worlds: Worlds) -> None:
    """E10, E11: an object that was flushed, changed again and expunged shows what was committed."""
    flushed = (Op("get", 5, 1), Op("change", 0, 0, 1), Op("flush"))
    program = Program((*flushed, Op("change", 0, 1, 1), Op("expunge_all"), Op("commit")))
    assert worlds.disagreements(program) == []


def test_expunged_with_an_expression_that_was_never_flushed(worlds: Worlds) -> None:
    """E4, E11: the same with an SQL expression, which nobody would ever have evaluated."""
    program = Program((Op("graph"), Op("flush"), Op("expression"), Op("expunge_all"), Op("commit")), seeded=False)
    assert worlds.disagreements(program) == []


def test_deleted_object_is_assigned_after_its_flush(worlds: Worlds) -> None:
    """E11: a deleted object shows its last row, whatever was assigned to it later."""
    program = Program((Op("load", 1), Op("delete"), Op("flush"), Op("change", 0, 7, 1), Op("commit")))
    assert worlds.disagreements(program) == []


def test_new_object_with_relations_after_a_callback_rolled_back(worlds: Worlds) -> None:
    """C4, E11: a new object with attributes left out and relationships set stays readable after a rollback."""
    for kind in ("rollback", "dirty", "broken"):
        for asynchronous in (False, True):
            program = Program(
                (Op("graph"), Op("commit")),
                seeded=False,
                async_callbacks=asynchronous,
                reactions=(Reaction(0, kind),),
            )
            assert worlds.disagreements(program) == []


def test_deleted_object_is_expired_after_its_flush(worlds: Worlds) -> None:
    """E11: expiring a parent expires its deleted child with it, whose last row is told all the same."""
    deleted = (Op("graph"), Op("commit"), Op("delete", 1), Op("flush"))
    assert worlds.disagreements(Program((*deleted, Op("expire"), Op("commit")), seeded=False)) == []


def test_savepoint_that_updates_and_deletes_is_released_onto_an_update(worlds: Worlds) -> None:
    """N1, T3, E1: what a row was before goes back behind both updates, the one outside and the one inside."""
    inside = (Op("savepoint"), Op("rekey", 0, 2), Op("flush"), Op("delete"))
    program = Program((Op("load", 6), Op("change", 0, 0, 1), *inside, Op("commit")))
    assert worlds.disagreements(program) == []


def test_columns_that_the_database_changes_in_orphaned_children(worlds: Worlds) -> None:
    """E4, E6: a child whose parent is deleted is told what its ``onupdate`` column was."""
    touched = (Op("load", 2), Op("change", 0, 0, 1), Op("commit"))
    assert worlds.disagreements(Program((*touched, Op("get", 1), Op("delete", 2), Op("commit")))) == []


def test_orphan_whose_parent_was_expunged(worlds: Worlds) -> None:
    """E6, E11: the row of an orphan is read although its parent no longer leads to it."""
    assert worlds.disagreements(Program((Op("load"), Op("remove"), Op("expunge"), Op("commit")))) == []


def test_parent_in_the_same_table_that_is_updated(worlds: Worlds) -> None:
    """E9: in a tree, the UPDATE of a parent comes before the CREATE of its child in the same flush."""
    assert worlds.disagreements(Program((Op("load", 3), Op("add", 3, 0, 1), Op("delete"), Op("commit")))) == []


def test_row_switch_that_changes_nothing(worlds: Worlds) -> None:
    """E8, E9: a row that was replaced by its like has not been changed yet: what comes next comes before it."""
    replaced = (Op("load", 6), Op("replace", 0, 0, 7))
    program = Program((*replaced, Op("delete"), Op("flush"), Op("change", 0, 0, 1), Op("commit")))
    assert worlds.disagreements(program) == []


def test_expression_on_an_expired_attribute_that_was_flushed_before(worlds: Worlds) -> None:
    """E4: what the second flush evaluates is the new value, whatever the first one had written."""
    flushed = (Op("load", 1), Op("change", 0, 0, 2), Op("flush"))
    assert worlds.disagreements(Program((*flushed, Op("expire"), Op("expression", 0, 0, 1), Op("commit")))) == []


def test_row_that_two_objects_take_over(worlds: Worlds) -> None:
    """E8: SQLAlchemy lets both write the row of a deleted one; the second finds what the first has left there."""
    changed = (Op("load", 6), Op("change", 0, 0, 1), Op("flush"))
    for title in (1, 2, 3):
        program = Program((*changed, Op("add", 6, 0, 1), Op("replace", 0, title), Op("commit")))
        assert worlds.disagreements(program) == []


def test_flush_after_a_commit_that_failed(worlds: Worlds) -> None:
    """T4: a commit that failed for a deferred foreign key is over: a flush that finds nothing prepares for no other."""
    dangling = (Op("add", 3, 0, 1), Op("savepoint", 2), Op("commit"))
    program = Program((*dangling, Op("expire"), Op("flush")), autoflush=False, on_error="innermost", seeded=False)
    assert worlds.disagreements(program) == []


def test_deleted_object_whose_row_a_statement_has_written(worlds: Worlds) -> None:
    """E11: an UPDATE by primary key leaves the session's object as it is; the last row is the one that it has made."""
    program = Program((Op("load", 1), Op("bulk_update_by_key", 1), Op("delete"), Op("commit")), autoflush=False)
    assert worlds.disagreements(program) == []


def test_version_that_was_expired_between_two_flushes(worlds: Worlds) -> None:
    """E1, E4, P2: the last version is told, committed or rolled back, though nobody had loaded the one before it."""
    twice = (Op("change", 0, 0, 1), Op("flush"), Op("expire"), Op("change"), Op("flush"))
    for end in ((), (Op("commit"),)):
        program = Program((Op("add"), Op("commit"), *twice, *end), autoflush=False, seeded=False, phases=True)
        assert worlds.disagreements(program) == []
