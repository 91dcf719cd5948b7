"""A threshold estimated from a sample, now and then, sends about the share that it should; no step sorts."""

from __future__ import annotations

import numpy as np
import pytest

from ps.nn.sparsify.sparsifiers import Sparsifier, TopK

F32 = np.float32


def gaussian(rng, shape):
    return rng.standard_normal(shape).astype(F32)


def heavy_tailed(rng, shape):
    """Rows of very different size, and elements of a Student's t of 2 degrees of freedom: no variance."""
    return (rng.standard_t(2, shape) * np.exp(1.5 * rng.standard_normal((shape[0], 1)))).astype(F32)


def share(selection, n, dim, by):
    selected = selection.selected
    return len(selected) / n if by == "rows" else np.count_nonzero(selected.grads_RD) / (n * dim)


@pytest.mark.parametrize("draw", [gaussian, heavy_tailed])
@pytest.mark.parametrize(("by", "n", "dim", "sample"), [("rows", 4000, 8, 1500), ("elements", 2000, 16, 8000)])
@pytest.mark.parametrize("density", [0.05, 0.2])
def test_the_share_sent_is_the_density(draw, by, n, dim, sample, density):
    """In the step of an estimate to the precision of the sample; on average, with residuals, to a quarter or so."""
    rng = np.random.default_rng(7)
    sparsifier = Sparsifier(TopK(density, by=by, reestimate_every=16, sample=sample, hold=None), dim)
    shares, estimated = [], []
    for _ in range(130):
        before = sparsifier.estimates
        selection = sparsifier.select(np.arange(n), draw(rng, (n, dim)))
        sparsifier.commit(selection)
        shares.append(share(selection, n, dim, by))
        estimated.append(sparsifier.estimates > before)
    sparsifier.close()
    at_N = np.flatnonzero(estimated)
    assert at_N[:3].tolist() == [0, 1, 2]
    assert np.diff(at_N[3:]).min() >= 2
    assert np.diff(at_N[3:]).max() <= 16
    at_estimates = np.array(shares)[estimated]
    deviation = (density * sample) ** -0.5
    assert np.abs(at_estimates / density - 1).max() < 5 * deviation
    assert np.mean(shares[64:]) == pytest.approx(density, rel=0.25)


def test_the_warm_up_sends_less_and_less():
    n, rng = 3000, np.random.default_rng(8)
    config = TopK(0.02, reestimate_every=50, warm_up=30, hold=None)
    sparsifier = Sparsifier(config, 4)
    shares = []
    for _ in range(200):
        selection = sparsifier.select(np.arange(n), gaussian(rng, (n, 4)))
        sparsifier.commit(selection)
        shares.append(len(selection.selected) / n)
    sparsifier.close()
    assert shares[0] == 1
    for step in (5, 10, 20, 29):
        assert shares[step] == pytest.approx(config.density_at(step), rel=0.35)
    assert np.mean(shares[100:]) == pytest.approx(0.02, rel=0.3)


def test_between_estimates_no_sorting_function_runs(monkeypatch):
    """A step must not cost a sort: after the first steps, 99 of 100 make one comparison an element."""
    sparsifier = Sparsifier(TopK(0.1, reestimate_every=100, hold=None), 4)
    rng = np.random.default_rng(9)
    partitioned = []
    partition = np.partition
    monkeypatch.setattr(np, "partition", lambda *args: partitioned.append(args) or partition(*args))

    def refuse(*_):
        raise AssertionError("sorted")

    for name in ("sort", "argsort", "argpartition"):
        monkeypatch.setattr(np, name, refuse)
    for _ in range(300):
        sparsifier.commit(sparsifier.select(np.arange(500), gaussian(rng, (500, 4))))
    sparsifier.close()
    assert len(partitioned) == sparsifier.estimates < 300 / 13 + 6


def test_rows_that_must_be_sent_do_not_count():
    """Half of the rows are new and large: the threshold is for the others."""
    n, rng = 4000, np.random.default_rng(10)
    always_U = np.arange(n) % 2 == 0
    grads_UD = gaussian(rng, (n, 4)) * np.where(always_U, 100, 1).astype(F32)[:, None]
    for by in ("rows", "elements"):
        sparsifier = Sparsifier(TopK(0.1, by=by, hold=None), 4)
        sent = sparsifier.select(np.arange(n), grads_UD, always_U).selected
        others_RD = sent.grads_RD[~always_U[sent.rows_R]]
        reached = len(others_RD) / (n / 2) if by == "rows" else np.count_nonzero(others_RD) / (n * 2)
        assert reached == pytest.approx(0.1, rel=0.1)
        sparsifier.close()
