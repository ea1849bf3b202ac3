"""A model back from its workdir or from a Hugging Face folder, without any data."""

import dataclasses
import os

from ift_jax.checkpoint.model_source import CONFIG, TOKENIZER, ModelSource
from ift_jax.config import files as config_file
from ift_jax.config.schema import Config, FormatConfig, MeshConfig
from ift_jax.errors import UserError
from ift_jax.io.folders import write_files
from ift_jax.io.paths import place
from ift_jax.models.model import Model, Params, build_model, resolve_vocab
from ift_jax.sharding.mesh import make_mesh
from ift_jax.text.tokenizers.load import Tokenizer


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model, its tokenizer and its config (vocabulary resolved), at a step."""

    config: Config
    tokenizer: Tokenizer
    model: Model
    params: Params
    step: int


def save_description(workdir: str, config: Config, tokenizer: Tokenizer) -> None:
    """Writes `config.json` and the tokenizer's files into a workdir."""
    files = {f"{TOKENIZER}/{name}": content for name, content in tokenizer.files.items()}
    write_files(workdir, {**files, CONFIG: config_file.to_json(config).encode()})


def check_same_run(workdir: str, config: Config) -> None:
    """Refuses to go on in a workdir whose run had other data, model or batches.

    Raises:
        UserError: names the first field that differs.
    """
    path = os.path.join(workdir, CONFIG)
    if not place(path).exists():
        return
    before, now = (dataclasses.asdict(c) for c in (config_file.from_json(path), config))
    pairs = [
        (f"{section}.{name}", before[section].get(name), value)
        for section in ("tokenizer", "format", "data", "model", "lora")
        for name, value in now[section].items()
        if name not in ("processes", "store_dir")
    ]
    pairs.append(("optimizer.freeze", *(c["optimizer"]["freeze"] for c in (before, now))))
    pairs.append(("seed", before["seed"], now["seed"]))
    pairs.append(("train.batch_size", *(c["train"]["batch_size"] for c in (before, now))))
    for field, old, new in pairs:
        if old != new:
            raise UserError(
                f"config.{field}: the run in {workdir} has {old!r}, now it is {new!r}; "
                "use another --workdir for another run"
            )


def load_model(source: ModelSource) -> LoadedModel:
    """Reads config, tokenizer and parameters onto all devices here.

    Raises:
        UserError: what is there cannot be read.
    """
    tokenizer, config = source.tokenizer(), source.config
    if not source.is_run:
        template = "model" if tokenizer.chat_template else "chatml"
        config = dataclasses.replace(config, format=FormatConfig(template))
    own = config.model
    if own.vocab_size < tokenizer.vocab_size:  # Unresolved, or it got a padding token.
        own = resolve_vocab(dataclasses.replace(own, vocab_size=0), tokenizer.vocab_size)
    model, mesh = build_model(own), make_mesh(MeshConfig(data=1, fsdp=-1))
    params = source.params(model, mesh, tokenizer)
    return LoadedModel(
        dataclasses.replace(config, model=own), tokenizer, model, params, source.step
    )
