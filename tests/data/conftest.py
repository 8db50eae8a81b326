import pytest

from tests.data.fetching.web import serving


@pytest.fixture
def site(monkeypatch):
    """Serve a web site on localhost, without a proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as the_site:
        yield the_site
