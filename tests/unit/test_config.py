"""Configuration: what is wrong is refused by name, what is right round-trips."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import ps
from ps.errors import ConfigError
from ps.initializer import RowInitializer

positive = st.floats(1e-6, 1e6)
any_finite = st.floats(-1e6, 1e6)
beta = st.floats(0, 1, exclude_max=True)
optimizers = st.one_of(
    st.builds(ps.SGD, lr=positive),
    st.builds(ps.Adagrad, lr=positive, eps=positive, initial_accumulator=positive),
    st.builds(ps.RowwiseAdagrad, lr=positive, eps=positive, initial_accumulator=positive),
    st.builds(ps.Adam, lr=positive, beta1=beta, beta2=beta, eps=positive),
    st.builds(ps.FTRL, alpha=positive, beta=positive, l1=positive, l2=positive),
)
initializers = st.one_of(
    st.builds(ps.Constant, value=any_finite),
    st.builds(ps.Normal, mean=any_finite, std=positive),
    st.tuples(any_finite, any_finite).map(lambda pair: ps.Uniform(low=min(pair), high=max(pair))),
)
core_optimizers = st.one_of(
    st.builds(ps.SGD, lr=positive), st.builds(ps.Adagrad, lr=positive), st.builds(ps.RowwiseAdagrad, lr=positive)
)


@st.composite
def tensor_trains(draw: st.DrawFn) -> dict[str, Any]:
    """Of a table: a tensor train and the dim that fits it."""
    cores = draw(st.integers(2, 4))
    several = [draw(st.lists(st.integers(1, most), min_size=n, max_size=n)) for n, most in ((cores, 99), (cores, 8))]
    p_shapes, q_shapes = (tuple(entries) for entries in several)
    rank = st.integers(1, 1024)
    cold = ps.TensorTrain(
        rows=draw(st.integers(1, prod(p_shapes))),
        ranks=draw(rank | st.tuples(*[rank] * (cores - 1))),
        cores=cores,
        p_shapes=draw(st.none() | st.just(p_shapes)),
        q_shapes=draw(st.none() | st.just(q_shapes)),
        index=draw(st.sampled_from(["dense", "hash"])),
        initializer=draw(st.sampled_from(["approximate_uniform", "gaussian", "uniform"])),
        optimizer=draw(core_optimizers),
        hot_rows=draw(st.integers(0, 10**9)),
        lift_after=draw(st.integers(1, 10**9)),
        fold_tolerance=draw(positive),
    )
    return {"cold": cold, "dim": prod(q_shapes)}


fp16s = st.builds(ps.Fp16, hot_fraction=st.floats(0, 1))
plain_tables = st.builds(
    ps.TableConfig,
    name=st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}\Z"),
    dim=st.integers(1, 65_536),
    cold=st.none() | fp16s,
    optimizer=optimizers,
    initializer=initializers,
    seed=st.integers(0, 2**63 - 1),
    importance=st.builds(ps.Importance, frequency=positive, occurrences=positive, recency=positive, external=positive),
    admission=st.one_of(
        st.builds(ps.Always),
        st.builds(ps.CountThreshold, min_count=st.integers(1, 65_535), cells=st.integers(1 << 12, 1 << 26)),
        st.builds(ps.Probability, p=st.floats(1e-6, 1)),
    ),
)
tensor_train_tables = st.builds(
    lambda fields, **more: ps.TableConfig(name="t", **fields, **more),
    tensor_trains(),
    optimizer=optimizers,
    max_rows_per_shard=st.none() | st.integers(1, 10**9),
    expire_after_pushes=st.none() | st.integers(16, 10**9),
)
tables = plain_tables | tensor_train_tables


@given(tables)
def test_a_table_comes_back_from_json(config: ps.TableConfig) -> None:
    assert ps.TableConfig.from_json(config.to_json()) == config


@given(tables)
def test_a_table_comes_back_from_yaml(config: ps.TableConfig) -> None:
    assert ps.TableConfig(**yaml.safe_load(yaml.safe_dump(config.model_dump()))) == config


@given(tensor_trains(), st.data())
def test_factors_of_a_tensor_train_fit_its_rows_and_its_dim(fields: dict[str, Any], data: st.DataObject) -> None:
    """Those drawn are accepted; one more row than p_shapes stand for, a dim that q_shapes do not make, an entry too
    many or too few are not."""
    cold, dim = fields["cold"], fields["dim"]
    values = cold.model_dump()
    assert ps.TableConfig(name="t", dim=dim, cold=cold).cold == cold
    if cold.q_shapes is not None:
        other = data.draw(st.integers(1, 65_536).filter(lambda n: n != dim))
        with pytest.raises(ConfigError, match=f"make rows of {dim:,}, and dim is {other}: take factors"):
            ps.TableConfig(name="t", dim=other, cold=cold)
    if cold.p_shapes is not None:
        most = prod(cold.p_shapes)
        assert ps.TensorTrain(**{**values, "rows": most}).rows == most
        with pytest.raises(ConfigError, match=f"stand for {most:,} rows, fewer than rows {most + 1:,}"):
            ps.TensorTrain(**{**values, "rows": most + 1})
    for name in ("p_shapes", "q_shapes", "ranks"):
        entries = values[name]
        if isinstance(entries, tuple):
            for wrong in (entries[1:], (*entries, 1024)):
                with pytest.raises(ConfigError, match=rf"{name} .* has {len(wrong)} entries: {cold.cores} cores take"):
                    ps.TensorTrain(**{**values, name: wrong})


def test_defaults_of_the_cold_tiers() -> None:
    assert ps.TableConfig(name="t", dim=4).cold is None
    assert ps.Fp16().model_dump() == {"kind": "fp16", "hot_fraction": 0.1, "state": "fp16"}
    written = ps.TensorTrain(rows=100).model_dump()
    assert (written["kind"], written["ranks"], written["cores"], written["index"]) == ("tensor_train", 16, 3, "dense")
    assert written["initializer"] == "approximate_uniform"
    assert written["p_shapes"] is written["q_shapes"] is written["optimizer"] is None
    assert (written["hot_rows"], written["lift_after"], written["fold_tolerance"]) == (10_000, 2, 0.1)


@pytest.mark.parametrize("optimizer", [ps.Adam(), ps.FTRL()])
def test_cores_take_an_optimizer_of_their_own_where_they_cannot_have_the_tables(optimizer: Any) -> None:
    with pytest.raises(ConfigError, match=f"optimizer '{optimizer.kind}' cannot train the cores.*set cold.optimizer"):
        ps.TableConfig(name="t", dim=4, optimizer=optimizer, cold=ps.TensorTrain(rows=9))
    cold = ps.TensorTrain(rows=9, optimizer=ps.SGD())
    assert ps.TableConfig(name="t", dim=4, optimizer=optimizer, cold=cold).cold == cold


def test_a_service_comes_back_from_yaml(tmp_path: Path) -> None:
    config = ps.ServiceConfig(
        network={"host": "0.0.0.0"},
        limits={"max_ids": 7},
        performance={"prepare_ttl_s": 0.5},
        watching={"metrics": False},
    )
    path = tmp_path / "service.yaml"
    path.write_text(yaml.safe_dump(config.model_dump()))
    assert ps.ServiceConfig.from_yaml(path) == config
    path.write_text("")
    assert ps.ServiceConfig.from_yaml(path) == ps.ServiceConfig(), "an empty file is all defaults"
    path.write_text("- host")
    with pytest.raises(ConfigError, match="expected a mapping"):
        ps.ServiceConfig.from_yaml(path)


def test_every_default_is_written_out() -> None:
    written = json.loads(ps.TableConfig(name="t", dim=4).to_json())
    assert set(written) == {"name", "dim", "optimizer", "initializer", "seed", "half_life_pushes", "swap_fraction"} | {
        *("importance", "admission", "max_rows_per_shard", "expire_after_pushes"),
        *("cold", "device"),
    }
    assert written["optimizer"]["kind"] == "rowwise_adagrad"
    assert written["initializer"] == {"kind": "uniform", "low": -0.05, "high": 0.05}


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (ps.TableConfig, {"name": "t", "dim": 4, "dims": 4}, "dims"),
    (ps.TableConfig, {"name": "t"}, "dim"),
    (ps.TableConfig, {"dim": 4}, "name"),
    (ps.TableConfig, {"name": "t", "dim": 0}, "dim"),
    (ps.TableConfig, {"name": "t", "dim": 65_537}, "dim"),
    (ps.TableConfig, {"name": "t", "dim": 2.5}, "dim"),
    (ps.TableConfig, {"name": "", "dim": 4}, "name"),
    (ps.TableConfig, {"name": "a b", "dim": 4}, "name"),
    (ps.TableConfig, {"name": "a/b", "dim": 4}, "name"),
    (ps.TableConfig, {"name": ".a", "dim": 4}, "name"),
    (ps.TableConfig, {"name": "a\n", "dim": 4}, "name"),
    (ps.TableConfig, {"name": "a" * 129, "dim": 4}, "name"),
    (ps.TableConfig, {"name": "t", "dim": 4, "seed": -1}, "seed"),
    (ps.TableConfig, {"name": "t", "dim": 4, "seed": 2**63}, "seed"),
    (ps.TableConfig, {"name": "t", "dim": 4, "optimizer": {"kind": "lion"}}, "optimizer"),
    (ps.TableConfig, {"name": "t", "dim": 4, "optimizer": {"kind": "sgd", "lr": -1}}, "lr"),
    (ps.TableConfig, {"name": "t", "dim": 4, "optimizer": {"kind": "sgd", "momentum": 1}}, "momentum"),
    (ps.TableConfig, {"name": "t", "dim": 4, "initializer": {"kind": "zeros"}}, "initializer"),
    (ps.Adam, {"lr": -0.001}, "lr"),
    (ps.SGD, {"lr": float("inf")}, "lr"),
    (ps.SGD, {"lr": float("nan")}, "lr"),
    (ps.SGD, {"lr": "fast"}, "lr"),
    (ps.Adagrad, {"initial_accumulator": -0.1}, "initial_accumulator"),
    (ps.Adam, {"beta1": 1.0}, "beta1"),
    (ps.Adam, {"beta2": -0.1}, "beta2"),
    (ps.FTRL, {"l1": -1}, "l1"),
    (ps.Normal, {"std": -1}, "std"),
    (ps.Constant, {"value": float("nan")}, "value"),
    (ps.Uniform, {"low": 1, "high": 0}, "low 1.0 is above high 0.0"),
    (ps.Importance, {"frequency": 0}, "every weight is 0, so no row would be more important than another: set one"),
    (ps.Importance, {"positives": -1}, "positives: Input should be greater than or equal to 0 (got -1)"),
    (ps.Importance, {"attribution": float("inf")}, "attribution"),
    (ps.CountThreshold, {}, "min_count"),
    (ps.CountThreshold, {"min_count": 0}, "min_count: Input should be greater than or equal to 1 (got 0)"),
    (ps.CountThreshold, {"min_count": 65_536}, "min_count"),
    (ps.CountThreshold, {"min_count": 2, "cells": 4095}, "cells"),
    (ps.Probability, {"p": 0}, "p: Input should be greater than 0 (got 0)"),
    (ps.Probability, {"p": 1.1}, "p"),
    (ps.TableConfig, {"name": "t", "dim": 4, "admission": {"kind": "never"}}, "admission"),
    (ps.ServiceConfig, {"disk": {"max_bytes": 1 << 30}}, "disk.path"),
    (ps.TableConfig, {"name": "t", "dim": 4, "device": "cuda:1"}, "device"),
    (
        ps.TableConfig,
        {"name": "t", "dim": 4, "device": "cuda", "cold": {"kind": "fp16"}},
        "cold 'fp16' does not go together with device 'cuda' yet",
    ),
    (
        ps.TableConfig,
        {"name": "t", "dim": 4, "device": "torch-cpu", "cold": {"kind": "tensor_train", "rows": 9}},
        "cold 'tensor_train' does not go together with device 'torch-cpu' yet",
    ),
    *(
        (
            ps.TableConfig,
            {"name": "t", "dim": 4, "cold": {"kind": "tensor_train", "rows": 9}, "admission": admission},
            f"admission '{admission['kind']}' does not go together with cold 'tensor_train': in a tensor-train table "
            "every id has a value; leave admission out",
        )
        for admission in ({"kind": "count_threshold", "min_count": 2}, {"kind": "probability", "p": 0.5})
    ),
    (ps.TableConfig, {"name": "t", "dim": 4, "cold": "fp16"}, "cold: Input should be a valid dictionary"),
    (ps.TableConfig, {"name": "t", "dim": 4, "cold": {"kind": "int8"}}, "cold"),
    (
        ps.TableConfig,
        {"name": "t", "dim": 4, "cold": {"kind": "fp16", "rows": 9}},
        "cold.rows: no such setting (got 9); there are: kind, hot_fraction, state",
    ),
    (ps.TableConfig, {"name": "t", "dim": 4, "cold": {"kind": "tensor_train"}}, "cold.rows: Field required"),
    (ps.TableConfig, {"name": "t", "dim": 4, "hot_fraction": 0.1}, "hot_fraction"),
    (ps.Fp16, {"hot_fraction": -0.1}, "hot_fraction"),
    (ps.Fp16, {"hot_fraction": 1.1}, "hot_fraction"),
    (ps.Fp16, {"state": "bf16"}, "state"),
    (ps.TensorTrain, {}, "rows"),
    (ps.TensorTrain, {"rows": 0}, "rows: Input should be greater than or equal to 1 (got 0)"),
    (ps.TensorTrain, {"rows": 2**40 + 1}, "rows: Input should be less than or equal to 1099511627776"),
    (ps.TensorTrain, {"rows": 9, "ranks": 0}, "greater than or equal to 1 (got 0)"),
    (ps.TensorTrain, {"rows": 9, "ranks": 1025}, "less than or equal to 1024 (got 1025)"),
    (ps.TensorTrain, {"rows": 9, "ranks": [4, 1025]}, "less than or equal to 1024 (got 1025)"),
    (ps.TensorTrain, {"rows": 9, "cores": 5}, "cores"),
    (ps.TensorTrain, {"rows": 9, "p_shapes": [9, 0, 1]}, "p_shapes.1"),
    (ps.TensorTrain, {"rows": 9, "q_shapes": [-1, 1, 1]}, "q_shapes.0"),
    (ps.TensorTrain, {"rows": 9, "index": "sparse"}, "index"),
    (ps.TensorTrain, {"rows": 9, "initializer": "zeros"}, "initializer"),
    (ps.TensorTrain, {"rows": 9, "optimizer": {"kind": "adam"}}, "optimizer"),
    (ps.TensorTrain, {"rows": 9, "hot_rows": -1}, "hot_rows"),
    (ps.TensorTrain, {"rows": 9, "lift_after": 0}, "lift_after"),
    (ps.TensorTrain, {"rows": 9, "fold_tolerance": 0}, "fold_tolerance"),
    (ps.TensorTrain, {"rows": 9, "fold_tolerance": float("inf")}, "fold_tolerance"),
    (ps.TensorTrain, {"rows": 9, "fold_tolerance": float("nan")}, "fold_tolerance"),
    (ps.ServiceConfig, {"memory": {"gpu_bytes": 1000}}, "gpu_bytes"),
    (ps.ServiceConfig, {"limits": {"max_request": 3}}, "limits.max_request"),
    (ps.ServiceConfig, {"limits": {"max_requests": 0}}, "max_requests"),
    (ps.ServiceConfig, {"performance": {"grpc_threads": 1}}, "grpc_threads"),
    (ps.ServiceConfig, {"limits": {"ledger_window": 15}}, "ledger_window"),
    (ps.ServiceConfig, {"performance": {"prepare_ttl_s": 0}}, "prepare_ttl_s"),
    (ps.ServiceConfig, {"limits": {"max_message_bytes": 1}}, "max_message_bytes"),
]


@pytest.mark.parametrize(("kind", "values", "named"), BAD, ids=lambda value: str(value)[:60])
def test_what_is_wrong_is_a_config_error_that_names_it(kind: Any, values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        kind(**values)
    assert kind.__name__ in str(refused.value)
    assert named in str(refused.value)
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(("kind", "values", "named"), BAD, ids=lambda value: str(value)[:60])
def test_the_same_from_json(kind: Any, values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        kind.from_json(json.dumps(values))
    assert named in str(refused.value) or "JSON" in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"t"', "\x00"])
def test_text_that_is_no_configuration_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match="TableConfig"):
        ps.TableConfig.from_json(text)


def test_a_configuration_does_not_change() -> None:
    config = ps.TableConfig(name="t", dim=4)
    with pytest.raises(ValidationError, match="frozen"):
        config.dim = 5


@pytest.mark.parametrize(
    "initializer",
    [{"kind": "constant", "value": 1e39}, {"kind": "uniform", "low": -3e38, "high": 3e38}],
    ids=["beyond float32", "a span beyond float32"],
)
def test_an_initializer_that_is_accepted_gives_the_rows_it_promises(initializer: dict[str, Any]) -> None:
    """Rows are float32: what does not fit must be refused, not become infinite, or all one value, in the first pull."""
    try:
        config = ps.TableConfig(name="t", dim=4, initializer=initializer)
    except ConfigError:
        return
    out_ND = np.empty((8, 4), np.float32)
    RowInitializer.of(config).fill(np.arange(8), out_ND)
    assert np.isfinite(out_ND).all()
    assert initializer["kind"] == "constant" or len(np.unique(out_ND)) == out_ND.size


@pytest.mark.parametrize("value", [1e-60, 1e60])
@pytest.mark.parametrize(
    ("kind", "field"), [(ps.SGD, "lr"), (ps.Adagrad, "eps"), (ps.RowwiseAdagrad, "eps"), (ps.FTRL, "alpha")]
)
def test_a_setting_that_float32_cannot_hold_is_refused(kind: Any, field: str, value: float) -> None:
    """As float32 it is 0 or infinite: an eps of 0 makes NaN of a row whose gradient is 0, an infinite lr of any."""
    with pytest.raises(ConfigError, match=field):
        kind(**{field: value})


# what strangers send


def test_of_very_many_problems_some_are_told() -> None:
    keys = ",".join(f'"key_{number}": 1' for number in range(4000))
    with pytest.raises(ConfigError, match="and 3,968 more") as error:
        ps.TableConfig.from_json(f'{{"name": "t", "dim": 4, {keys}}}')
    assert len(error.value.problems) == 33
    assert len(str(error.value)) < 20_000


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "' + "x" * 60_000 + '", "dim": 4}',
        '{"name": "t", "dim": 4, "' + "x" * 60_000 + '": 1}',
        '{"name": "t", "dim": 4, "x": "' + "x" * 60_000 + '"}',
        '{"name": "t", "dim": [' + ",".join("1" * 9000) + "]}",
        '{"name": "t", "dim": ' + "1" * 60_000 + "}",
        '{"name": "t", "dim": 4, "seed": ' + "1" * 4000 + "}",
        '{"name": "t", "dim": ' + "[" * 30_000 + "]" * 30_000 + "}",
        '{"name": "t", "dim": 4, "half_life_pushes": ' + "1" * 4000 + "}",
        '{"name": "t", "dim": 4, "max_rows_per_shard": ' + "1" * 4000 + "}",
        '{"name": "t", "dim": 4, "cold": {"kind": "tensor_train", "rows": 9, "hot_rows": ' + "1" * 4000 + "}}",
        '{"name": "t", "dim": 4, "cold": {"kind": "tensor_train", "rows": 9, "p_shapes": [9, 9, ' + "1" * 4000 + "]}}",
    ],
)
def test_what_is_refused_is_quoted_in_part(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        ps.TableConfig.from_json(text)
    assert len(str(error.value)) < 2000
