"""A fake bucket, and the variables that send every client there."""

import pytest


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """The bucket `gs://bucket` for this process and those that it starts."""
    pytest.importorskip("cryptography", reason="makes the certificate; comes with the extra gcs")
    from tests.io.fake_bucket import FakeBucket

    fake = FakeBucket(tmp_path_factory.mktemp("bucket"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in fake.environment.items():
            patch.setenv(name, value)
        yield fake
    fake.close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keeps a test from finding files that another one has fetched."""
    monkeypatch.setenv("IFT_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
