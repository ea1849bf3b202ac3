"""Where a model comes from: a Hugging Face folder, a GGUF file, or the workdir of a run."""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ift_jax.checkpoint.manager import Checkpoints, check_frozen
from ift_jax.config import files as config_file
from ift_jax.config.checks import check, check_run
from ift_jax.config.schema import Config, EvaluationConfig, TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.interop.gguf import open_gguf
from ift_jax.interop.hugging_face_config import FREE, family_of_fields, from_hugging_face
from ift_jax.interop.hugging_face_weights import fit_vocabulary, load_params
from ift_jax.interop.safetensors_files import DTYPES, open_safetensors
from ift_jax.io.folders import read_json_object, write_files
from ift_jax.io.paths import Workdir, exists, is_remote
from ift_jax.models import lora
from ift_jax.models.model import Model, Params, build_model, join, resolve_vocab, trained_model
from ift_jax.sharding import rules
from ift_jax.sharding.trees import abstract, checksum
from ift_jax.text.tokenizers.load import Tokenizer, load_tokenizer

CONFIG = "config.json"
TOKENIZER = "tokenizer"  # The folder of a workdir that holds its tokenizer.
DTYPES_FILE = "source_dtypes.json"  # Of an imported model: the dtype of each of its tensors.


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """A model that is not read yet."""

    path: str
    config: Config  # A run's; of a released model, what its folder says of model and tokenizer.
    tokenizer: Callable[[], Tokenizer]
    load: Callable[[Model, Mesh], Params]  # Reads the parameters of `config.model`.
    dtypes: Callable[[], Mapping[str, str]]  # Tensor -> "BF16", as released; empty: unknown.
    step: int = 0  # The checkpoint's.
    is_run: bool = False
    # The adapters of a LoRA run, by themselves: `load` gives the parameters they are merged into.
    adapters: Callable[[Model, Mesh], Params] | None = None

    def params(self, model: Model, mesh: Mesh, tokenizer: Tokenizer) -> Params:
        """The parameters, with the vocabulary of `model` and `tokenizer` (`fit_vocabulary`)."""
        own = self.config.model
        try:
            known = self.tokenizer()
        except UserError:  # Weights alone: the run names a tokenizer.
            known = tokenizer
        own = own if own.vocab_size else resolve_vocab(own, known.vocab_size)
        # A run has trained all rows of its tokenizer; of a release's, some may be added on reading.
        n_given = known.vocab_size if self.is_run else known.n_given
        params = self.load(build_model(own), mesh)
        return fit_vocabulary(params, model, mesh, n_given=n_given, n_tokens=tokenizer.vocab_size)


def open_model_source(path: str, step: int | None = None) -> ModelSource:
    """Opens a Hugging Face folder, a `.gguf` file or a workdir (at a step); reads no weights.

    Raises:
        UserError: none of the three, or one that cannot be used; says why.
    """
    if path.endswith(".gguf") and not is_remote(path):
        fields, tensors, files = open_gguf(path)
        config = Config(model=from_hugging_face(fields, path))
        read = functools.partial(_tokenizer_of, files)
    else:
        local = Workdir(path).local if is_remote(path) else path
        file = os.path.join(local, CONFIG)
        if not os.path.exists(file):
            raise UserError(
                f"{path}: no {CONFIG} here; expected a run's workdir or a Hugging Face folder"
            )
        fields = read_json_object(file)
        if isinstance(fields.get("model"), dict):
            return _of_workdir(path, local, step)
        if is_remote(path):
            raise UserError(f"{path}: is no run's workdir; expected a copy on this machine")
        model, tensors = from_hugging_face(fields, file), open_safetensors(path)
        section = TokenizerConfig(path=path, extra_ids=_extra_ids(path, model.architecture))
        stops = EvaluationConfig(stop_ids=_stop_ids(path, fields))
        config = Config(model=model, tokenizer=section, evaluation=stops)
        read = functools.partial(read_tokenizer, section)
    names = {dtype: name for name, dtype in DTYPES.items()}
    dtypes = {name: names[tensor.dtype] for name, tensor in tensors.items()}
    family = family_of_fields(fields, path)
    load = functools.partial(load_params, tensors=tensors, where=path, family=family)
    return ModelSource(path, check(config), read, load, lambda: dtypes)


def _of_workdir(path: str, local: str, step: int | None) -> ModelSource:
    config = config_file.from_json(os.path.join(local, CONFIG))
    checkpoints = Checkpoints(path, read_only=True)
    steps = checkpoints.steps()
    if not steps or (step is not None and step not in steps):
        wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        raise UserError(f"{checkpoints.path}: {wanted}; there: {', '.join(map(str, steps)) or '-'}")
    chosen = steps[-1] if step is None else step

    section = dataclasses.replace(config.tokenizer, path=os.path.join(local, TOKENIZER))
    read = functools.partial(read_tokenizer, section)

    def load(model: Model, mesh: Mesh) -> Params:
        trained = trained_model(dataclasses.replace(config, model=model.config))
        params = load_adapted(config, checkpoints, chosen, trained, mesh, read)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, _abstract(model, mesh))
        merge = functools.partial(lora.merge, config=config.lora)
        return jax.jit(merge, out_shardings=shardings)(params) if config.lora.rank else params

    def adapters(model: Model, mesh: Mesh) -> Params:
        trained = model.split(_abstract(model, mesh))[0]
        return checkpoints.restore_parts(chosen, {"params": trained})["params"]

    dtypes = functools.partial(_dtypes, local, config)
    return ModelSource(path, config, read, load, dtypes, chosen, True, adapters)


def _abstract(model: Model, mesh: Mesh) -> Params:
    shardings = rules.tree_shardings(mesh, model.logical_axes, model.shapes)
    return abstract(model.shapes, shardings)


def load_adapted(
    config: Config,
    checkpoints: Checkpoints,
    step: int,
    model: Model,
    mesh: Mesh,
    tokenizer: Callable[[], Tokenizer],
) -> Params:
    """All parameters of a run's checkpoint, float32, adapters by themselves.

    Frozen ones are in the checkpoint only if the run began from nothing; else they are read where
    it began (`model.init_from`), and checked to be what it was trained on.
    """
    params, frozen = model.split(_abstract(model, mesh))
    if not frozen:
        return checkpoints.restore_parts(step, {"params": params})["params"]
    if not config.model.init_from:
        return join(*checkpoints.restore_parts(step, {"params": params, "frozen": frozen}).values())
    number = abstract(jax.eval_shape(lambda: checksum({})), NamedSharding(mesh, PartitionSpec()))
    saved = checkpoints.restore_parts(step, {"params": params, "frozen_sum": number})
    base = open_model_source(config.model.init_from).params(
        build_model(model.config), mesh, tokenizer()
    )
    frozen = model.split(base)[1]
    as_held = jax.jit(model.frozen_form)(frozen)
    check_frozen(as_held, saved["frozen_sum"], config.model.init_from)
    return join(saved["params"], frozen)


def _dtypes(workdir: str, config: Config) -> dict[str, str]:
    """The released dtypes behind a workdir: an import's, or those that its run began from."""
    file = os.path.join(workdir, DTYPES_FILE)
    if os.path.exists(file):
        return read_json_object(file)
    before = config.model.init_from
    return dict(open_model_source(before).dtypes()) if before and exists(before) else {}


def _extra_ids(folder: str, architecture: str) -> int:
    """T5's sentinels that a folder with a bare SentencePiece model has besides."""
    if os.path.exists(os.path.join(folder, "tokenizer.json")):
        return 0
    file = os.path.join(folder, "tokenizer_config.json")
    fields = read_json_object(file) if os.path.exists(file) else {}
    return int(fields.get("extra_ids", 100 if architecture == "encoder_decoder" else 0))


def _stop_ids(folder: str, fields: dict[str, Any]) -> tuple[int, ...]:
    """What ends an answer, by generation_config.json or else by the fields of config.json."""
    file = os.path.join(folder, "generation_config.json")
    if os.path.exists(file):
        fields = fields | read_json_object(file)
    given = fields.get("eos_token_id")
    ids = given if isinstance(given, list) else [given] if given is not None else []
    if any(type(token) is not int for token in ids):
        raise UserError(f"{file}: eos_token_id is {given!r}; expected an id or a list of ids")
    return tuple(ids)


def _tokenizer_of(files: Mapping[str, bytes]) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        write_files(folder, files)
        return load_tokenizer(folder)


def resolve_init(config: Config) -> Config:
    """Fills in what `model.init_from` decides; the config itself where that is empty.

    The fields of the model (all but `families.FREE`) come from there, the tokenizer and
    what ends an answer too unless the config names one. The vocabulary grows where the tokenizer is
    larger. No device work; idempotent.

    Raises:
        UserError: nothing to start from there, another architecture, a field that is set to
            something else, or rows longer than the model's positions.
    """
    given, section = config.model, config.tokenizer
    if not given.init_from:
        return config
    where = f"config.model.init_from {given.init_from}"
    if given.init_from.endswith(".gguf"):
        raise UserError(f"{where}: import it first: ift import FILE.gguf --workdir DIR")
    source = open_model_source(given.init_from)
    own = source.config.model
    if own.architecture != given.architecture:
        raise UserError(
            f"config.model.architecture: {given.architecture}, but {where} is {own.architecture}"
        )
    if section.train_vocab_size:
        raise UserError("config.tokenizer.train_vocab_size: a model that exists has its tokenizer")
    if not section.path:
        path = os.path.join(source.path, TOKENIZER) if source.is_run else source.path
        extra_ids = section.extra_ids or source.config.tokenizer.extra_ids
        section = dataclasses.replace(section, path=path, extra_ids=extra_ids)
        stops = config.evaluation.stop_ids or source.config.evaluation.stop_ids
        evaluation = dataclasses.replace(config.evaluation, stop_ids=stops)
        config = dataclasses.replace(config, evaluation=evaluation)
    rows = own.vocab_size or resolve_vocab(own, source.tokenizer().vocab_size).vocab_size
    wanted = given.vocab_size
    if not wanted:
        size, unsized = read_tokenizer(section).vocab_size, dataclasses.replace(own, vocab_size=0)
        wanted = rows if size <= rows else resolve_vocab(unsized, size).vocab_size
    if wanted < rows:
        raise UserError(f"config.model.vocab_size: expected at least the {rows} rows of {where}")
    free = {name: getattr(given, name) for name in FREE if hasattr(given, name)}
    model = dataclasses.replace(own, **free, vocab_size=wanted)
    for field in dataclasses.fields(given):
        value, theirs = getattr(given, field.name), getattr(model, field.name)
        if value not in (field.default, theirs):
            raise UserError(f"config.model.{field.name}: {value!r}, but {where} has {theirs!r}")
    return check_run(dataclasses.replace(config, model=model, tokenizer=section))


def read_tokenizer(section: TokenizerConfig) -> Tokenizer:
    """The tokenizer of a config that names one."""
    return load_tokenizer(section.path, section.extra_ids, section.added_tokens)


def init_params(
    model: Model, config: Config, shardings: Any, tokenizer: Tokenizer | None = None
) -> Params:
    """The first parameters, with these shardings, of a run that starts from `model.init_from`.

    `config` is what `resolve_init` gives; its tokenizer is read again where none is given.
    """
    tokenizer = tokenizer or read_tokenizer(config.tokenizer)
    mesh = jax.tree.leaves(shardings)[0].mesh
    return open_model_source(config.model.init_from).params(model, mesh, tokenizer)
