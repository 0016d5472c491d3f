"""Which nodes may run something: those of the platforms that were judged."""

from collections.abc import Mapping

import msgspec

OS_LABEL, ARCHITECTURE_LABEL = "kubernetes.io/os", "kubernetes.io/arch"
"""On every node, written by its kubelet (k8s.io/api/core/v1/well_known_labels.go)."""


class Nodes(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes by platform, in Go's words, as their labels have them.

    Attributes:
        os: of all of them.
        architectures: any of these; None for every one.
    """

    os: str = "linux"
    architectures: tuple[str, ...] | None = None

    def both(self, other: "Nodes") -> "Nodes | None":
        """Returns the nodes that are in both; None where there are none."""
        if self.os != other.os:
            return None
        if self.architectures is None or other.architectures is None:
            return other if self.architectures is None else self
        common = tuple(each for each in self.architectures if each in other.architectures)
        return Nodes(os=self.os, architectures=common) if common else None

    def has(self, platform: str) -> bool:
        """Whether a node of this platform, `os/architecture`, is one of them."""
        os, _, architecture = platform.partition("/")
        return os == self.os and bool(architecture) and (self.architectures is None or architecture in self.architectures)

    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Returns label → the values that it may have."""
        if self.architectures is None:
            return {OS_LABEL: (self.os,)}
        return {OS_LABEL: (self.os,), ARCHITECTURE_LABEL: self.architectures}

    def __str__(self) -> str:
        """For people: `linux/amd64, linux/arm64`."""
        return ", ".join(f"{self.os}/{each}" for each in self.architectures) if self.architectures is not None else self.os
