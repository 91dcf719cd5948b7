"""What all configurations are made of: a frozen, validated value, and the numbers that its fields take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ps.seconds import LONGEST_S
from ps.values.problems import refused

MIN_FLOAT32, MAX_FLOAT32 = 1.2e-38, 3.4e38
"""Bounds of numbers that become float32, as rows and their optimizers are: a smaller one would be 0 there, a larger one
infinite."""

MAX_COUNT = 1 << 53
"""Most rows, pushes and the like: a float holds every count up to it exactly."""


def _float32_holds(value: float) -> float:
    if 0 < value < MIN_FLOAT32:
        raise ValueError(f"Input should be 0, or greater than or equal to {MIN_FLOAT32:g}")
    return value


Positive = Annotated[float, Field(ge=MIN_FLOAT32, le=MAX_FLOAT32)]
Seconds = Annotated[float, Field(ge=MIN_FLOAT32, le=LONGEST_S)]
NonNegative = Annotated[float, Field(ge=0, le=MAX_FLOAT32)]
Rate = Annotated[float, Field(ge=0, le=MAX_FLOAT32), AfterValidator(_float32_holds)]
"""How far a step goes; 0 for no step at all."""
Finite = Annotated[float, Field(ge=-MAX_FLOAT32, le=MAX_FLOAT32)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Frozen(BaseModel):
    """A value that does not change, and knows no keys but its own."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    elsewhere: ClassVar[Mapping[str, str]] = {}
    """Names that are no fields here -> the dotted name of the setting that they stand for."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise refused(type(self).__name__, error, type(self).model_fields, self.elsewhere) from None

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The value of a JSON text; raises ConfigError."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise refused(cls.__name__, error, cls.model_fields, cls.elsewhere) from None

    def to_json(self) -> str:
        """The value as JSON, every default written out."""
        return self.model_dump_json()
