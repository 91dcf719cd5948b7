"""What all configurations are made of: a frozen, validated value, and the numbers that its fields take."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ps.seconds import LONGEST_S
from ps.values.problems import refused

MIN_FLOAT32, MAX_FLOAT32 = 1.2e-38, 3.4e38
"""Rows and their optimizers are float32: smaller would be 0 there, larger infinite."""

MAX_COUNT = 1 << 53
"""Of rows, pushes and the like: what a float holds exactly."""

Positive = Annotated[float, Field(ge=MIN_FLOAT32, le=MAX_FLOAT32)]
Seconds = Annotated[float, Field(ge=MIN_FLOAT32, le=LONGEST_S)]
NonNegative = Annotated[float, Field(ge=0, le=MAX_FLOAT32)]
Finite = Annotated[float, Field(ge=-MAX_FLOAT32, le=MAX_FLOAT32)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Frozen(BaseModel):
    """A value that does not change, and knows no keys but its own."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise refused(type(self).__name__, error, type(self).model_fields) from None

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The value of a JSON text; raises ConfigError."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise refused(cls.__name__, error, cls.model_fields) from None

    def to_json(self) -> str:
        """As JSON, every default written out."""
        return self.model_dump_json()
