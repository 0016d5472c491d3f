"""Tokens to a syntax tree: precedence climbing over cel-go's grammar, with the macros recognised where cel-go expands them.

Two bounds keep every later walk over the tree from running out of stack: `MAX_NESTING` while descending, `MAX_DEPTH` for trees that
grow to the left without descending (`a + a + a …`). An expression beyond them is refused here, so nothing later has to look.
"""

from dataclasses import dataclass
from typing import Final

from mlwarden.cel.errors import CelError
from mlwarden.cel.lexer import INT_MAX, Token, tokens
from mlwarden.cel.nodes import Call, Has, Index, ListOf, Literal, Logic, Loop, MapOf, Name, Node, OptionalMap, Select, children

MAX_NESTING: Final = 32
MAX_DEPTH: Final = 64
MAX_NODES: Final = 4096
RESERVED: Final = frozenset(
    ("as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop", "package", "namespace",
     "null", "return", "true", "var", "void", "while")
)  # fmt: skip
_KEYWORDS: Final = frozenset(("in", "true", "false", "null"))  # tokens of their own: not even a field may be called so
_RELATIONS: Final = {"==": "_==_", "!=": "_!=_", "<": "_<_", "<=": "_<=_", ">": "_>_", ">=": "_>=_", "in": "@in"}
_SUMS: Final = {"+": "_+_", "-": "_-_"}
_PRODUCTS: Final = {"*": "_*_", "/": "_/_", "%": "_%_"}
_LEVELS: Final = (_RELATIONS, _SUMS, _PRODUCTS)
_LOOPS: Final = {("all", 2), ("exists", 2), ("exists_one", 2), ("map", 2), ("map", 3), ("filter", 2)}
_OPTIONALS: Final = {("optMap", 2), ("optFlatMap", 2)}
_REFUSED_MACROS: Final = {
    "bind": "Kubernetes has no cel.bind; use `variables`, or repeat the expression",
    "existsOne": "Kubernetes calls it exists_one",
    "sortBy": "sort() is in the subset",
    "transformList": "map and filter are in the subset",
    "transformMap": "map and filter are in the subset",
    "transformMapEntry": "map and filter are in the subset",
}


def parse(source: str) -> Node:
    """Parses one expression.

    Raises:
        CelError: where and what was expected.
    """
    parser = _Parser(source=source, tokens=tokens(source))
    node = parser.expression()
    if parser.current.kind != "end":
        raise parser.unexpected("the end of the expression")
    return node


@dataclass(kw_only=True, slots=True)
class _Parser:
    source: str
    tokens: list[Token]
    at: int = 0
    nesting: int = 0
    count: int = 0
    depths: dict[Node, int] | None = None

    @property
    def current(self) -> Token:
        return self.tokens[self.at]

    def unexpected(self, wanted: str) -> CelError:
        token = self.current
        seen = repr(token.text) if token.kind != "end" else "the end"
        return CelError(f"expected {wanted}, found {seen}", source=self.source, position=token.position)

    def refuse(self, message: str, position: int, hint: str = "") -> CelError:
        return CelError(message, source=self.source, position=position, hint=hint)

    def is_operator(self, kind: str) -> bool:
        token = self.current
        return token.kind == kind or (kind == "in" and token.kind == "name" and token.text == "in")

    def take(self) -> Token:
        token = self.current
        self.at += 1
        return token

    def accept(self, kind: str) -> bool:
        if self.current.kind == kind:
            self.at += 1
            return True
        return False

    def expect(self, kind: str) -> Token:
        if self.current.kind != kind:
            raise self.unexpected(repr(kind))
        return self.take()

    def made(self, node: Node) -> Node:
        """Counts a node and measures its depth."""
        if self.depths is None:
            self.depths = {}
        self.count += 1
        depth = 1 + max((self.depths.get(child, 1) for child in children(node)), default=0)
        self.depths[node] = depth
        if depth > MAX_DEPTH or self.count > MAX_NODES:
            raise self.refuse("the expression is too deep or too long", node.position, "split it into several policies")
        return node

    def expression(self) -> Node:
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            raise self.refuse(f"more than {MAX_NESTING} levels of nesting", self.current.position, "split it into several policies")
        start = self.current.position
        condition = self.logic("||")
        if self.accept("?"):
            chosen = self.logic("||")
            self.expect(":")
            other = self.expression()
            condition = self.made(Call(position=start, function="_?_:_", arguments=(condition, chosen, other)))
        self.nesting -= 1
        return condition

    def logic(self, operator: str) -> Node:
        start = self.current.position
        terms = [self.logic("&&") if operator == "||" else self.binary(0)]
        while self.accept(operator):
            terms.append(self.logic("&&") if operator == "||" else self.binary(0))
        return terms[0] if len(terms) == 1 else self.made(Logic(position=start, operator=operator, terms=tuple(terms)))

    def binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while True:
            function = next((_LEVELS[level][kind] for kind in _LEVELS[level] if self.is_operator(kind)), None)
            if function is None:
                return left
            position = self.take().position
            right = self.binary(level + 1)
            left = self.made(Call(position=position, function=function, arguments=(left, right)))

    def unary(self) -> Node:
        token = self.current
        if token.kind not in {"!", "-"}:
            return self.member(self.primary(negative=False))
        count = 0
        while self.accept(token.kind):
            count += 1
        negative = token.kind == "-" and self.current.kind in {"int", "float"}
        if token.kind == "!" and self.current.kind == "-":
            self.take()
            if self.current.kind not in {"int", "float"}:
                raise self.unexpected("a number")
            negative, extra = True, 0
        else:
            extra = 1 if negative else 0
        operand = self.member(self.primary(negative=negative))
        # As cel-go: a pair of `!` or `-` cancels out, unchecked.
        if (count - extra) % 2 == 0:
            return operand
        return self.made(Call(position=token.position, function="!_" if token.kind == "!" else "-_", arguments=(operand,)))

    def primary(self, *, negative: bool) -> Node:
        token = self.current
        match token.kind:
            case "int" | "float":
                self.take()
                value = token.value
                if not isinstance(value, int | float):
                    raise self.unexpected("a number")
                if negative:
                    value = -value
                elif isinstance(value, int) and value > INT_MAX:
                    raise self.refuse("an integer that does not fit in 64 bits", token.position)
                return self.made(Literal(position=token.position, value=value))
            case "string":
                self.take()
                return self.made(Literal(position=token.position, value=token.value))
            case "(":
                self.take()
                inner = self.expression()
                self.expect(")")
                return inner
            case "[":
                return self.list_of()
            case "{":
                return self.map_of()
            case "name":
                return self.name()
            case _:
                raise self.unexpected("a value")

    def name(self) -> Node:
        token = self.take()
        if token.text in {"true", "false"}:
            return self.made(Literal(position=token.position, value=token.text == "true"))
        if token.text == "null":
            return self.made(Literal(position=token.position, value=None))
        if token.text in RESERVED:
            raise self.refuse(f"{token.text!r} is a reserved word", token.position)
        if self.current.kind != "(":
            return self.made(Name(position=token.position, name=token.text))
        arguments = self.arguments()
        if token.text == "has":
            return self.has(token, arguments)
        return self.made(Call(position=token.position, function=token.text, arguments=arguments))

    def has(self, token: Token, arguments: tuple[Node, ...]) -> Node:
        if len(arguments) == 1 and isinstance(arguments[0], Select) and not arguments[0].optional:
            return self.made(Has(position=token.position, operand=arguments[0].operand, field=arguments[0].field))
        raise self.refuse("has() takes a field selection", token.position, "has(object.spec.hostNetwork); for a key: 'key' in object.map")

    def member(self, operand: Node) -> Node:
        while True:
            position = self.current.position
            if self.accept("."):
                optional = self.accept("?")
                field = self.expect("name")
                if field.text in _KEYWORDS:
                    raise self.refuse(f"{field.text!r} cannot be a field name here", field.position, f"write [{field.text!r}]")
                if self.current.kind == "(" and not optional:
                    operand = self.call(operand, field)
                else:
                    operand = self.made(Select(position=position, operand=operand, field=field.text, optional=optional))
            elif self.accept("["):
                optional = self.accept("?")
                index = self.expression()
                self.expect("]")
                operand = self.made(Index(position=position, operand=operand, index=index, optional=optional))
            else:
                return operand

    def call(self, target: Node, function: Token) -> Node:
        arguments = self.arguments()
        form = (function.text, len(arguments))
        if form in _LOOPS:
            variable = self.variable(arguments[0])
            return self.made(
                Loop(
                    position=function.position,
                    macro=function.text,
                    over=target,
                    variable=variable,
                    predicate=None if form == ("map", 2) else arguments[1],
                    transform=arguments[-1] if function.text == "map" else None,
                )
            )
        if form in _OPTIONALS:
            variable = self.variable(arguments[0])
            flat = function.text == "optFlatMap"
            return self.made(OptionalMap(position=function.position, target=target, variable=variable, body=arguments[1], flat=flat))
        if function.text in _REFUSED_MACROS:
            raise self.refuse(f"{function.text!r} is not in the subset", function.position, _REFUSED_MACROS[function.text])
        return self.made(Call(position=function.position, function=function.text, target=target, arguments=arguments))

    def variable(self, node: Node) -> str:
        if isinstance(node, Name) and not node.name.startswith("__"):
            return node.name
        raise self.refuse("the first argument of a macro is a simple name", node.position)

    def arguments(self) -> tuple[Node, ...]:
        self.expect("(")
        found: list[Node] = []
        if not self.accept(")"):
            found.append(self.expression())
            while self.accept(","):
                found.append(self.expression())
            self.expect(")")
        return tuple(found)

    def list_of(self) -> Node:
        start = self.expect("[").position
        elements: list[Node] = []
        optional: set[int] = set()
        while self.current.kind != "]":
            if self.accept("?"):
                optional.add(len(elements))
            elements.append(self.expression())
            if not self.accept(","):
                break
        self.expect("]")
        return self.made(ListOf(position=start, elements=tuple(elements), optional=frozenset(optional)))

    def map_of(self) -> Node:
        start = self.expect("{").position
        keys: list[Node] = []
        values: list[Node] = []
        optional: set[int] = set()
        while self.current.kind != "}":
            if self.accept("?"):
                optional.add(len(keys))
            keys.append(self.expression())
            self.expect(":")
            values.append(self.expression())
            if not self.accept(","):
                break
        self.expect("}")
        return self.made(MapOf(position=start, keys=tuple(keys), values=tuple(values), optional=frozenset(optional)))
