"""Lets `midiex.extend(...)` and `midiex.render(...)` be called although extend.py and render.py are modules too."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def make_callable(module_name: str) -> None:
    """Calling the module from now on calls its function of the same name."""
    function = module_name.rsplit(".", 1)[1]

    class CallableModule(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(self, function)(*args, **kwargs)

    sys.modules[module_name].__class__ = CallableModule
