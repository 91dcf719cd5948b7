"""What may be held back of a row, and for how long: `Hold`. `test_sparsify_machine` has the bounds over all of it."""

from __future__ import annotations

import numpy as np
import pytest

from ps.errors import ConfigError
from ps.nn.sparsify.residual_arrays import KEY_BYTES
from ps.nn.sparsify.sparsifiers import Hold, Sparsifier, Threshold, TopK

F32 = np.float32
NEVER_LARGE = 1e9


@pytest.fixture
def make():
    """Sparsifiers of dim 1 that select nothing by size, closed in the end."""
    made = []

    def sparsifier(hold, rows=1000):
        config = Threshold(NEVER_LARGE, hold=hold)
        made.append(Sparsifier(config, 1, max_bytes=rows * (4 + KEY_BYTES)))
        return made[-1]

    yield sparsifier
    for each in made:
        each.close()


def step(sparsifier, grads, new=(), **options):
    """Of one step with these gradients by id: what was sent of the step and what else, by id."""
    ids_U = np.array(list(grads), np.int64)
    grads_UD = np.array(list(grads.values()), F32).reshape(-1, 1)
    selection = sparsifier.select(ids_U, grads_UD, np.isin(ids_U, list(new)), **options)
    sparsifier.commit(selection)
    sent = dict(zip(selection.ids_R.tolist(), selection.selected.grads_RD[:, 0].tolist(), strict=True))
    return sent, by_id(selection.others)


def by_id(held):
    return dict(zip(held.ids_R.tolist(), held.grads_RD[:, 0].tolist(), strict=True))


def sent_in(sparsifier, steps, id_=7, grad=1.0):
    """In which of so many steps a row is sent, and how much, that has the same gradient in each."""
    sent = {number: step(sparsifier, {id_: grad})[0] for number in range(1, steps + 1)}
    return {number: values[id_] for number, values in sent.items() if values}


def test_rows_that_few_pushes_name_are_sent_and_the_more_was_pushed_the_more_may_wait(make):
    """held² > share² (pushed + held²): of 1 as often as 3 were pushed, and so on."""
    assert sent_in(make(Hold(share=0.5, steps=1000)), 20) == {1: 1, 2: 1, 3: 1, 5: 2, 7: 2, 9: 2, 12: 3, 15: 3, 19: 4}


def test_the_smaller_the_share_the_more_is_sent(make):
    sent = [len(sent_in(make(Hold(share=share, steps=1000)), 100)) for share in (0.1, 0.3, 0.5, 0.9)]
    assert sent == sorted(sent, reverse=True)
    assert sent[0] == 100


def test_a_row_of_every_step_is_sent_every_so_many_steps_at_least(make):
    sparsifier = make(Hold(share=0.99, steps=8))
    sent = list(sent_in(sparsifier, 200))
    assert max(np.diff(sent)) == 8 + 1  # sent, held from the next on, and 8 steps later sent


@pytest.mark.parametrize("steps", range(1, 10))
def test_what_no_step_names_any_more_is_sent_by_its_id_before_the_bound(make, steps):
    sparsifier = make(Hold(share=0.5, steps=steps))
    begun, number = {}, 0
    for id_ in range(40):
        for _ in range(4):  # the last of them waits
            number += 1
            sent, others = step(sparsifier, {id_: 1.0})
            for sent_id in (*sent, *others):
                begun.pop(sent_id, None)
            if sparsifier.rows_held and id_ not in sent and id_ not in others:
                begun.setdefault(id_, number)
            assert all(number - since < steps for since in begun.values())
            assert sparsifier.rows_held == len(begun)
    for _ in range(steps):
        step(sparsifier, {})
    assert sparsifier.rows_held == 0


def test_rows_go_by_their_ids_in_few_messages(make):
    sparsifier = make(Hold(share=0.5, steps=32))
    for _ in range(3):
        step(sparsifier, dict.fromkeys(range(64), 1.0))
    messages = 0
    for id_ in range(64):  # one after the other is held, and then no more named
        messages += bool(step(sparsifier, {id_: 1.0})[1])
    assert 1 <= messages <= 64 // 8


def test_a_row_that_comes_seldom_is_sent_when_it_comes_however_much_was_pushed_of_it(make):
    sparsifier = make(Hold(share=0.9, steps=8))
    sent_in(sparsifier, 100)
    sparsifier.commit(sparsifier.flush())
    assert step(sparsifier, {7: 1.0}) == ({}, {})
    sparsifier.commit(sparsifier.flush())
    for _ in range(8):
        step(sparsifier, {1: 0.0})
    assert step(sparsifier, {7: 1.0}) == ({7: 1}, {})


def test_in_a_round_what_no_step_names_waits_until_it_comes_again(make):
    sparsifier = make(Hold(share=0.5, steps=4))
    assert list(sent_in(sparsifier, 4)) == [1, 2, 3]
    for _ in range(20):
        assert step(sparsifier, {1: 0.0}, send_others=False) == ({}, {})
    assert step(sparsifier, {7: 0.125}, send_others=False) == ({7: 1.125}, {})


def test_a_row_that_is_new_again_begins_anew(make):
    sparsifier = make(Hold(share=0.5, steps=1000))
    for _ in range(30):
        step(sparsifier, {7: 1.0})
    assert step(sparsifier, {7: 0.1}, new=[7])[0]
    assert step(sparsifier, {7: 2.0})[0] == {7: 2}


def test_what_was_not_applied_does_not_count_as_pushed(make):
    sparsifier = make(Hold(share=0.5, steps=1000))
    for _ in range(5):
        selection = sparsifier.select(np.array([7]), np.array([[1]], F32))
        assert len(selection) == 1
        sparsifier.rollback(selection)
    assert step(sparsifier, {7: 1.0})[0] == {7: 6}


def test_a_flush_sends_what_is_held_and_the_rows_stay_known(make):
    sparsifier = make(Hold(share=0.5, steps=1000))
    sent_in(sparsifier, 4)
    flushed = sparsifier.flush()
    assert by_id(flushed.others) == {7: 1}
    sparsifier.commit(flushed)
    assert step(sparsifier, {7: 1.0}) == ({}, {})  # or it would be sent as rows that nothing is known of


def test_where_there_is_no_room_the_rows_that_no_step_had_for_the_longest_are_forgotten_and_go_whole(make):
    sparsifier = make(Hold(share=0.5, steps=1000), rows=16)
    for id_ in range(16):
        for _ in range(3):
            step(sparsifier, {id_: 1.0})
    step(sparsifier, {99: 1.0})
    assert sparsifier.nbytes <= 16 * (4 + KEY_BYTES)
    assert step(sparsifier, {15: 1.0}) == ({}, {})
    assert step(sparsifier, {0: 1.0}) == ({0: 1}, {})


def test_a_step_of_more_rows_than_there_is_room_for_remembers_some_and_loses_nothing(make):
    sparsifier = make(Hold(share=0.5, steps=1000), rows=8)
    for _ in range(6):
        sent, others = step(sparsifier, dict.fromkeys(range(20), 1.0))
        assert sparsifier.nbytes <= 8 * (4 + KEY_BYTES)
    assert sum(sent.values()) + sum(others.values()) + sum(by_id(sparsifier.flush().others).values()) >= 20


def test_by_elements_too_a_row_of_which_too_much_would_be_held_is_sent_whole():
    sparsifier = Sparsifier(Threshold(7.5, by="elements", hold=Hold(share=0.5, steps=4)), 2)
    for number in range(8):
        selection = sparsifier.select(np.array([7]), np.array([[8, 1 + number / 8]], F32))
        sparsifier.commit(selection)
        whole = bool(selection.selected.grads_RD[0, 1])
        assert whole == (number in (0, 5))  # when it is not known; when some of it has been held for long
    sparsifier.close()


def test_a_state_without_history_is_read_and_its_rows_begin_anew(make):
    sparsifier, older = make(Hold(share=0.5, steps=1000)), make(Hold(share=0.5, steps=1000))
    sent_in(sparsifier, 4)
    state = sparsifier.state_dict()
    del state["history"]
    older.load_state_dict({**state, "format": 2})
    assert step(older, {7: 1.0})[0] == {7: 2}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: Hold(share=0), r"Hold.share: 0 is not a share above 0 and below 1"),
        (lambda: Hold(share=1), r"Hold.share: 1"),
        (lambda: Hold(steps=0), r"Hold.steps: 0 is not a whole number from 1 on"),
        (lambda: TopK(hold=32), r"TopK.hold: 32: give Hold"),
        (lambda: Threshold(1.0, hold=True), r"Threshold.hold: True"),
        (lambda: TopK(error_feedback=False), r"TopK.hold: without error_feedback nothing is held: give hold=None"),
    ],
)
def test_what_is_out_of_range_is_named(wrong, says):
    with pytest.raises(ConfigError, match=says):
        wrong()


def test_the_default_holds_nothing_for_ever():
    assert TopK().hold == Hold()
