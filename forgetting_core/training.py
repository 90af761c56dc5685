"""Fine-tuning: the reference model and the forgetting, ignoring and plain objectives, by one loop.

The optimizer, the schedule and the ranks are torch's, transformers' and accelerate's; the loop owns what they do
not know: signed token weights, λ, and token counts over the whole optimizer step.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from forgetting_core.attention import attend_row_by_row
from forgetting_core.batching import MicroBatch, Passes, optimizer_steps, steps_per_epoch
from forgetting_core.checkpoints import checkpoint_folder, resume_state, save_state, what_is_kept
from forgetting_core.config import ExecutionConfig, ForgetConfig
from forgetting_core.errors import Interrupted, NumericalError, OutOfMemoryError, memory_errors
from forgetting_core.finite import require_finite, require_finite_tensors
from forgetting_core.metrics_file import METRICS_FILE, NEGATIVE_LOSS, MetricsFile
from forgetting_core.models import check_lengths, resolve_device, save_checkpoint
from forgetting_core.objective import TokenCounts, TokenObjective, forget_weight
from forgetting_core.packing import keeps_rows_apart
from forgetting_core.progress import Progress
from forgetting_core.ranks import Ranks, whole
from forgetting_core.running_away import Watch
from forgetting_core.token_loss import TokenLossModel
from forgetting_core.trainable import build_model, build_optimizer, build_schedule, gathered_model
from forgetting_core.training_data import AnyObjective, TrainingData, read_training_data
from forgetting_core.validation import Validation


def fine_tune(
    config: AnyObjective,
    *,
    base: Path,
    base_digest: str,
    data: Path,
    token_labels: Path | None = None,
    loss_base: Path | None = None,
    validation: Path | None = None,
    out: Path,
    work: Path,
    execution: ExecutionConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Train `base` on `data` and write a checkpoint folder; curves go to `aux/metrics.jsonl`.

    `token_labels` is read by `forget` and `ignore`, `loss_base` by bounded forgetting, `validation` where
    `eval_steps` is set. `work` keeps training checkpoints between attempts: an interrupted run goes on from the
    newest. Raises `InputError` when there is nothing to train on or to validate by, `NumericalError` when a loss,
    gradient or weight is not finite: none of that is ever written.
    """
    training_data = read_training_data(config, data, token_labels, loss_base)
    run = TrainingRun(config, training_data, base, work, execution, progress, validation)
    started = time.perf_counter()
    try:
        run.train()
        model = run.whole_model(base)
        if model is not None:
            save_checkpoint(model.model, out, base=base, base_digest=base_digest, dtype=config.dtype)
    except NumericalError as error:
        raise NumericalError(f"{error}. {what_is_kept(work)}") from error
    if model is not None:
        (out / "aux").mkdir(exist_ok=True)
        (out / "aux" / METRICS_FILE).write_bytes((work / METRICS_FILE).read_bytes())
    seconds = time.perf_counter() - started
    signs = training_data.sign
    return {
        "steps": run.total,
        "positive_tokens": int((signs > 0).sum()),
        "negative_tokens": int((signs < 0).sum()),
        "tokens": int((signs != 0).sum()) * config.epochs,
        "train_seconds": round(seconds, 3),
        **{f"final_{name}": value for name, value in run.last_metrics.items() if name.startswith("loss_")},
    }


class TrainingRun:
    """One fine-tune in progress: model, optimizer, schedule, and the loop over optimizer steps."""

    def __init__(
        self,
        config: AnyObjective,
        data: TrainingData,
        base: Path,
        work: Path,
        execution: ExecutionConfig,
        progress: Progress,
        validation: Path | None = None,
    ) -> None:
        self.config, self.data, self.work = config, data, work
        self.execution, self.progress = execution, progress
        self.device = resolve_device(execution.device)
        torch.manual_seed(config.seed)
        self.ranks = Ranks(self.device)
        self.sharded = execution.sharding == "fsdp" and self.ranks.count > 1
        start = self.ranks.sharding_device if self.sharded else self.device
        self.model = build_model(config, base, start, execution)
        packed = False
        if execution.micro_batch == "auto":
            attend_row_by_row(self.model.model, self.device)
            packed = self.ranks.main_says(lambda: keeps_rows_apart(self.model.model))
        self.passes = Passes.of(self.model.model, execution.micro_batch, self.device, packed=packed)
        self.validation = None
        if config.eval_steps is not None:
            assert validation is not None  # an input then
            self.validation = Validation(validation, self.passes)
        for rows in (data.rows, *([self.validation.rows] if self.validation else [])):
            check_lengths(self.model.model, int(rows.lengths.max(initial=0)))
        self.forward = self.ranks.spread(self.model, sharded=self.sharded)
        self.parameters = [value for value in self.model.parameters() if value.requires_grad]
        self.optimizer = build_optimizer(config, self.parameters)
        self.per_epoch = steps_per_epoch(config, len(data.rows))
        self.total = self.per_epoch * config.epochs
        self.schedule = build_schedule(config, self.optimizer, self.total)
        self.watch = Watch(config, self._forgetting_steps())
        self.last_metrics: dict[str, float] = {}
        self.micro_losses: list[float] = []

    def train(self) -> None:
        """Run the steps that are left, saving a checkpoint now and then and where they are cut short.

        Raises `NumericalError`, and `OutOfMemoryError` for a step that can be computed again in smaller parts.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        start = resume_state(self.work, self.model, self.optimizer, self.schedule, self.validation)
        if start:
            self.progress.note(f"resumed after optimizer step {start} of {self.total}")
        self.model.train()
        tokens = self.data.rows.count(self.data.sign != 0)
        done, seen, total = start, 0, int(tokens.sum()) * self.config.epochs
        with self._metrics_file(start) as metrics_file:
            if not start and self.validation:
                metrics_file.log(0, self._validate(0))
            try:
                for step, rows in enumerate(optimizer_steps(self.config, len(self.data.rows))):
                    seen += int(tokens[rows].sum())
                    if step < start:
                        continue
                    values = self.step(step, rows)
                    done = step + 1
                    metrics_file.log(done, values | self._validate(done))
                    if self.ranks.main and (told := self.watch.judge(metrics_file.negative_losses, done)):
                        self.progress.note(told)
                    self.progress.advance(seen, total, "tokens")
                    if done % self.execution.checkpoint_every == 0 and done < self.total:
                        self._save(done, metrics_file)
            except Interrupted:
                self._save(done, metrics_file)
                raise
            except OutOfMemoryError:
                if done > start and self.ranks.count == 1:  # other ranks would not come to save
                    self._save(done, metrics_file)
                raise
        require_finite_tensors(self.model.named_parameters(), f"after optimizer step {done}")
        self.last_metrics = metrics_file.last
        self.model.eval()

    def _metrics_file(self, start: int) -> MetricsFile:
        """It begins with what the checkpoint has of it; that of a rank which does not report is scratch."""
        if not self.ranks.main:
            return MetricsFile(self.work / f"rank-{self.ranks.index}.jsonl", self.progress, resumed=False)
        path = self.work / METRICS_FILE
        if start:
            shutil.copyfile(checkpoint_folder(self.work, start) / METRICS_FILE, path)
        return MetricsFile(path, self.progress, resumed=start > 0)

    def _save(self, done: int, metrics_file: MetricsFile) -> None:
        metrics = metrics_file.sync() if self.ranks.main else None
        saved = save_state(self.work, done, self.model, self.optimizer, self.schedule, metrics, self.validation)
        if saved is not None:
            self.progress.saved(done, saved)

    def _validate(self, done: int) -> dict[str, float]:
        """The held-out loss after `done` optimizer steps, if it is due then."""
        every = self.config.eval_steps
        if self.validation is None or every is None or (done % every and done < self.total):
            return {}
        return self.validation.measure(self.model, done, self.ranks, self._autocast)

    def step(self, step: int, rows: np.ndarray) -> dict[str, float]:
        """One optimizer step over `rows`; what the curves show of it (losses in nats per token)."""
        started = time.perf_counter()
        lambda_ = self._lambda(step)
        batches = self.passes.micro_batches(self.data.rows, self.data.sign, rows)
        if not lambda_:  # tokens of weight 0 are left out before the head: the very sums of `ignore`
            batches = [batch._replace(sign=batch.sign.clamp(min=0)) for batch in batches]
        counts = TokenCounts.of(torch.cat([batch.sign.flatten() for batch in batches]))
        with memory_errors():
            sums = self._accumulate(step, batches, counts, lambda_)
        grad_norm = float(whole(clip_grad_norm_(self.parameters, self.config.max_grad_norm or float("inf"))))
        require_finite(grad_norm, "gradient", step, rows, self.model)
        metrics = {"lr": float(self.schedule.get_last_lr()[0]), "grad_norm": grad_norm}
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        positive, negative = self.ranks.sum(sums)
        if counts.positive:
            metrics["loss_positive"] = positive / counts.positive
        if counts.negative:
            metrics |= {NEGATIVE_LOSS: negative / counts.negative, "lambda": lambda_}
        metrics["tokens_per_s"] = (counts.positive + counts.negative) / (time.perf_counter() - started)
        return metrics

    def _accumulate(
        self, step: int, batches: list[MicroBatch], counts: TokenCounts, lambda_: float
    ) -> tuple[float, float]:
        """The gradient of a whole step; the summed losses of this rank's positive and negative tokens."""
        sums = [0.0, 0.0]
        self.micro_losses = []
        mine = self.ranks.deal(batches, MicroBatch.idle)
        for position, batch in enumerate(mine, 1):
            self._seed(step, batch.number)
            with self.ranks.accumulating(self.forward, last=position == len(mine)):
                objective = self._objective(batch, counts, lambda_)
                with self._autocast():
                    value, losses = self.forward(**batch.inputs(self.device), objective=objective)
                found = float(value.detach())
                what = f"loss of micro-batch {batch.number + 1} of {len(batches)}"
                require_finite(found, what, step, batch.layout.rows, self.model)
                self.ranks.backward(value)
            self.micro_losses.append(found)
            for index, side in enumerate((1, -1)):
                sums[index] += float(losses[objective.sign == side].sum())
        return sums[0], sums[1]

    def whole_model(self, base: Path) -> TokenLossModel | None:
        """The trained model, on the main rank only."""
        if self.sharded:
            return gathered_model(self.config, base, self.execution, self.model, keep=self.ranks.main)
        return self.model if self.ranks.main else None

    def _seed(self, step: int, micro_batch: int) -> None:
        """Dropout is drawn anew for every micro-batch, so that neither a resume nor the ranks change it."""
        seed = np.random.SeedSequence([self.config.seed, step, micro_batch]).generate_state(1, np.uint64)
        torch.manual_seed(int(seed[0]))

    def _objective(self, batch: MicroBatch, counts: TokenCounts, lambda_: float) -> TokenObjective:
        """Of the tokens of `batch`; `counts` are those of the whole step."""
        sign = batch.sign[batch.chosen].to(self.device)
        if getattr(self.config, "normalization", "step") == "microbatch":
            assert not isinstance(self.execution.micro_batch, str)
            # as published: of the micro-batch, times a full group's number of them
            counts = TokenCounts.of(sign, self.config.rows_per_step / self.execution.micro_batch)
        base = self.data.loss_base
        loss_base = None if base is None else torch.from_numpy(base[batch.chosen_tokens]).to(self.device)
        return TokenObjective(self.config, sign, counts, lambda_, loss_base)

    def _lambda(self, step: int) -> float:
        if not isinstance(self.config, ForgetConfig):
            return 0.0
        return forget_weight(self.config.lambda_, step, total=self.total, per_epoch=self.per_epoch)

    def _forgetting_steps(self) -> int:
        """How many have a loss of negative tokens to show."""
        forgets = self.data.rows.count(self.data.sign < 0) > 0
        steps = enumerate(optimizer_steps(self.config, len(self.data.rows)))
        return sum(self._lambda(step) > 0 and bool(forgets[rows].any()) for step, rows in steps)

    def _autocast(self) -> torch.autocast:
        # Nothing is cast for the wider types: the model is in the type of the computation already.
        reduced = self.config.dtype == "bfloat16"
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=reduced)
