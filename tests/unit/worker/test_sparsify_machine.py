"""Nothing is lost and nothing doubled: what was applied and what is held is the sum of all true gradients.

Exactly, with gradients that are integers, whatever is selected, always sent, over the bound, flushed, rolled back,
forgotten, relaxed, and saved and restored in any order. Against a plain dict.
"""

from __future__ import annotations

import hypothesis
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from ps.nn.sparsify.convergence import STATISTIC_BYTES
from ps.nn.sparsify.residual_arrays import KEY_BYTES
from ps.nn.sparsify.sparsifiers import Hold, Relaxed, Sparsifier, Threshold, TopK

F32 = np.float32
IDS = 24

bys = st.sampled_from(["rows", "elements"])


relaxing = st.none() | st.builds(
    Relaxed,
    every=st.integers(1, 6),
    ratio=st.sampled_from([0.0, 0.1, 0.5]),
    window=st.integers(1, 3),
    max_bytes=st.sampled_from([1, 7, 100]).map(lambda rows: rows * STATISTIC_BYTES),
)


holding = st.none() | st.builds(Hold, share=st.sampled_from([0.1, 0.5, 0.9]), steps=st.integers(1, 9))


def configs(by):
    fixed = st.builds(Threshold, st.sampled_from([0.0, 1.0, 2.5, 7.0, 1e9]), st.just(by), relaxing, holding)
    top = st.builds(
        TopK,
        density=st.sampled_from([0.01, 0.3, 1.0]),
        by=st.just(by),
        reestimate_every=st.integers(1, 4),
        sample=st.sampled_from([1, 10, 1000]),
        warm_up=st.sampled_from([0, 5]),
        relaxed=relaxing,
        hold=holding,
    )
    return fixed | top


class Sparsifying(RuleBasedStateMachine):
    sent = Bundle("sent")

    @initialize(by=bys, dim=st.sampled_from([1, 3, 9]), max_rows=st.integers(1, 30), data=st.data())
    def begin(self, by, dim, max_rows, data):
        self.by, self.dim, self.max_rows = by, dim, max_rows
        self.sparsifier = self.made(data)
        self.true_ID = np.zeros((IDS, dim))
        self.applied_ID = np.zeros((IDS, dim))
        self.forgotten_ID = np.zeros((IDS, dim))
        self.pushed_I = np.zeros(IDS)
        self.since_I = np.zeros(IDS)
        self.steps = 0
        self.open = []

    def made(self, data):
        max_bytes = self.max_rows * (4 * self.dim + KEY_BYTES)
        self.config = data.draw(configs(self.by))
        return Sparsifier(self.config, self.dim, max_bytes=max_bytes, seed=5)

    def opened(self, selection):
        self.open.append(selection)
        return selection

    @rule(target=sent, seed=st.integers(0, 2**32), always=st.booleans(), share=st.sampled_from([0, 0.2, 0.8, 1]))
    def select(self, seed, always, share):
        rng = np.random.default_rng(seed)
        ids_U = rng.permutation(IDS)[: rng.binomial(IDS, share)]
        grads_UD = (rng.integers(-4, 5, (len(ids_U), self.dim)) * rng.integers(0, 3, (len(ids_U), 1))).astype(F32)
        always_U = rng.random(len(ids_U)) < 0.2 if always else None
        self.true_ID[ids_U] += grads_UD
        values_UD = np.full((len(ids_U), self.dim), rng.choice([0, 20, 200]), F32)
        important_U = rng.random(len(ids_U)) < 0.8
        selection = self.sparsifier.select(ids_U, grads_UD, always_U, rows_UD=values_UD, important_U=important_U)
        assert self.sparsifier.nbytes <= self.max_rows * (4 * self.dim + KEY_BYTES)
        self.steps += 1
        self.check_hold(ids_U, selection)
        selected = selection.selected
        assert (np.diff(selected.rows_R) > 0).all()
        np.testing.assert_array_equal(ids_U[selected.rows_R], selection.ids_R)
        assert not np.isin(selection.others.ids_R, ids_U).any()
        if always:
            assert np.isin(np.flatnonzero(always_U), selected.rows_R).all()
            assert not np.isin(self.held().ids_R, ids_U[always_U]).any()
        return self.opened(selection)

    def check_hold(self, ids_U, selection):
        """Nothing is held for longer than `steps`, nor more of a row than `share` of what there is of it."""
        sent, held, hold = selection.by_id(), self.held(), self.config.hold
        self.pushed_I[sent.ids_R] += (sent.grads_RD.astype(np.float64) ** 2).sum(axis=1)
        if hold is None:
            return
        self.note_held()
        assert (self.steps - self.since_I[held.ids_R] < hold.steps).all()
        norms_R = (held.grads_RD.astype(np.float64) ** 2).sum(axis=1)
        share, of_step_R = hold.share**2, np.isin(held.ids_R, ids_U)
        if self.config.relaxed is None:
            most_R = share * (self.pushed_I[held.ids_R] + norms_R)
            assert (norms_R <= most_R * (1 + 1e-5))[of_step_R].all()

    def note_held(self):
        """Since when something is held of a row; of others, since now."""
        held_I = np.isin(np.arange(IDS), self.held().ids_R)
        self.since_I[~held_I] = np.inf
        self.since_I = np.minimum(self.since_I, self.steps)
        self.since_I[~held_I] = np.inf

    @rule(target=sent)
    def flush(self):
        selection = self.opened(self.sparsifier.flush())
        sent = selection.by_id()
        self.pushed_I[sent.ids_R] += (sent.grads_RD.astype(np.float64) ** 2).sum(axis=1)
        self.note_held()
        assert self.sparsifier.rows_held == 0
        return selection

    @rule(selection=consumes(sent))
    def applied(self, selection):
        if selection in self.open:
            held = selection.by_id()
            assert len(np.unique(held.ids_R)) == len(held.ids_R)
            self.applied_ID[held.ids_R] += held.grads_RD
            self.sparsifier.commit(selection)
            self.open.remove(selection)

    @rule(selection=consumes(sent))
    def refused(self, selection):
        if selection in self.open:
            self.sparsifier.rollback(selection)
            self.open.remove(selection)
            self.note_held()

    @rule(seed=st.integers(0, 2**32))
    def forget(self, seed):
        held = self.sparsifier.forget(np.random.default_rng(seed).permutation(IDS)[:6])
        self.forgotten_ID[held.ids_R] += held.grads_RD
        self.note_held()

    @rule(data=st.data())
    def restart(self, data):
        """With the state saved when all pushes have ended; thresholds may be others from then on."""
        for selection in self.open:
            self.sparsifier.rollback(selection)
        self.open = []
        state = self.sparsifier.state_dict()
        self.sparsifier.close()
        self.sparsifier = self.made(data)
        self.sparsifier.load_state_dict(state)
        self.since_I[:] = self.steps  # what is held may be older than the bound of now allows, but not for long
        self.note_held()

    def held(self):
        return self.sparsifier._store.all()

    @invariant()
    def nothing_is_lost(self):
        if not hasattr(self, "open"):
            return
        total_ID = self.applied_ID + self.forgotten_ID
        for part in [self.held(), *(selection.by_id() for selection in self.open)]:
            total_ID[part.ids_R] += part.grads_RD
        np.testing.assert_array_equal(total_ID, self.true_ID)

    @invariant()
    def norms_are_those_of_what_is_held(self):
        if hasattr(self, "open"):
            store = self.sparsifier._store
            held = self.held()
            assert len(held.ids_R) == self.sparsifier.rows_held <= len(store)
            assert len(store) == np.count_nonzero(store.norms_S >= 0)
            np.testing.assert_array_equal(store.norms_S[store.find(held.ids_R)], (held.grads_RD**2).sum(axis=1))
            assert (held.grads_RD != 0).any(axis=1).all()

    def teardown(self):
        if hasattr(self, "sparsifier"):
            self.sparsifier.close()


TestSparsifying = Sparsifying.TestCase
TestSparsifying.settings = hypothesis.settings(deadline=None, max_examples=40, stateful_step_count=25)
