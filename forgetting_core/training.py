"""Fine-tuning: the reference model and the forgetting, ignoring and plain objectives, by one loop.

The optimizer, the schedule and the devices are torch's, transformers' and accelerate's; the loop owns what they do
not know: signed token weights, λ, and token counts over the whole optimizer step.
"""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from forgetting_core.batching import micro_batches, optimizer_steps, pad_right, steps_per_epoch
from forgetting_core.checkpoints import resume_state, save_state
from forgetting_core.config import ExecutionConfig, ForgetConfig, TrainingConfig
from forgetting_core.errors import Interrupted, NumericalError
from forgetting_core.metrics_file import METRICS_FILE, MetricsFile
from forgetting_core.models import add_adapter, causal_lm, check_lengths, load_base, resolve_device, save_checkpoint
from forgetting_core.objective import TokenCounts, forget_weight, forgetting_loss, npo_surrogate
from forgetting_core.progress import Progress
from forgetting_core.token_loss import TokenLossModel
from forgetting_core.training_data import AnyObjective, TrainingData, read_training_data


def fine_tune(
    config: AnyObjective,
    *,
    base: Path,
    base_digest: str,
    data: Path,
    token_labels: Path | None = None,
    loss_base: Path | None = None,
    out: Path,
    work: Path,
    execution: ExecutionConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Train `base` on `data` and write a checkpoint folder; curves go to `aux/metrics.jsonl`.

    `token_labels` is read by `forget` and `ignore`, `loss_base` by bounded forgetting. `work` keeps training
    checkpoints between attempts: an interrupted run goes on from the newest. Raises `InputError` when there is
    nothing to train on, `NumericalError` when a loss or gradient is not finite.
    """
    training_data = read_training_data(config, data, token_labels, loss_base)
    run = TrainingRun(config, training_data, base, work, execution, progress)
    started = time.perf_counter()
    run.train()
    save_checkpoint(run.model.model, out, base=base, base_digest=base_digest, dtype=config.dtype)
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
    ) -> None:
        self.config, self.data, self.work = config, data, work
        self.execution, self.progress = execution, progress
        self.device = resolve_device(execution.device)
        torch.manual_seed(config.seed)
        self.accelerator = Accelerator(cpu=self.device == "cpu")
        self.model = build_model(config, base, self.device, execution.gradient_checkpointing)
        check_lengths(self.model.model, int(data.rows.lengths.max(initial=0)))
        self.parameters = [value for value in self.model.parameters() if value.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=config.weight_decay
        )
        self.per_epoch = steps_per_epoch(config, len(data.rows))
        self.total = self.per_epoch * config.epochs
        self.schedule = build_schedule(config, self.optimizer, self.total)
        self.forward = self.accelerator.prepare(self.model)
        self.last_metrics: dict[str, float] = {}
        self.micro_losses: list[float] = []

    def train(self) -> None:
        """Run the steps that are left, saving a checkpoint now and then and on interruption."""
        self.work.mkdir(parents=True, exist_ok=True)
        start = resume_state(self.work, self.model, self.optimizer, self.schedule)
        if start:
            self.progress.note(f"resumed after optimizer step {start} of {self.total}")
        self.model.train()
        tokens = self.data.rows.count(self.data.sign != 0)
        done, seen, total = start, 0, int(tokens.sum()) * self.config.epochs
        with MetricsFile(self.work / METRICS_FILE, start, self.progress) as metrics_file:
            try:
                for step, rows in enumerate(optimizer_steps(self.config, len(self.data.rows))):
                    seen += int(tokens[rows].sum())
                    if step < start:
                        continue
                    values = self.step(step, rows)
                    done = step + 1
                    metrics_file.log(done, values)
                    self.progress.advance(seen, total, "tokens")
                    if done % self.execution.checkpoint_every == 0 and done < self.total:
                        self._save(done, metrics_file)
            except Interrupted:
                self._save(done, metrics_file)
                raise
        self.last_metrics = metrics_file.last
        self.model.eval()

    def _save(self, done: int, metrics_file: MetricsFile) -> None:
        metrics_file.sync()
        save_state(self.work, done, self.model, self.optimizer, self.schedule)

    def step(self, step: int, rows: np.ndarray) -> dict[str, float]:
        """One optimizer step over `rows`; what the curves show of it (losses in nats per token)."""
        started = time.perf_counter()
        batches = self._micro_batches(rows)
        counts = TokenCounts.of(torch.cat([sign.flatten() for _, _, sign in batches]))
        lambda_ = self._lambda(step)
        sums = {1: 0.0, -1: 0.0}
        self.micro_losses = []
        for batch, input_ids, signs in batches:
            chosen = signs != 0
            with self._autocast():
                losses = self.forward(input_ids.to(self.device), chosen.to(self.device))
            sign = signs[chosen].to(self.device)
            value = forgetting_loss(
                self._bounded(losses, sign, batch, chosen), sign, self._denominators(counts, sign), lambda_
            )
            self._require_finite(float(value.detach()), "loss", step, batch)
            self.accelerator.backward(value)
            self.micro_losses.append(float(value.detach()))
            for side in sums:
                sums[side] += float(losses.detach()[sign == side].sum())
        grad_norm = float(clip_grad_norm_(self.parameters, self.config.max_grad_norm or float("inf")))
        self._require_finite(grad_norm, "gradient", step, rows)
        metrics = {"lr": float(self.schedule.get_last_lr()[0]), "grad_norm": grad_norm}
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        if counts.positive:
            metrics["loss_positive"] = sums[1] / counts.positive
        if counts.negative:
            metrics |= {"loss_negative": sums[-1] / counts.negative, "lambda": lambda_}
        metrics["tokens_per_s"] = (counts.positive + counts.negative) / (time.perf_counter() - started)
        return metrics

    def _micro_batches(self, rows: np.ndarray) -> list[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
        """(rows, input_ids int64 (B, T), sign int8 (B, T)) of each micro-batch."""
        data = self.data.rows
        return [
            (
                batch,
                pad_right(data, data.input_ids, batch, torch.long),
                pad_right(data, self.data.sign, batch, torch.int8),
            )
            for batch in micro_batches(rows, data.lengths, self.execution.micro_batch)
        ]

    def _denominators(self, counts: TokenCounts, sign: torch.Tensor) -> TokenCounts:
        """Of the whole step; or, as published, of the micro-batch times a full group's number of them."""
        if getattr(self.config, "normalization", "step") == "step":
            return counts
        assert not isinstance(self.execution.micro_batch, str)
        return TokenCounts.of(sign, self.config.rows_per_step / self.execution.micro_batch)

    def _bounded(
        self, losses: torch.Tensor, sign: torch.Tensor, batch: np.ndarray, chosen: torch.Tensor
    ) -> torch.Tensor:
        if self.data.loss_base is None or not isinstance(self.config, ForgetConfig):
            return losses
        loss_base = pad_right(self.data.rows, self.data.loss_base, batch, losses.dtype)[chosen]
        return npo_surrogate(losses, loss_base.to(self.device), sign, self.config.beta)

    def _lambda(self, step: int) -> float:
        if not isinstance(self.config, ForgetConfig):
            return 0.0
        return forget_weight(self.config.lambda_, step, total=self.total, per_epoch=self.per_epoch)

    def _autocast(self) -> torch.autocast:
        # Nothing is cast for the wider types: the model is in the type of the computation already.
        reduced = self.config.dtype == "bfloat16"
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=reduced)

    def _require_finite(self, value: float, what: str, step: int, rows: np.ndarray) -> None:
        if not math.isfinite(value):
            listed = ", ".join(map(str, rows[:24]))
            raise NumericalError(
                f"training: the {what} of optimizer step {step + 1} is {value} (rows {listed}); lower the learning "
                "rate or forget.lambda.t_max, or use float32"
            )


def build_model(config: AnyObjective, base: Path, device: str, gradient_checkpointing: bool) -> TokenLossModel:
    """`base` ready to train: all weights in float32 (or float64), or frozen in `dtype` under a float32 adapter."""
    master = "float32" if config.dtype == "bfloat16" and config.mode == "full" else config.dtype
    model = load_base(base, dtype=master, device=device)
    if config.mode == "lora":
        model = add_adapter(model, config.lora)
    if gradient_checkpointing:
        causal_lm(model).gradient_checkpointing_enable({"use_reentrant": False})
    return TokenLossModel(model)


def build_schedule(config: TrainingConfig, optimizer: torch.optim.Optimizer, total: int) -> LRScheduler:
    """Warm-up over int(total · ratio) steps, then as configured (transformers' Trainer would round up)."""
    name = "constant_with_warmup" if config.schedule == "constant" else config.schedule
    warmup = int(total * config.warmup_ratio)
    return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
