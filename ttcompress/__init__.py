"""Post-training compression of LSTMs by tensor trains.

    import ttcompress

    model = ttcompress.compress("model.pt", "balanced")
    model.save("model.mps.safetensors")
    state_dict = ttcompress.load("model.mps.safetensors").state_dict()

Importing this package is cheap: torch comes with the first function that needs it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ttcompress.errors import (
    ArtifactError,
    CheckpointError,
    DecompositionError,
    InputError,
    MissingExtraError,
    OutOfMemoryError,
    OutputError,
    OutputPathError,
    PlanError,
    RecipeError,
    TrainingError,
    TTCompressError,
)

if TYPE_CHECKING:
    __version__: str
    from ttcompress.artifact import CompressedModel, load
    from ttcompress.batch.engine import Engine
    from ttcompress.batch.result import BatchResult
    from ttcompress.batch.run import batch
    from ttcompress.bench import Benchmark, bench
    from ttcompress.compare.run import compare
    from ttcompress.evaluate import evaluate
    from ttcompress.export import Exported, OwnModule, export
    from ttcompress.inspection import inspect
    from ttcompress.limits import judged
    from ttcompress.modules.swap import load_into
    from ttcompress.page import report_page
    from ttcompress.pipeline import compress, plan, tune_artifact
    from ttcompress.recipe import Recipe, load_recipe, parse_recipe, recipe_from, with_options
    from ttcompress.report.comparison import Comparison
    from ttcompress.report.inspection import Inspection
    from ttcompress.report.model import Report
    from ttcompress.report.verification import Verification
    from ttcompress.restore import restore
    from ttcompress.sweep.front import Sweep
    from ttcompress.sweep.pick import pick
    from ttcompress.sweep.picture import front_picture
    from ttcompress.sweep.run import sweep
    from ttcompress.tasks.protocol import Metric, Task
    from ttcompress.verify import verify

__all__ = [
    "ArtifactError",
    "BatchResult",
    "Benchmark",
    "CheckpointError",
    "Comparison",
    "CompressedModel",
    "DecompositionError",
    "Engine",
    "Exported",
    "InputError",
    "Inspection",
    "Metric",
    "MissingExtraError",
    "OutOfMemoryError",
    "OutputError",
    "OutputPathError",
    "OwnModule",
    "PlanError",
    "Recipe",
    "RecipeError",
    "Report",
    "Sweep",
    "TTCompressError",
    "Task",
    "TrainingError",
    "Verification",
    "__version__",
    "batch",
    "bench",
    "compare",
    "compress",
    "evaluate",
    "export",
    "front_picture",
    "inspect",
    "judged",
    "load",
    "load_into",
    "load_recipe",
    "parse_recipe",
    "pick",
    "plan",
    "recipe_from",
    "report_page",
    "restore",
    "sweep",
    "tune_artifact",
    "verify",
    "with_options",
]

_LAZY: dict[str, str] = {
    "BatchResult": "ttcompress.batch.result",
    "Benchmark": "ttcompress.bench",
    "CompressedModel": "ttcompress.artifact",
    "Comparison": "ttcompress.report.comparison",
    "Engine": "ttcompress.batch.engine",
    "Exported": "ttcompress.export",
    "Inspection": "ttcompress.report.inspection",
    "Metric": "ttcompress.tasks.protocol",
    "OwnModule": "ttcompress.export",
    "Recipe": "ttcompress.recipe",
    "Report": "ttcompress.report.model",
    "Sweep": "ttcompress.sweep.front",
    "Task": "ttcompress.tasks.protocol",
    "Verification": "ttcompress.report.verification",
    "compare": "ttcompress.compare.run",
    "batch": "ttcompress.batch.run",
    "bench": "ttcompress.bench",
    "compress": "ttcompress.pipeline",
    "evaluate": "ttcompress.evaluate",
    "export": "ttcompress.export",
    "front_picture": "ttcompress.sweep.picture",
    "inspect": "ttcompress.inspection",
    "judged": "ttcompress.limits",
    "load": "ttcompress.artifact",
    "load_into": "ttcompress.modules.swap",
    "load_recipe": "ttcompress.recipe",
    "parse_recipe": "ttcompress.recipe",
    "pick": "ttcompress.sweep.pick",
    "plan": "ttcompress.pipeline",
    "recipe_from": "ttcompress.recipe",
    "report_page": "ttcompress.page",
    "restore": "ttcompress.restore",
    "sweep": "ttcompress.sweep.run",
    "tune_artifact": "ttcompress.pipeline",
    "verify": "ttcompress.verify",
    "with_options": "ttcompress.recipe",
}
"""The module that each public name comes from, when it is first asked for."""


class _Door(ModuleType):
    """This package as a module on which public names win over submodules of the same name.

    Importing the submodule `ttcompress.compress` would otherwise put a module where
    `ttcompress.compress(...)` is called. `from ttcompress.compress import ...` works as ever.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _LAZY and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name == "__version__":  # even importlib.metadata is too slow for every --help
        value: Any = import_module("importlib.metadata").version(__name__)
    elif name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


sys.modules[__name__].__class__ = _Door
