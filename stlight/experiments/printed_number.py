"""A number as the paper prints it: its digits and unit are kept, because 21.80 says more than 21.8."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
_PATTERN = r"^[-+]?[0-9]+(\.[0-9]+)?[KMG]?$"


@dataclass(frozen=True)
class PrintedNumber:
    """A number of the paper. Raises `ValueError` for a text that is not a number, which may end in K, M or G."""

    text: str

    def __post_init__(self) -> None:
        if not re.fullmatch(_PATTERN, self.text):
            raise ValueError(f"must be a number, which may end in K, M or G, got {self.text!r}")

    def __str__(self) -> str:
        return self.text

    @cached_property
    def value(self) -> float:
        """The number: 32.9e6 for "32.9M"."""
        return float(self.text.rstrip("KMG")) * self._unit

    @property
    def half_unit(self) -> float:
        """Half of the last printed digit: the printed number says nothing finer about what was rounded to it."""
        return 0.5 * self._unit * 10.0 ** -len(self.text.rstrip("KMG").partition(".")[2])

    @property
    def _unit(self) -> float:
        return _UNITS[self.text.lstrip("-+.0123456789")]

    def differs(self, other: Self) -> bool:
        """True if no single number rounds to both."""
        # The millionth is for sums of floats, which miss ties.
        return abs(self.value - other.value) > max(self.half_unit, other.half_unit) * (1 + 1e-6)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def parse(written: Any) -> "PrintedNumber":
            return written if isinstance(written, cls) else cls(getattr(written, "text", str(written)))

        return core_schema.no_info_plain_validator_function(parse, serialization=core_schema.to_string_ser_schema())
