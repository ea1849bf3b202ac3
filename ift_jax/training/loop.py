"""The run itself: resume, step, log, evaluate, preview, save; from top to bottom."""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

import jax

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.workdir_model import check_same_run, save_description
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.evaluation.evaluate import evaluate, table
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.locks import alone_in
from ift_jax.io.paths import Workdir
from ift_jax.training.console import Console
from ift_jax.training.eval_loss import EvalLoss
from ift_jax.training.metric_writer import MetricWriter, summarize
from ift_jax.training.preemption import _Agreement, _stop_signals
from ift_jax.training.prefetch import Prefetcher
from ift_jax.training.previews import Previews
from ift_jax.training.setup import Run, prepare_run
from ift_jax.training.state import all_params
from ift_jax.training.throughput import Clock

FILES = {
    "config.json": "the resolved config",
    "checkpoints": "the state, newest last",
    "metrics.jsonl": "a line a log step",
    "tensorboard": "the same as event files",
    "samples.jsonl": "previews of fixed prompts",
    "evaluation.json": "scores on unseen examples",
    "answers.jsonl": "every answer behind the scores",
}


def train(config: Config, workdir: str, console: Console) -> None:
    """Trains to the end, going on from the workdir's newest checkpoint if it has one.

    On SIGTERM or the first Ctrl-C the step in hand is finished, its state saved, and the
    function returns: calling it again goes on from there. UserError: anything in the config or
    data that is wrong, or a run that diverged.
    """
    began = time.perf_counter()
    if config.train.compile_cache:
        jax.config.update("jax_compilation_cache_dir", config.train.compile_cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    is_first = jax.process_index() == 0
    home = Workdir(workdir, writes=is_first)
    os.makedirs(home.local, exist_ok=True)
    check_same_run(workdir, config)
    run = prepare_run(config, console.line)
    console.line(*run.describe())

    with (
        jax.set_mesh(run.mesh),
        alone_in(workdir) if is_first else contextlib.nullcontext(),
        _stop_signals() as stop,
    ):
        if is_first:
            save_description(home.local, config, run.tokenizer)
        # --- State: the newest checkpoint, or fresh -----------------------------------------
        checkpoints = Checkpoints(
            workdir, keep=config.train.max_to_keep, keep_best=config.train.keep_best
        )
        first, n_steps = checkpoints.latest_step() or 0, run.plan.n_steps
        # Meanwhile the state is read or made, and the first samples; a run at its end has no step.
        compiled = run.compiling() if first < n_steps else None
        if first:
            state = run.restored_state(checkpoints, first)
            console.line(f"resumed at step {first} from {checkpoints.path}")
        else:
            state = run.initial_state()

        # --- What is written -----------------------------------------------------------------
        writer = MetricWriter(home.local, first) if is_first else None
        text_generator = TextGenerator(run.config, run.tokenizer, run.model)
        previews = Previews(text_generator, run.eval, home.local, first, write=is_first)
        views = {"eval": run.eval} | ({"heldout": run.heldout} if run.heldout else {})
        held_out = {name: EvalLoss(run, view) for name, view in views.items()}

        def preview(step: int) -> None:
            lines, stopped = previews.write(all_params(state), step)
            console.line(f"samples at step {step} (stop rate {stopped:.2f}):", *lines)
            if writer:
                writer.write({"step": step, "preview_stop_rate": stopped})

        def held_out_loss(step: int) -> float:
            record: dict[str, Any] = {"step": step}
            params = all_params(state)
            for name, loss in held_out.items():
                record |= {f"{name}_{key}": v for key, v in loss(params).items()}
            if writer:
                writer.write(record)
            console.line(f"step {step}/{n_steps} · eval loss {record['eval_loss']:.4f}")
            return record["eval_loss"]

        if not first and config.train.preview_prompts:
            preview(0)

        # --- Data ----------------------------------------------------------------------------
        feed = Prefetcher(run.device_batch, range(first, n_steps))
        clock = Clock(run, feed)
        console.start(first, n_steps)
        pending: dict[str, Any] | None = None

        def report() -> None:
            """Reads the last logged step's metrics: one step later, so no device ever waits."""
            nonlocal pending
            if pending is None:
                return
            sums, pending = jax.device_get(pending), None
            record = summarize(sums, run.train.tasks, clock.slots)
            record["time"] = clock.read(record)
            if writer:
                writer.write(record)
            console.progress(record)
            if (bad := int(sums["bad_streak"])) >= config.train.max_bad_steps:
                raise UserError(
                    f"step {record['step']}: {bad} steps in a row had a loss or gradient that is "
                    "not finite; lower the learning rate or look at the data"
                )

        # --- Steps ---------------------------------------------------------------------------
        def due(every: int) -> bool:
            return every > 0 and step % every == 0

        step, saved, stopped, agreed = first, first, False, _Agreement(stop, run.mesh)
        try:
            train_step: Any = compiled and compiled.result()
            for step, batch in enumerate(feed, start=first + 1):
                state, metrics = train_step(state, batch)
                report()
                clock.find_peak(metrics)
                last, stopped = step == n_steps, agreed()
                if step % config.train.log_every == 0 or last:
                    pending = metrics
                saves = due(config.train.save_every) or last or stopped
                # A stop has a grace period: it saves, and leaves the ranking to later saves.
                ranks = last or (saves and config.train.keep_best > 0)
                evaluates = due(config.train.eval_every) or (ranks and not stopped)
                shows = due(config.train.preview_every) or last
                if saves or evaluates or shows:
                    report()
                    with clock.paused():
                        eval_loss = held_out_loss(step) if evaluates else None
                        home.push()  # Before the checkpoint: a run that goes on has its lines.
                        if saves:
                            checkpoints.save(step, run.stored(state), eval_loss)
                            saved = step
                        if shows and config.train.preview_prompts:
                            preview(step)
                            home.push()
                if stopped:
                    break
        finally:
            feed.close()
            console.stop()
            home.push()
            checkpoints.wait()
        if stopped and step < n_steps:
            console.line(f"stopped by a signal at step {step}; saved. The same command goes on.")
        else:
            share = clock.wait_share()
            console.line(
                f"trained to step {saved} in {time.perf_counter() - began:.0f} s"
                + (f"; the device waited for data {share:.2%} of the time" if share else "")
            )
            if config.evaluation.examples:
                _final_evaluation(
                    run, text_generator, all_params(state), home.local, console, is_first
                )
        checkpoints.close()
        if writer:
            writer.close()
        home.push()
    console.line(
        "files:",
        *(
            f"  {os.path.join(workdir, name):<44} {what}"
            for name, what in FILES.items()
            if name == "checkpoints" or os.path.exists(os.path.join(home.local, name))
        ),
    )


def _final_evaluation(
    run: Run,
    text_generator: TextGenerator,
    params: Any,
    workdir: str,
    console: Console,
    write: bool,
) -> None:
    views = {
        "unseen examples of the trained tasks": ("eval", run.eval),
        "held-out tasks, never trained": ("heldout", run.heldout),
    }
    results, answers = {}, []
    for title, (name, view) in views.items():
        if view is None or name not in run.config.evaluation.sets:
            continue
        result = evaluate(text_generator, params, view)
        console.line(*table(title, result))
        results[title] = {name: result[name] for name in ("tasks", "overall", "groups")}
        answers += result["answers"]
    if write:
        Path(workdir, "evaluation.json").write_text(json.dumps(results, indent=2), "utf-8")
        lines = "".join(json.dumps(a, ensure_ascii=False) + "\n" for a in answers)
        Path(workdir, "answers.jsonl").write_text(lines, "utf-8")
