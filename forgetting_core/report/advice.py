"""What to change in a recipe: only fields that it has, and that have an effect in it."""

from forgetting_core.config import ForgetConfig, PartitionConfig, Recipe, TrainingConfig


def more_positives(partition: PartitionConfig) -> str | None:
    """What to change so that fewer tokens are negative; None where no field says how many are."""
    if partition.labelling == "oracle_noise":
        return None
    if partition.threshold is not None:
        return f"lower partition.threshold (now {partition.threshold})"
    return f"raise partition.rho (now {partition.rho})"


def better_reference(recipe: Recipe) -> str:
    """What to change so that the reference is worth asking."""
    if recipe.reference.model:
        return "name another reference.model, trained on more or cleaner rows"
    if recipe.synthetic:
        rows = "synthetic.reference_rows, synthetic.reference_noise"
    else:
        rows = "split.reference_rows, data.reference"
    return f"train the reference on more or cleaner rows ({rows}), or {gentler('reference', recipe.reference)}"


def same_format(recipe: Recipe) -> str:
    """What to change so that the reference knows the format of the training rows."""
    if recipe.reference.model:
        return "name a reference.model that was trained on answers of the same format"
    if recipe.synthetic:
        return "give the reference more rows to learn the format from (synthetic.reference_rows)"
    return "give the reference data of the same format (data.reference, data.template)"


def gentler(section: str, training: TrainingConfig) -> str:
    """What to change so that a training changes the model less."""
    epochs = f"{section}.epochs (now {training.epochs}) or " if training.epochs > 1 else ""
    return f"lower {epochs}{section}.learning_rate (now {training.learning_rate:g})"


def forgetting_of(recipe: Recipe) -> ForgetConfig | None:
    """The objective, if it forgets anything."""
    own = recipe.forget
    return own if isinstance(own, ForgetConfig) and own.lambda_.t_max > 0 else None
