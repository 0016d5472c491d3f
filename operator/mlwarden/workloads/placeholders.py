"""What stands in a template in the place of an image, and is none: a parameter, or a word that a webhook replaces in the pod.

A template with one is passed over: the pod that it becomes is judged, with the image that was filled in, or as it is if none was. A Pod is
never passed over.

`auto` and a blank are Istio's (sidecars and gateways), `{{…}}` Argo's, Kubeflow Pipelines' and everybody's who renders text, `${…}` and
`$(…)` OpenShift's, Tekton's and Katib's. The name at the end is what Kubeflow Pipelines compiles into every step, which gets its image by
a patch of the pod.

Rejected: to believe a placeholder only in kinds whose operator is known to fill it in. Any webhook may, and nothing starts unjudged.
"""

import re

PATTERN = r"^(auto| )$|\{\{.+\}\}|\$\{[^{}]+\}|\$\([^()]+\)|^[a-z0-9.-]+/([a-z0-9._-]+/)*should-be-overridden-during-runtime$"
"""For Python's `re` and for RE2, which CEL has."""
LONGEST = 512
"""Characters; what is longer is no placeholder, and nobody's image."""
_FOUND = re.compile(PATTERN)


def is_placeholder(reference: str) -> bool:
    """Whether a reference in a template is filled in later."""
    return len(reference) <= LONGEST and _FOUND.search(reference) is not None


def without_placeholders(images: str) -> str:
    """Returns CEL for a list of references in which placeholders are `''`, unless the object that is judged is a Pod."""
    return f"({images}).map(i, object.kind != 'Pod' && i.size() <= {LONGEST} && i.matches(r'{PATTERN}') ? '' : i)"
