"""A cluster with a real node: pods really run. Skipped, with the reason in words, where the machine can carry none.

The fixtures `cluster` and `kubelet` of the other folders are replaced: what is asked of an installation elsewhere can be asked here, too.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from mlwarden.embedded import ground, ownimage

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.incluster import PodsOnNode


@pytest.fixture(scope="session")
def cluster() -> "Iterator[EmbeddedCluster]":
    """A control plane and a real node, audit log on."""
    from mlwarden.embedded.cluster import EmbeddedCluster

    if reason := ground.obstacle():
        pytest.skip(reason)
    with EmbeddedCluster(nodes=0, real_node=True, audit=True) as running:
        yield running


@pytest.fixture(scope="session")
def kubelet(cluster: "EmbeddedCluster") -> "PodsOnNode":
    """mlwarden's own pods, of its own image."""
    from mlwarden.embedded.incluster import PodsOnNode

    if reason := ownimage.obstacle():
        pytest.skip(reason)
    return PodsOnNode(cluster)


def _module(name: str) -> ModuleType:
    """A module of the folder that asks the same of an installation beside the cluster."""
    spec = importlib.util.spec_from_file_location(f"beside_{name}", Path(__file__).parents[1] / "chart" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


installed = _module("conftest").installed
