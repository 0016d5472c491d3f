"""Renames root identifiers: `object.spec` → `variables.pod.spec`, to compile an expression into a ValidatingAdmissionPolicy.

By position of the tokens the parser found, so strings, comments, fields, names bound by macros and the layout stay as they are.
"""

from collections.abc import Iterator, Mapping

from mlwarden.cel.checker import qualified
from mlwarden.cel.declarations import OVERLOADS
from mlwarden.cel.errors import CelError
from mlwarden.cel.nodes import Call, Loop, Name, Node, OptionalMap, children
from mlwarden.cel.parser import parse


def rename_root(source: str, names: Mapping[str, str]) -> str:
    """Replaces free identifiers.

    Args:
        source: an expression.
        names: identifier → what stands there instead (an identifier or `a.b`).

    Raises:
        CelError: the expression does not parse, or a macro variable is called like the root of a replacement.
    """
    try:
        found = sorted(_free(parse(source), frozenset(), source, names))
    except RecursionError:
        raise CelError("the expression is nested too deeply", source=source, position=0) from None
    parts: list[str] = []
    end = 0
    for position, name in found:
        parts += (source[end:position], names[name])
        end = position + len(name)
    return "".join([*parts, source[end:]])


def _free(node: Node, bound: frozenset[str], source: str, names: Mapping[str, str]) -> Iterator[tuple[int, str]]:  # noqa: C901 -- one case per kind of node
    match node:
        case Name():
            if node.name in names and node.name not in bound:
                root = names[node.name].partition(".")[0]
                if root in bound:
                    raise CelError(f"{node.name} becomes {names[node.name]}, but {root!r} is bound by a macro here", source=source,
                                   position=node.position, hint="give the macro's variable another name")  # fmt: skip
                yield node.position, node.name
        case Loop():
            yield from _free(node.over, bound, source, names)
            inner = bound | {node.variable}
            for part in (node.predicate, node.transform):
                if part is not None:
                    yield from _free(part, inner, source, names)
        case OptionalMap():
            yield from _free(node.target, bound, source, names)
            yield from _free(node.body, bound | {node.variable}, source, names)
        case Call() if node.target is not None and qualified(node.target, node.function) in OVERLOADS:
            for argument in node.arguments:
                yield from _free(argument, bound, source, names)
        case _:
            for child in children(node):
                yield from _free(child, bound, source, names)
