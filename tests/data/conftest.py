import numpy as np
import pytest

from tests.conftest import WORKFLOW
from tests.data.fetching.web import serving
from tests.data.real_files import make_downloads, serve_downloads


@pytest.fixture
def site(monkeypatch):
    """Serve a web site on localhost, without a proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as the_site:
        yield the_site


@pytest.fixture(scope="session")
def there(tmp_path_factory):
    return tmp_path_factory.mktemp("there")


@pytest.fixture(scope="session")
def downloads(there):
    return make_downloads(there, WORKFLOW, np.random.default_rng(0))


@pytest.fixture
def published(site, downloads, workflow):
    """Change a workflow so that it fetches small data sets from a web site."""
    serve_downloads(site, downloads, workflow)
    return workflow
