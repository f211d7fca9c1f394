"""The language of `when`: Jinja's expressions, compiled to closures by a small parser of our own.

Why not the template engine: rules need null for what is missing, an error for text against numbers, and messages that name the column; an engine made
for showing values gives none of these. The grammar is Jinja's: `or and not`, comparisons with `in`, `is` tests, `+ - ~ * / // %`, filters, `a if b else c`,
literals, lists, `row.x`, `row['x y']`. There are no loops, powers, slices or calls but the few text methods of `values`.

    expression := or ['if' or 'else' expression]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batchllm.route import values
from batchllm.route.lexer import SyntaxProblem, Token, tokens_of, unquoted
from batchllm.route.node import Node, Run, guarded

LENGTH = 10_000
"""Characters an expression may have."""
DEPTH = 40
"""Levels of brackets an expression may have."""
PARTS = 300
"""Operations an expression may have: they may all be nested, and each takes up to two frames of the stack."""

_LITERALS = {"true": True, "True": True, "false": False, "False": False, "none": None, "None": None, "null": None}
_WORDS = frozenset({"and", "or", "not", "in", "is", "if", "else"})


def compile_expression(source: str, *, names: frozenset[str] | None = None) -> tuple[Run, frozenset[str], bool]:
    """The compiled expression, the columns it names, and whether it looks at `tokens`. Raises `SyntaxProblem`; the compiled one raises `RuleError`.

    `names`: the only names there are, instead of `row`, `tokens` and a row's fields; the compiled expression is then given a mapping of these.
    """
    if len(source) > LENGTH:
        raise SyntaxProblem(f"is longer than {LENGTH:,} characters", 1)
    parser = _Parser(source, names)
    run = parser.whole().run
    return run, frozenset(parser.columns), parser.uses_tokens


def _either(left: Run, right: Run) -> Run:
    return lambda fields, tokens: left(fields, tokens) or right(fields, tokens)


def _both(left: Run, right: Run) -> Run:
    return lambda fields, tokens: left(fields, tokens) and right(fields, tokens)


class _Parser:
    """Recursive descent; each method reads one level of precedence."""

    def __init__(self, source: str, names: frozenset[str] | None) -> None:
        self._source = source
        self._names = names
        self._tokens = tokens_of(source)
        self._at = 0
        self._depth = 0
        self._parts = 0
        self.columns: set[str] = set()
        self.uses_tokens = False

    def whole(self) -> Node:
        if not self._tokens:
            raise SyntaxProblem("is empty; leave `when` out for a rule that takes every row", 1)
        node = self._expression()
        if self._at < len(self._tokens):
            raise self._unexpected("the end, or an operator")
        return node

    def _expression(self) -> Node:
        self._depth += 1
        if self._depth > DEPTH:
            raise SyntaxProblem(f"has more than {DEPTH} levels of brackets", self._tokens[self._at - 1].start + 1)
        start = self._at
        node = self._or()
        if self._word("if"):
            condition = self._or()
            if not self._word("else"):
                raise self._unexpected("`else`")
            node = self._chosen(start, condition, node, self._expression())
        self._depth -= 1
        return node

    def _chosen(self, start: int, condition: Node, yes: Node, no: Node) -> Node:
        test, first, second = condition.run, yes.run, no.run
        return self._node(start, lambda fields, tokens: first(fields, tokens) if test(fields, tokens) else second(fields, tokens))

    def _or(self) -> Node:
        start = self._at
        node = self._and()
        while self._word("or"):
            node = self._node(start, _either(node.run, self._and().run))
        return node

    def _and(self) -> Node:
        start = self._at
        node = self._not()
        while self._word("and"):
            node = self._node(start, _both(node.run, self._not().run))
        return node

    def _not(self) -> Node:
        start = self._at
        denials = 0
        while self._word("not"):
            denials += 1
        run = self._compare().run if denials else None
        if run is None:
            return self._compare()
        if denials % 2:
            return self._node(start, lambda fields, tokens: not run(fields, tokens))
        return self._node(start, lambda fields, tokens: bool(run(fields, tokens)))

    def _compare(self) -> Node:
        start = self._at
        left = self._sum(0)
        links: list[Run] = []
        while (sign := self._comparison()) is not None:
            right = self._sum(0)
            links.append(guarded(self._text(start), values.COMPARISONS[sign], left, right))
            left = right
        if not links:
            return left
        if len(links) == 1:
            return self._node(start, links[0])
        return self._node(start, lambda fields, tokens: all(link(fields, tokens) for link in links))

    def _comparison(self) -> str | None:
        for sign in ("==", "!=", "<=", ">=", "<", ">"):
            if self._sign(sign):
                return sign
        if self._word("in"):
            return "in"
        if self._peek("name", "not") and self._peek("name", "in", 1):
            self._at += 2
            return "not in"
        return None

    def _sum(self, level: int) -> Node:
        """`+ -`, then `~`, then `* / // %`, each from left to right."""
        if level == 3:
            return self._unary()
        start = self._at
        node = self._sum(level + 1)
        while True:
            sign = next((sign for sign in (("+", "-"), ("~",), ("*", "//", "/", "%"))[level] if self._sign(sign)), None)
            if sign is None:
                return node
            right = self._sum(level + 1)
            node = self._node(start, guarded(self._text(start), values.OPERATORS[sign], node, right))

    def _unary(self) -> Node:
        start = self._at
        if self._sign("-"):
            run = guarded(self._text(start), values.negative, self._postfix(start, self._primary()))
            return self._filters(start, self._node(start, run))
        return self._filters(start, self._postfix(start, self._primary()))

    def _primary(self) -> Node:
        token = self._next("a value")
        if token.kind == "number":
            number: float | int = float(token.value) if any(char in token.value for char in ".eE") else int(token.value)
            return self._constant(number, token)
        if token.kind == "text":
            return self._constant(unquoted(token), token)
        if token.kind == "name" and token.value not in _WORDS:
            if token.value in _LITERALS:
                return self._constant(_LITERALS[token.value], token)
            return self._name(token.value)
        if token.value == "(":
            return self._bracket(")")
        if token.value == "[":
            return self._bracket("]")
        self._at -= 1
        raise self._unexpected("a value")

    def _bracket(self, close: str) -> Node:
        start = self._at - 1
        items: list[Node] = []
        comma = False
        while not self._sign(close):
            items.append(self._expression())
            if self._sign(","):
                comma = True
            elif not self._peek("sign", close):
                raise self._unexpected(f"`{close}`")
        if close == ")" and len(items) == 1 and not comma:
            return items[0]
        runs = [item.run for item in items]
        return self._node(start, lambda fields, tokens: [run(fields, tokens) for run in runs])

    def _name(self, name: str) -> Node:
        if self._names is not None:
            if name not in self._names:
                known = ", ".join(sorted(self._names))
                raise SyntaxProblem(f"there is no {name!r} here; there are {known}", self._tokens[self._at - 1].start + 1)
            # Without a path: what is wrong with a value here is no column's fault.
            self.columns.add(name)
            return Node(run=lambda fields, _: fields.get(name), text=name, has=lambda fields, _: name in fields)
        if name == "row":
            return Node(run=lambda fields, _: fields, text=name, has=lambda *_: True, path=("row",))
        if name == "tokens":
            self.uses_tokens = True
            return Node(run=lambda _, tokens: tokens, text=name, has=lambda *_: True, path=("tokens",))
        self.columns.add(name)
        return Node(run=lambda fields, _: fields.get(name), text=name, has=lambda fields, _: name in fields, path=(name,))

    def _postfix(self, start: int, node: Node) -> Node:
        while True:
            if self._sign("."):
                token = self._next("a name")
                if token.kind != "name":
                    self._at -= 1
                    raise self._unexpected("a name")
                node = self._call(start, node, token.value) if self._sign("(") else self._member(node, token.value, f"{node.text}.{token.value}")
            elif self._sign("["):
                inside = self._at
                key = self._expression()
                if not self._sign("]"):
                    raise self._unexpected("`]`")
                first = self._tokens[inside]
                constant = first.kind in {"text", "number"} and self._at - inside == 2
                node = self._member(node, key.run({}, 0) if constant else key, f"{node.text}[{key.text}]")
            elif self._peek("sign", "("):
                raise SyntaxProblem(
                    f"`{node.text}` can't be called; there are filters: {', '.join(values.FILTERS)}", self._tokens[self._at].start + 1
                )
            else:
                return node

    def _member(self, node: Node, key: Any, text: str) -> Node:
        self._grow()
        run, member, has_member = node.run, values.member, values.has_member
        if isinstance(key, Node):
            inner = key.run
            return Node(
                run=lambda fields, tokens: member(run(fields, tokens), inner(fields, tokens)),
                has=lambda fields, tokens: has_member(run(fields, tokens), inner(fields, tokens)),
                text=text,
            )
        path = (*node.path, str(key)) if node.path is not None else None
        if node.path == ("row",) and isinstance(key, str):
            self.columns.add(key)
            return Node(run=lambda fields, _: fields.get(key), has=lambda fields, _: key in fields, text=text, path=path)
        return Node(
            run=lambda fields, tokens: member(run(fields, tokens), key),
            has=lambda fields, tokens: has_member(run(fields, tokens), key),
            text=text,
            path=path,
        )

    def _call(self, start: int, node: Node, name: str) -> Node:
        if name not in values.METHODS:
            raise SyntaxProblem(f"there is no method {name!r}; there are {', '.join(values.METHODS)}", self._tokens[self._at - 2].start + 1)
        function, count = values.METHODS[name]
        return self._applied(start, function, node, name, least=count, most=count)

    def _filters(self, start: int, node: Node) -> Node:
        while True:
            if self._sign("|"):
                token = self._next("a filter")
                if token.value not in values.FILTERS:
                    raise SyntaxProblem(f"there is no filter {token.value!r}; there are {', '.join(values.FILTERS)}", token.start + 1)
                function, most = values.FILTERS[token.value]
                if self._sign("("):
                    node = self._applied(start, function, node, token.value, least=0, most=most)
                else:
                    node = self._node(start, guarded(self._text(start), function, node))
            elif self._word("is"):
                node = self._test(start, node)
            else:
                return node

    def _applied(self, start: int, function: Callable[..., Any], node: Node, name: str, *, least: int, most: int) -> Node:
        at = self._tokens[self._at - 1].start + 1
        args: list[Node] = []
        while not self._sign(")"):
            args.append(self._expression())
            if not self._sign(",") and not self._peek("sign", ")"):
                raise self._unexpected("`)`")
        if not least <= len(args) <= most:
            raise SyntaxProblem(f"{name!r} takes {most if least == most else f'up to {most}'} arguments, not {len(args)}", at)
        return self._node(start, guarded(self._text(start), function, node, *args))

    def _test(self, start: int, node: Node) -> Node:
        denied = self._word("not")
        token = self._next("a test")
        if token.value in {"defined", "undefined"}:
            has = node.has
            if has is None:
                raise SyntaxProblem(f"`is {token.value}` asks for a name, and `{node.text}` is none", token.start + 1)
            wanted = (token.value == "defined") != denied
            return self._node(start, lambda fields, tokens: has(fields, tokens) is wanted)
        if token.value not in values.TESTS:
            raise SyntaxProblem(f"there is no test {token.value!r}; there are defined, undefined, {', '.join(values.TESTS)}", token.start + 1)
        run, test = node.run, values.TESTS[token.value]
        return self._node(start, lambda fields, tokens: test(run(fields, tokens)) is not denied)

    def _grow(self) -> None:
        self._parts += 1
        if self._parts > PARTS:
            raise SyntaxProblem(
                f"has more than {PARTS} operations; for a long list of values write `x in ['a', 'b', ...]`", self._tokens[self._at - 1].start + 1
            )

    def _constant(self, value: Any, token: Token) -> Node:
        return Node(run=lambda *_: value, text=self._source[token.start : token.end])

    def _node(self, start: int, run: Run) -> Node:
        self._grow()
        return Node(run=run, text=self._text(start))

    def _text(self, start: int) -> str:
        return self._source[self._tokens[start].start : self._tokens[self._at - 1].end][:80]

    def _peek(self, kind: str, value: str, ahead: int = 0) -> bool:
        at = self._at + ahead
        return at < len(self._tokens) and self._tokens[at].kind == kind and self._tokens[at].value == value

    def _sign(self, value: str) -> bool:
        found = self._peek("sign", value)
        self._at += found
        return found

    def _word(self, value: str) -> bool:
        found = self._peek("name", value)
        self._at += found
        return found

    def _next(self, wanted: str) -> Token:
        if self._at >= len(self._tokens):
            raise self._unexpected(wanted)
        self._at += 1
        return self._tokens[self._at - 1]

    def _unexpected(self, wanted: str) -> SyntaxProblem:
        if self._at >= len(self._tokens):
            return SyntaxProblem(f"ends where {wanted} should come", len(self._source) + 1)
        token = self._tokens[self._at]
        return SyntaxProblem(f"{token.value!r} stands where {wanted} should come", token.start + 1)
