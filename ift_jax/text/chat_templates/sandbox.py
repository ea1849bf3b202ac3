"""Chat templates in a sandbox: Jinja as `transformers` runs it, with bounds on work and memory.

A chat template comes with a model from anywhere. Here it reaches nothing but the conversation,
and all that it does is paid for from a budget that grows with the conversation: every block
that is entered pays for its size, every string or list that is made or walked for its length,
before it is made. There is no clock, so what a template gives and whether it ends depend on
nothing else than the conversation.
"""

import functools
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, operators
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro, new_context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace

from ift_jax.errors import UserError

OPEN, CLOSE = "\ufdd0", "\ufdd1"  # Noncharacters: around what `{% generation %}` encloses.
_BUDGET = 4_000_000  # One is about a tenth of a microsecond, or a character.
_BUDGET_A_CHARACTER = 200  # Of the conversation, besides.
_MAX_SOURCE = 100_000
_MAX_DEPTH = 64  # Of nested values, and the most digits of a width.
_PLAIN = (bool, int, float, type(None))
_NESTED = (dict, list, tuple, set)
_METHODS: Mapping[type, frozenset[str]] = {
    kind: frozenset(names.split())
    for kind, names in {
        str: "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal"
        " isdigit islower isnumeric isspace istitle isupper join lower lstrip partition"
        " removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines"
        " startswith strip swapcase title upper",
        dict: "get items keys values copy",
        list: "count index copy",
        tuple: "count index",
        LoopContext: "cycle changed",
    }.items()
}
_FILTERS = (
    "abs capitalize count d default dictsort first float indent int items join last length list"
    " lower map max min reject rejectattr replace reverse select selectattr sort string title trim"
    " unique upper"
).split()
_DEEP_TESTS = "eq == equalto ne != lt lessthan < le <= gt greaterthan > ge >= in".split()


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}`: what is inside is between two marks."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        marks = [nodes.Output([nodes.TemplateData(mark)]) for mark in (OPEN, CLOSE)]
        return nodes.Scope([marks[0], *body, marks[1]]).set_lineno(line)


class _CodeGenerator(CodeGenerator):
    """Python code in which blocks, joins, slices and comparisons pay before they run."""

    def blockvisit(self, nodes_: Iterable[nodes.Node], frame: Frame) -> None:
        body = list(nodes_)
        self.writeline(f"environment.pay({sum(map(_size, body))})")
        super().blockvisit(body, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self._calls("joined", node.nodes, frame)

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
        self._calls("plus", (node.left, node.right), frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            return super().visit_Getitem(node, frame)
        self._guarded(node.node, frame)
        self.write("[")
        self.visit(node.arg, frame)
        self.write("]")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        kept = node.ctx == "load"  # A tuple can be a key, and is walked when it is.
        self.write("environment.guard(" if kept else "")
        super().visit_Tuple(node, frame)
        self.write(")" if kept else "")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("(")
        self._guarded(node.expr, frame)
        for operand in node.ops:
            self.write(f" {operators[operand.op]} ")
            self._guarded(operand.expr, frame)
        self.write(")")

    def _guarded(self, node: nodes.Expr, frame: Frame) -> None:
        if isinstance(node, nodes.Const):
            return self.visit(node, frame)
        self._calls("guard", (node,), frame)

    def _calls(self, method: str, arguments: Iterable[nodes.Expr], frame: Frame) -> None:
        self.write(f"environment.{method}(")
        for argument in arguments:
            self.visit(argument, frame)
            self.write(", ")
        self.write(")")


def _size(node: nodes.Node) -> int:
    slow = isinstance(node, nodes.Getattr | nodes.Getitem | nodes.Filter | nodes.Test)
    text = len(node.data) if isinstance(node, nodes.TemplateData) else 20 if slow else 1
    return text + sum(map(_size, node.iter_child_nodes()))


class _Namespace(Namespace):
    """`namespace()` without the names that Python itself looks up."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str) or name.startswith("_"):
            raise SecurityError(f"a namespace has no attribute {name!r}")
        super().__setitem__(name, value)


class _Sandbox(ImmutableSandboxedEnvironment):
    code_generator_class = _CodeGenerator
    intercepted_binops = frozenset(("+", "*", "%", "**"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=self.shown,
            extensions=(_Generation, LoopControlExtension),
        )
        self.left = _BUDGET
        sizes: dict[str, Callable[..., int]]
        sizes = {"replace": _replaced, "join": _joined, "indent": _indented}
        self.filters = {n: self._paid(self.filters[n], sizes.get(n)) for n in _FILTERS}
        self.filters |= {"tojson": self._tojson, "safe": lambda value: value}
        self.tests |= {name: self._paid(self.tests[name]) for name in _DEEP_TESTS}
        self.globals = {
            "raise_exception": _raise,
            "range": self._range,
            "dict": dict,
            "namespace": _Namespace,
        }
        self.functions = tuple(self.globals.values())

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        raise SecurityError(f"it may not see {attribute!r} of {type(obj).__name__}")

    def pay(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise SecurityError("it does too much: a loop without an end, or too large a text")

    def guard(self, value: Any) -> Any:
        """The value, walked and paid for: deep lists that share their parts can be endless."""
        kind = type(value)
        if kind is str:
            if len(value) > 1000:
                self.pay(len(value) >> 3)
        elif kind not in _PLAIN and not isinstance(value, jinja2.Undefined):
            self.pay(self.measure(value))
        return value

    def measure(self, value: Any, depth: int = 1) -> int:
        """Characters and items of a value, each with its depth."""
        if isinstance(value, str):
            return len(value) + depth
        if depth > _MAX_DEPTH:
            raise SecurityError("a value is nested too deeply")
        if isinstance(value, int) and value.bit_length() > 10_000:
            raise SecurityError("a number is too large")
        if isinstance(value, _NESTED):
            items = (*value, *value.values()) if isinstance(value, dict) else value
            self.pay(20 + 4 * len(items))
            return depth + sum([self.measure(item, depth + 1) for item in items])
        return 20 + depth

    def shown(self, value: Any) -> Any:
        """What `{{ ... }}` writes."""
        if type(value) is not str:
            return self.guard(value)
        self.pay(len(value))
        return value

    def joined(self, *parts: Any) -> str:
        """What `~` gives."""
        texts = [part if type(part) is str else str(self.guard(part)) for part in parts]
        self.pay(sum(map(len, texts)))
        return "".join(texts)

    def plus(self, left: Any, right: Any) -> Any:
        """What `+` gives: a path of its own for texts, which templates are made of."""
        if type(left) is not str or type(right) is not str:
            return self.call_binop(None, "+", left, right)
        self.pay(len(left) + len(right))
        return left + right

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            if isinstance(left, str | list | tuple):
                self.pay(len(left) + (len(right) if isinstance(right, str | list | tuple) else 0))
            elif isinstance(left, int):
                self.measure(left)
        elif not isinstance(left, _PLAIN) or not isinstance(right, _PLAIN):
            if operator != "*":
                raise SecurityError(f"{operator!r} is for numbers here")
            sequence, times = (left, right) if isinstance(right, int) else (right, left)
            if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                self.pay(len(sequence) * max(times, 0))
        elif operator == "**" and isinstance(right, int) and isinstance(left, int):
            self.measure(1 << min(left.bit_length() * abs(right), 1 << 20))
        elif isinstance(left, int) and isinstance(right, int):
            self.measure(left), self.measure(right)
        return self.binop_table[operator](left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902
        self, obj = __self, __obj
        self.pay(20)
        if type(obj) is not Macro and obj not in self.functions:
            owner: Any = getattr(obj, "__self__", None)
            bound = isinstance(obj, types.BuiltinMethodType | types.MethodType)
            name = getattr(obj, "__name__", "")
            if bound and name in _METHODS.get(type(owner), ()):
                for value in (owner, *args):
                    self.guard(value)
                if name == "join":
                    args = (list(self._meter(args[0])),) if args else ()
                    self.pay(_joined(args[0] if args else (), owner))
                elif name == "replace":
                    self.pay(_replaced(owner, *args[:2]))
                elif name in ("split", "rsplit", "splitlines"):
                    self.pay(len(owner))
            elif isinstance(obj, jinja2.Undefined) and obj._undefined_name == "strftime_now":
                raise SecurityError(
                    "it asks for today's date, and what it was trained on must not change by the"
                    " day; set the date in format.template_options, such as"
                    " 'date_string=\"26 Jul 2024\"', if the template has a name for it"
                )
            elif not isinstance(obj, jinja2.Undefined | LoopContext):  # A recursive loop's.
                raise SecurityError(f"it may not call {name or type(obj).__name__!r}")
        return super().call(__context, obj, *args, **kwargs)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > _MAX_SOURCE:
            raise SecurityError(f"expected at most {_MAX_SOURCE} characters, found {len(source)}")
        tree = super()._parse(source, name, filename)
        banned = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block)
        for node in tree.find_all((*banned, nodes.EvalContextModifier)):
            raise SecurityError(f"line {node.lineno}: a chat template has no {type(node).__name__}")
        return tree

    def _range(self, *args: int) -> range:
        numbers = range(*args)
        self.pay(len(numbers))
        return numbers

    def _meter(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.pay(5)
            yield item

    def _paid(self, function: Any, size: Callable[..., int] | None = None) -> Callable[..., Any]:
        """A filter or test that pays for what it is given, may make (`size`) and yields."""
        # The environment or a context comes first, where a filter asks for it.
        skip = getattr(function, "jinja_pass_arg", None) is not None

        @functools.wraps(function)  # With Jinja's mark of what it is passed.
        def paid(*args: Any, **kwargs: Any) -> Any:
            self.pay(10)
            own = [
                self.guard(list(arg) if isinstance(arg, types.GeneratorType) else arg)
                for arg in args[skip:]
            ]
            for value in kwargs.values():
                self.guard(value)
            if size:
                self.pay(size(*own, **kwargs))
            made = function(*args[:skip], *own, **kwargs)
            return self._meter(made) if isinstance(made, types.GeneratorType) else made

        return paid

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        wide = indent if isinstance(indent, int) else len(str(indent or ""))
        if wide > _MAX_DEPTH or any(len(s) > _MAX_DEPTH for s in separators or ()):
            raise SecurityError(f"tojson: expected an indent of at most {_MAX_DEPTH}")
        self.pay(self.measure(value) * (1 + max(wide, 0)))
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )


def _replaced(text: Any, old: str = "", new: str = "", count: int | None = None) -> int:
    text, old, new = str(text), str(old), str(new)
    return len(text) + text.count(old) * len(new)


def _joined(items: Any, d: Any = "", attribute: Any = None) -> int:
    sizes = (len(item) if isinstance(item, str) else 20 for item in items)
    return sum(len(str(d)) + size for size in sizes)


def _indented(text: str, width: Any = 4, first: bool = False, blank: bool = False) -> int:
    text, wide = str(text), width if isinstance(width, int) else len(width)
    return len(text) + (text.count("\n") + 1) * wide


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


class Template:
    """A compiled chat template: its text, and the name that errors call it."""

    def __init__(self, source: str, name: str):
        """Raises UserError where it is no template, or uses what a chat template must not."""
        self.name, self.source = name, source
        self._sandbox = _Sandbox()
        self._template = self._try("", self._sandbox.from_string, source)

    def render(self, where: str, size: int, /, **variables: Any) -> str:
        """The text, with `OPEN` and `CLOSE` around what is generated.

        `where` is the record's place, `size` about the characters of the conversation, which
        bound the work; the variables are plain data: `messages`, `tools` and so on.

        Raises:
            UserError: what the template itself raises, or that it does too much.
        """
        self._sandbox.left = _BUDGET + _BUDGET_A_CHARACTER * size
        return self._try(where, self._rendered, variables)

    def _rendered(self, variables: Mapping[str, Any]) -> str:
        # As `jinja2.Template.render`, without what that does for blocks, imports and tracebacks.
        made, sandbox = self._template, self._sandbox
        context = new_context(sandbox, made.name, {}, {**sandbox.globals, **variables}, shared=True)
        return "".join(made.root_render_func(context))

    def _try(self, where: str, function: Callable[..., Any], argument: Any) -> Any:
        try:
            return function(argument)
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            line = getattr(error, "lineno", None)
            at = f" (its line {line})" if line else ""
            place = f"{where}: " if where else "format."
            raise UserError(f"{place}template {self.name!r}: {reason}{at}") from error


compile_template = functools.lru_cache(maxsize=32)(Template)
