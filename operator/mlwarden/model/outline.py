"""Whether a text may be meant as an object of Kubernetes, where something in it is not as `documents` reads it.

Configurations of other programs stand beside manifests (`!ENV` of a site's, a key twice in values of a chart): what has neither apiVersion
nor kind is no manifest, whatever else is wrong with it. Only the outermost keys are looked at, and nothing is kept.
"""

from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_EVENTS = 5_000_000
_HEAD = frozenset({"apiVersion", "kind", "<<"})


def may_be_object(text: str) -> bool:
    """Whether a document of a text is a mapping that says, or may say, `apiVersion` or `kind`; so is whatever is no YAML at all."""
    depth = children = 0
    in_mapping = False
    try:
        for number, event in enumerate(yaml.parse(text, Loader=_LOADER)):
            if number > _EVENTS:
                return True
            if isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
                continue
            if not isinstance(event, yaml.NodeEvent):
                continue
            if depth == 0:
                in_mapping, children = isinstance(event, yaml.MappingStartEvent), 0
            elif depth == 1:
                if in_mapping and children % 2 == 0 and not (isinstance(event, yaml.ScalarEvent) and event.value not in _HEAD):
                    return True
                children += 1
            depth += isinstance(event, yaml.CollectionStartEvent)
    except yaml.YAMLError:
        return True
    return False
