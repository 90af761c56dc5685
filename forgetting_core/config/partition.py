"""How token losses are computed, and which tokens they make positive."""

from typing import Any, Literal, Self

from pydantic import model_validator

from forgetting_core.config.fields import Config, Dtype, Nats, Positive, Seed, Share


class ScoreConfig(Config):
    """How token losses are computed."""

    dtype: Dtype = "bfloat16"
    block_rows: Positive = 512
    """Rows are batched only within blocks of this size, so that any number of workers gives the same bytes."""


class PartitionConfig(Config):
    """Which tokens are positive: a share `rho` (0.7 when nothing is said), or those from a `threshold` up."""

    rho: Share = "0.7"
    """Share of response tokens called positive: the k = ⌊ρ·N⌋ of highest influence. Null with a threshold."""
    threshold: Nats = None
    """Instead of `rho`: the k tokens whose influence is at least this many nats are positive."""
    scope: Literal["corpus", "row"] = "corpus"
    """Rank over the whole corpus, or within each row."""
    labelling: Literal["influence", "random", "loss_only", "oracle_noise"] = "influence"
    """`influence` is the method, the others are controls. `random`: as many positives, drawn by seed. `loss_only`:
    as many, those of highest base loss; the reference is left out. `oracle_noise`: planted noise is negative, the
    rest positive, whatever `rho`; only for data that say what is noise."""
    seed: Seed = 42
    """Of the `random` labelling."""

    @model_validator(mode="before")
    @classmethod
    def _threshold_instead_of_default_rho(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("threshold") is not None and "rho" not in data:
            return {**data, "rho": None}
        return data

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.rho is None) == (self.threshold is None):
            given = "neither" if self.rho is None else f"both rho {self.rho} and threshold {self.threshold}"
            raise ValueError(f"has {given}; give exactly one of rho (a share) and threshold (nats), null the other")
        return self

    @property
    def rule(self) -> str:
        """How positives are chosen, for people: `ρ=0.7`, `threshold=0`, `ρ=0.7 random`, `oracle_noise`."""
        if self.labelling == "oracle_noise":
            return self.labelling
        chosen = f"ρ={self.rho}" if self.rho is not None else f"threshold={self.threshold}"
        return chosen if self.labelling == "influence" else f"{chosen} {self.labelling}"

    @property
    def has_common_threshold(self) -> bool:
        """Whether one value of influence separates all positive tokens from all negative ones, ties apart."""
        return self.labelling == "influence" and (self.scope == "corpus" or self.threshold is not None)
