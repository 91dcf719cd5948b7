"""Initial values of rows."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ps.values.frozen import MAX_FLOAT32, Finite, Frozen, NonNegative


class Uniform(Frozen):
    """Uniform in [low, high)."""

    kind: Literal["uniform"] = "uniform"
    low: Finite = -0.05
    high: Finite = 0.05

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}: exchange them")
        if self.high - self.low > MAX_FLOAT32:
            raise ValueError(f"high - low is {self.high - self.low}, more than a float32 holds")
        return self


class Normal(Frozen):
    """Gaussian."""

    kind: Literal["normal"] = "normal"
    mean: Finite = 0.0
    std: NonNegative = 0.01


class Constant(Frozen):
    """One value everywhere."""

    kind: Literal["constant"] = "constant"
    value: Finite = 0.0


Initializer = Annotated[Uniform | Normal | Constant, Field(discriminator="kind")]
