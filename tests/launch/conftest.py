"""The fake Google Cloud that several files of tests use."""

import pytest

from tests.launch.fakes import Cloud


@pytest.fixture
def cloud(tmp_path):
    cloud = Cloud(tmp_path)
    yield cloud
    cloud.close()
