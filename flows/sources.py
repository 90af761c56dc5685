"""The part of walking the DAG that running and planning share: resolving what the recipe names."""

from functools import partial
from pathlib import Path

from forgetting_core.config import HubData, ModelSource, Recipe
from forgetting_core.evaluation.local_tasks import task_files
from forgetting_core.model_files import model_files, tokenizer_files
from infra.errors import SourceError
from infra.sources import Ref, Sources, Unresolved


class RecipeSources:
    """Resolves a recipe's models, data and benchmark files; fetches only if `sources` does."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def model(self, source: ModelSource, field: str, *, code: bool) -> Ref | Unresolved:
        """See `Walker.model`."""
        return self._sources.model(source.path, source.revision, partial(model_files, code=code), field=field)

    def tokenizer(self, source: ModelSource, field: str) -> Ref | Unresolved:
        """See `Walker.tokenizer`."""
        return self._sources.model(source.path, source.revision, tokenizer_files, field=field)

    def data(self, recipe: Recipe, field: str) -> Ref | Unresolved | None:
        """See `Walker.data`."""
        named = getattr(recipe.data, field)
        if named is None:
            return None
        hub = [source for source in named if isinstance(source, HubData)]
        if not hub:
            return self._sources.files([str(source) for source in named], field=f"data.{field}")
        if len(named) > 1:
            raise SourceError(f"data.{field}: a hub data set stands alone; found {len(named)} sources")
        (only,) = hub
        return self._sources.hub_data(only.hub, only.revision, only.split, only.name, field=f"data.{field}")

    def tasks(self, recipe: Recipe, task: str) -> Ref | Unresolved | None:
        """See `Walker.tasks`."""
        task_dir = recipe.evaluate.task_dir
        if task_dir is None:
            return None

        def select(folder: Path) -> list[Path]:
            return task_files(folder, [task])

        return self._sources.folder(task_dir, select, kind="data", field="evaluate.task_dir")
