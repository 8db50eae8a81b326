import pytest

from tests.analysis.errata.support import found_in


@pytest.fixture(scope="session")
def found(paper):
    """All errata by their ids."""
    return {e.id: e for e in found_in(paper)}
