"""What is asked of an installation beside the cluster, asked of one in it: its own image, its Service, containers that really start."""

import importlib.util
from pathlib import Path
from types import ModuleType


def _tests_of(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"node_{name}", Path(__file__).parents[1] / "chart" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


for _name in ("test_installed", "test_ways"):
    _module = _tests_of(_name)
    # Tests, and the fixtures that they take: `cluster`, `kubelet` and `installed` are this folder's.
    globals().update({name: each for name, each in vars(_module).items() if not name.startswith("__")})
