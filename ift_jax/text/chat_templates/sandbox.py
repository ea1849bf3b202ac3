"""A Jinja environment that renders as that of `transformers` does, in bounded time and memory.

A chat template comes with a model from anywhere. Here it reaches nothing but the conversation, and
pays for all that it does from a budget that grows with the conversation: each block that is
entered pays for its size, and each string or list that is made or walked pays for its length,
before it is made. There is no clock, so what a template writes, and whether it ends, depends on the
conversation alone.
"""

import functools
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import LoopControlExtension
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Cycler, Joiner, Namespace, generate_lorem_ipsum

from ift_jax.text.chat_templates.sandbox_compiler import GenerationExtension, PayingCodeGenerator

# A unit of the budget is about a tenth of a microsecond, or a character.
_BASE_BUDGET = 4_000_000
_BUDGET_PER_CHARACTER = 200  # For each character of the conversation.
_MAX_SOURCE = 100_000  # Characters in a template.
_MAX_DEPTH = 64  # For nested values, and for an indent or a separator of JSON.
_MAX_BITS = 10_000  # For an integer.
_FREE_LENGTH = 1000  # Reading a string of up to this many characters costs nothing.

_SCALARS = (bool, int, float, type(None))
_CONTAINERS = (dict, list, tuple, set)
_SEQUENCES = (str, list, tuple)
_METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit"
        " islower isnumeric isspace istitle isupper join lower lstrip partition removeprefix"
        " removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines startswith"
        " strip swapcase title upper".split()
    ),
    dict: frozenset(("get", "items", "keys", "values", "copy")),
    list: frozenset(("count", "index", "copy")),
    tuple: frozenset(("count", "index")),
    LoopContext: frozenset(("cycle", "changed")),
}
_FILTERS = (
    "abs capitalize count d default dictsort first float indent int items join last length list"
    " lower map max min reject rejectattr replace reverse select selectattr sort string title trim"
    " unique upper"
).split()
# These turn what they are given into text; `join` its items.
_TEXT_FILTERS = frozenset("capitalize indent lower replace string title trim upper".split())
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_HAVE_TEXT: tuple[type, ...] = (str, *_SCALARS, jinja2.Undefined, range, *_VIEWS)
# These tests walk the values that they compare.
_COMPARING_TESTS = "eq == equalto ne != lt lessthan < le <= gt greaterthan > ge >= in".split()
_BANNED_NODES = (
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.Extends,
    nodes.Block,
    nodes.EvalContextModifier,
)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template.

    Attributes:
        left: The rest of the budget.
    """

    code_generator_class = PayingCodeGenerator
    intercepted_binops = frozenset(("+", "*", "%", "**"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=self.write,
            extensions=(GenerationExtension, LoopControlExtension),
        )
        self.left = _BASE_BUDGET
        result_sizes: dict[str, Callable[..., int]] = {
            "replace": _replaced_size,
            "join": _joined_size,
            "indent": _indented_size,
        }
        self.filters = {
            name: self._paying(self.filters[name], name, result_sizes.get(name))
            for name in _FILTERS
        }
        self.filters["tojson"] = self._tojson
        self.filters["safe"] = lambda value: value
        self.tests |= {name: self._paying(self.tests[name]) for name in _COMPARING_TESTS}
        self.globals = {
            "raise_exception": _raise_exception,
            "range": self._range,
            "dict": dict,
            "namespace": _Namespace,
        }
        self.functions = tuple(self.globals.values())
        # Jinja's own globals exist elsewhere. Here they may be neither written nor called; were
        # they undefined, `{{ cycler }}` would write nothing where it writes a class elsewhere.
        self.globals |= {"cycler": Cycler, "joiner": Joiner, "lipsum": generate_lorem_ipsum}

    def start(self, n_characters: int) -> None:
        """Fill the budget for a conversation of about this many characters."""
        self.left = _BASE_BUDGET + _BUDGET_PER_CHARACTER * n_characters

    def pay(self, cost: int) -> None:
        """Take a cost from the budget; raise SecurityError when nothing is left."""
        self.left -= cost
        if self.left < 0:
            raise SecurityError("it does too much: a loop without an end, or too large a text")

    def pay_for(self, value: Any) -> Any:
        """Pay for walking a value, and return the value.

        Lists that share their parts can be small in memory and endless to walk.
        """
        kind = type(value)
        if kind is str:
            if len(value) > _FREE_LENGTH:
                self.pay(len(value) >> 3)
        elif kind not in _SCALARS and not isinstance(value, jinja2.Undefined):
            self.pay(self.measure(value))
        return value

    def measure(self, value: Any, depth: int = 1) -> int:
        """Count the characters and items of a value, each with its depth, and pay for its items."""
        if isinstance(value, str):
            return len(value) + depth
        if depth > _MAX_DEPTH:
            raise SecurityError("a value is nested too deeply")
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise SecurityError("a number is too large")
        if isinstance(value, _CONTAINERS):
            items = (*value, *value.values()) if isinstance(value, dict) else value
            self.pay(20 + 4 * len(items))
            return depth + sum([self.measure(item, depth + 1) for item in items])
        return 20 + depth

    def write(self, value: Any) -> Any:
        """Pay for what `{{ ... }}` writes."""
        if type(value) is not str:
            self.pay_for(value)
            self._check_has_text(value)
            return value
        self.pay(len(value))
        return value

    def _check_has_text(self, value: Any) -> None:
        """Refuse to write what Python would write as `<function f at 0x7f...>`.

        That text is another one in each process, where stores of one name must be the same.
        """
        if isinstance(value, dict | list | tuple):
            for item in (*value, *value.values()) if isinstance(value, dict) else value:
                if type(item) is not str:
                    self._check_has_text(item)
        elif not isinstance(value, _HAVE_TEXT):
            raise SecurityError(
                f"it writes a {type(value).__name__}, which has no text: a function needs its (),"
                " and filters such as 'map' and 'select' need a 'list' or 'join' after them"
            )

    def concatenate(self, *parts: Any) -> str:
        """Compute `~`."""
        texts = [part if type(part) is str else str(self.write(part)) for part in parts]
        self.pay(sum(map(len, texts)))
        return "".join(texts)

    def add(self, left: Any, right: Any) -> Any:
        """Compute `+`; strings, the most frequent operands, take a shortcut."""
        if type(left) is not str or type(right) is not str:
            return self.call_binop(None, "+", left, right)
        self.pay(len(left) + len(right))
        return left + right

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Pay for one of the `intercepted_binops`, and compute it."""
        if operator == "+":
            self._pay_for_sum(left, right)
        elif not isinstance(left, _SCALARS) or not isinstance(right, _SCALARS):
            if operator != "*":
                raise SecurityError(f"{operator!r} is for numbers here")
            self._pay_for_repetition(left, right)
        elif isinstance(left, int) and isinstance(right, int):
            if operator == "**":
                # Measure a number of the power's size, without computing the power.
                self.measure(1 << min(left.bit_length() * abs(right), 1 << 20))
            else:
                self.measure(left)
                self.measure(right)
        return self.binop_table[operator](left, right)

    def _pay_for_sum(self, left: Any, right: Any) -> None:
        if isinstance(left, _SEQUENCES):
            self.pay(len(left) + (len(right) if isinstance(right, _SEQUENCES) else 0))
        elif isinstance(left, int):
            self.measure(left)

    def _pay_for_repetition(self, left: Any, right: Any) -> None:
        sequence, times = (left, right) if isinstance(right, int) else (right, left)
        if isinstance(sequence, _SEQUENCES) and isinstance(times, int):
            self.pay(len(sequence) * max(times, 0))

    # Jinja passes a template's own keyword arguments on: their names must not be taken here.
    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902
        """Call a macro, one of our functions, or a method that is allowed."""
        __self.pay(20)
        if type(__obj) is not Macro and __obj not in __self.functions:
            args = __self._pay_for_call(__obj, args)
        return super().call(__context, __obj, *args, **kwargs)

    def _pay_for_call(self, function: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Pay for the call of a method and return its arguments; refuse all other functions."""
        owner: Any = getattr(function, "__self__", None)
        name = getattr(function, "__name__", "")
        is_bound = isinstance(function, types.BuiltinMethodType | types.MethodType)
        if is_bound and name in _METHODS.get(type(owner), ()):
            for value in (owner, *args):
                self.pay_for(value)
            if name == "join":
                args = (list(self._paying_items(args[0])),) if args else ()
                self.pay(_joined_size(args[0] if args else (), owner))
            elif name == "replace":
                self.pay(_replaced_size(owner, *args[:2]))
            elif name in ("split", "rsplit", "splitlines"):
                self.pay(len(owner))
        elif isinstance(function, jinja2.Undefined) and function._undefined_name == "strftime_now":
            raise SecurityError(
                "it asks for today's date, and what it was trained on must not change by the"
                " day; set the date in format.template_options, such as 'date=\"2026-01-31\"'"
            )
        # Jinja itself raises for an undefined name. A recursive loop calls its LoopContext.
        elif not isinstance(function, jinja2.Undefined | LoopContext):
            raise SecurityError(f"it may not call {name or type(function).__name__!r}")
        return args

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        raise SecurityError(f"it may not see {attribute!r} of {type(obj).__name__}")

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > _MAX_SOURCE:
            raise SecurityError(f"expected at most {_MAX_SOURCE} characters, found {len(source)}")
        tree = super()._parse(source, name, filename)
        for node in tree.find_all(_BANNED_NODES):
            raise SecurityError(f"line {node.lineno}: a chat template has no {type(node).__name__}")
        return tree

    def _range(self, *args: int) -> range:
        numbers = range(*args)
        self.pay(len(numbers))
        return numbers

    def _paying_items(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield items and pay for each."""
        for item in items:
            self.pay(5)
            yield item

    def _paying(
        self, function: Any, name: str = "", result_size: Callable[..., int] | None = None
    ) -> Callable[..., Any]:
        """Wrap a filter or test so that it pays.

        Args:
            function: The filter or test.
            name: The name of a filter.
            result_size: Computes the largest possible size of the result from the same arguments;
                None if the result cannot be larger than they are.
        """
        # The environment or a context comes first, where a filter asks for it.
        n_passed = int(getattr(function, "jinja_pass_arg", None) is not None)

        @functools.wraps(function)  # Copies Jinja's note of what a filter asks for, too.
        def paying(*args: Any, **kwargs: Any) -> Any:
            self.pay(10)
            own = [
                self.pay_for(list(arg) if isinstance(arg, types.GeneratorType) else arg)
                for arg in args[n_passed:]
            ]
            for value in kwargs.values():
                self.pay_for(value)
            if name in _TEXT_FILTERS:
                self._check_has_text(args[n_passed:])
            elif name == "join":
                self._check_has_text(own[:1])  # A list stands there for a generator.
            if result_size is not None:
                self.pay(result_size(*own, **kwargs))
            result = function(*args[:n_passed], *own, **kwargs)
            return self._paying_items(result) if isinstance(result, types.GeneratorType) else result

        return paying

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        width = indent if isinstance(indent, int) else len(str(indent or ""))
        if width > _MAX_DEPTH or any(len(s) > _MAX_DEPTH for s in separators or ()):
            raise SecurityError(f"tojson: expected an indent of at most {_MAX_DEPTH}")
        self.pay(self.measure(value) * (1 + max(width, 0)))
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )


class _Namespace(Namespace):
    """Jinja's `namespace()`, without the names that Python itself looks up."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str) or name.startswith("_"):
            raise SecurityError(f"a namespace has no attribute {name!r}")
        super().__setitem__(name, value)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


# The largest possible sizes of the results of filters and methods. The parameters have the names of
# those of the filters, because a template may pass them by name.


def _replaced_size(text: Any, old: str = "", new: str = "", count: int | None = None) -> int:
    text, old, new = str(text), str(old), str(new)
    return len(text) + text.count(old) * len(new)


def _joined_size(items: Any, d: Any = "", attribute: Any = None) -> int:
    separator = len(str(d))
    return sum(separator + (len(item) if isinstance(item, str) else 20) for item in items)


def _indented_size(text: str, width: Any = 4, first: bool = False, blank: bool = False) -> int:
    text = str(text)
    width = width if isinstance(width, int) else len(width)
    return len(text) + (text.count("\n") + 1) * width
