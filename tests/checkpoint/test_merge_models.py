"""`ift merge` against the mean that NumPy computes in float64."""

import dataclasses

import jax
import numpy as np
import pytest

from ift_jax.checkpoint.load_model import load_model
from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.commands.main import main
from tests.small_models import CONFIG, random_model, write_workdir

pytestmark = pytest.mark.usefixtures("one_device")


def changed(params, factor):
    return jax.tree.map(lambda leaf: (factor * leaf + 0.1).astype(np.float32), params)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two workdirs; the second has the checkpoints 0 and 7."""
    folder = tmp_path_factory.mktemp("merge")
    _, params = random_model()
    first = write_workdir(folder / "a")
    second = write_workdir(folder / "b", params=changed(params, 2.0))
    checkpoints = Checkpoints(second, keep=2)
    checkpoints.save(7, {"params": changed(params, -3.0)})
    checkpoints.close()
    return first, second


def read(workdir, step=None):
    return load_model(open_model_source(str(workdir), step))


def assert_is_mean(workdir, *parts):
    params = read(workdir).params
    expected = jax.tree.map(
        lambda *leaves: sum(
            weight * np.asarray(leaf, np.float64)
            for (weight, _), leaf in zip(parts, leaves, strict=True)
        ),
        *(tree for _, tree in parts),
    )
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6),
        params,
        expected,
    )


def test_models_are_averaged_by_their_weights(runs, tmp_path, capsys):
    merged = tmp_path / "merged"
    assert main(["merge", *runs, "--weights", "0.75,0.25", "--workdir", str(merged)]) == 0
    _, params = random_model()
    assert_is_mean(merged, (0.75, params), (0.25, changed(params, -3.0)))
    assert f"0.75 x {runs[0]}" in capsys.readouterr().out
    prompt = ["--prompt", "Hi", "--max-new-tokens", "2"]
    assert main(["generate", "--workdir", str(merged), *prompt]) == 0


def test_checkpoints_of_a_run_are_averaged_alike(runs, tmp_path):
    merged = tmp_path / "merged"
    assert main(["merge", runs[1], "--steps", "0,7", "--workdir", str(merged)]) == 0
    _, params = random_model()
    assert_is_mean(merged, (0.5, changed(params, 2.0)), (0.5, changed(params, -3.0)))


def test_a_merged_run_with_adapters_is_a_whole_model(runs, tmp_path):
    """Its config must not ask for adapters, or a base model, that its checkpoint does not need."""
    config = dataclasses.replace(
        CONFIG, optimizer=dataclasses.replace(CONFIG.optimizer, freeze="embedding")
    )
    _, params = random_model()
    frozen = tmp_path / "frozen"
    from ift_jax.models.model import trained_model

    trained, kept = trained_model(config).split(params)
    write_workdir(frozen, config, trained)
    checkpoints = Checkpoints(str(frozen))
    checkpoints.save(3, {"params": trained, "frozen": kept})
    checkpoints.close()
    merged = tmp_path / "merged"
    assert main(["merge", str(frozen), runs[0], "--workdir", str(merged)]) == 0
    assert read(merged).config.optimizer.freeze == ""
    assert_is_mean(merged, (1.0, params))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--weights", "0.5,0.6"], "--weights: sum to 1.1; expected 1"),
        (["--weights", "1"], "--weights: 1 weights for 2 models"),
        (["--weights", "0.5,x"], "--weights: expected numbers such as 0.5,0.5; got 'x'"),
        (["--steps", "1,2"], "--steps: expected one MODEL beside it"),
    ],
)
def test_bad_flags_are_named(runs, tmp_path, capsys, flags, message):
    assert main(["merge", *runs, *flags, "--workdir", str(tmp_path / "merged")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_models_that_do_not_fit_are_named(runs, tmp_path, capsys):
    model = dataclasses.replace(CONFIG.model, rope_theta=5.0)
    other = write_workdir(tmp_path / "other", dataclasses.replace(CONFIG, model=model))
    assert main(["merge", runs[0], other, "--workdir", str(tmp_path / "merged")]) == 2
    assert "its model.rope_theta is 5.0" in capsys.readouterr().err
    assert main(["merge", runs[0], "--workdir", str(tmp_path / "merged")]) == 2
    assert "expected two models or more" in capsys.readouterr().err
