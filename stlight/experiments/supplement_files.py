"""Types of the files about the supplement itself: errata that no code can find, and the sources of quoted numbers."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from stlight.experiments.experiment_file import PublishedEntry
from stlight.experiments.field_types import Text
from stlight.experiments.yaml_files import FileModel, nearest
from stlight.registry.metric_specs import METRICS


class StatedErratum(FileModel):
    """A place where the supplement is wrong, which no code can find."""

    id: str = Field(pattern="^[a-z0-9_]+$")
    place: Text
    quote: Text
    """A few words of the supplement, word for word."""
    says: Text
    should: Text
    """What it should say, or why it is impossible."""
    here: Text
    """What this suite does about it."""


def _ids_are_unique(entries: list[StatedErratum]) -> list[StatedErratum]:
    ids = [entry.id for entry in entries]
    for number, name in enumerate(ids):
        if name in ids[:number]:
            raise ValueError(f"[{number}].id: {name!r} is given twice")
    return entries


Errata = Annotated[list[StatedErratum], AfterValidator(_ids_are_unique)]
"""Content of `errata.yaml`."""


class QuotedSource(FileModel):
    """Numbers of a source that the supplement quotes. A difference from the quoted number is an erratum."""

    experiment: str
    """The experiment whose published rows quote the source."""
    where: Text
    cited: bool
    """True if it is the very source that the supplement names."""
    rows: list[PublishedEntry] = Field(min_length=1)

    @model_validator(mode="after")
    def _rows_are_metrics_of_models(self) -> Self:
        for number, row in enumerate(self.rows):
            if row.model is None:
                raise ValueError(f"rows[{number}]: model is missing")
            if unknown := row.coordinates.keys() - {"model"}:
                raise ValueError(f"rows[{number}]: unknown metric {min(unknown)!r}{nearest(min(unknown), METRICS)}")
        return self


QuotedSources = list[QuotedSource]
"""Content of `quoted_sources.yaml`."""
