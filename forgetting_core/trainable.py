"""What a training moves and by what: the model with its trainable weights, the optimizer, the schedule."""

from pathlib import Path

import torch
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from forgetting_core.config import ExecutionConfig, TrainingConfig
from forgetting_core.models import add_adapter, causal_lm, load_base
from forgetting_core.ranks import whole
from forgetting_core.token_loss import TokenLossModel


def build_model(config: TrainingConfig, base: Path, device: str, execution: ExecutionConfig) -> TokenLossModel:
    """`base` ready to train: all weights in float32 (or float64), or frozen in `dtype` under a float32 adapter."""
    master = "float32" if config.dtype == "bfloat16" and config.mode == "full" else config.dtype
    model = load_base(base, dtype=master, device=device, trust_remote_code=execution.trust_remote_code)
    if config.mode == "lora":
        model = add_adapter(model, config.lora)
    if execution.gradient_checkpointing:
        causal_lm(model).gradient_checkpointing_enable({"use_reentrant": False})
    return TokenLossModel(model)


def build_optimizer(config: TrainingConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW as published."""
    return torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=config.weight_decay
    )


def build_schedule(config: TrainingConfig, optimizer: torch.optim.Optimizer, total: int) -> LRScheduler:
    """Warm-up over int(total · ratio) steps, then as configured (transformers' Trainer would round up)."""
    name = "constant_with_warmup" if config.schedule == "constant" else config.schedule
    warmup = int(total * config.warmup_ratio)
    return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)


def gathered_model(
    config: TrainingConfig, base: Path, execution: ExecutionConfig, sharded: TokenLossModel, *, keep: bool
) -> TokenLossModel | None:
    """A model whose weights are spread over ranks, put together on the CPU of those that `keep` it; all call it."""
    model = build_model(config, base, "cpu", execution) if keep else None
    into = dict(model.named_parameters()) if model else {}
    with torch.no_grad():
        for name, value in sharded.named_parameters():
            if value.requires_grad:
                trained = whole(value)
                if into:
                    into[name].copy_(trained)
    return model
