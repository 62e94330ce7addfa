"""What the configs of all trials of a curve have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.axes_spec import SEED
from orchestrator.errors import KeyPath
from orchestrator.sections import with_value
from orchestrator.trial import canonical_json

if TYPE_CHECKING:
    from orchestrator.sweep import Sweep


class CurveKey:
    """The config without its seed and without the fields in which trials of a curve differ."""

    def __init__(self, sweep: Sweep, names: Iterable[str]) -> None:
        """`names`: columns of those fields. A user's function finds them at the top level, too."""
        names = list(names)
        own: list[KeyPath] = [(name,) for name in names] if sweep.is_function else []
        self._paths = [*(sweep.place_columns[name][1] for name in names), *own]
        streams = [axis.name.partition(".")[2] for axis in sweep.varied if axis.path[0] == "seeds"]
        self._fixed = {*sweep.seeds, *streams}

    def __call__(self, config: Mapping[str, Any]) -> str:
        seed = config.get(SEED)
        streams = {
            name: value
            for name, value in config.get("seeds", {}).items()
            if name in self._fixed or value != seed
        }
        for path in self._paths:
            config = with_value(config, path, None)
        return canonical_json({**config, SEED: None, "seeds": streams})
