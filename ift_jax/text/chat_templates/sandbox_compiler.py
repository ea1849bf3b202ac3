"""The code that Jinja generates for a chat template: it pays for its work, and marks answers.

Jinja translates a template into Python. Here, that code calls methods of the environment
(`ift_jax.text.chat_templates.sandbox.Sandbox`) that charge a budget before anything is done.
"""

from collections.abc import Iterable

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, operators
from jinja2.ext import Extension
from jinja2.parser import Parser

from ift_jax.text.marks import GENERATION_END, GENERATION_START

_LOOKUP_COST = 20  # For an attribute, item, filter or test; any other node costs 1.


class GenerationExtension(Extension):
    """Puts what stands in `{% generation %}...{% endgeneration %}` between two marks."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        start = nodes.Output([nodes.TemplateData(GENERATION_START)])
        end = nodes.Output([nodes.TemplateData(GENERATION_END)])
        return nodes.Scope([start, *body, end]).set_lineno(line)


class PayingCodeGenerator(CodeGenerator):
    """Generates Python in which blocks, joins, slices and comparisons pay before they run."""

    def blockvisit(self, nodes_: Iterable[nodes.Node], frame: Frame) -> None:
        body = list(nodes_)
        self.writeline(f"environment.pay({sum(map(_cost, body))})")
        super().blockvisit(body, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self._call("concatenate", node.nodes, frame)

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
        self._call("add", (node.left, node.right), frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            return super().visit_Getitem(node, frame)
        self._paid_for(node.node, frame)
        self.write("[")
        self.visit(node.arg, frame)
        self.write("]")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        # A tuple can be the key of a dict, and is walked to hash it.
        is_value = node.ctx == "load"
        self.write("environment.pay_for(" if is_value else "")
        super().visit_Tuple(node, frame)
        self.write(")" if is_value else "")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("(")
        self._paid_for(node.expr, frame)
        for operand in node.ops:
            self.write(f" {operators[operand.op]} ")
            self._paid_for(operand.expr, frame)
        self.write(")")

    def _paid_for(self, node: nodes.Expr, frame: Frame) -> None:
        """Write an expression whose value is paid for; constants are free."""
        if isinstance(node, nodes.Const):
            return self.visit(node, frame)
        self._call("pay_for", (node,), frame)

    def _call(self, method: str, arguments: Iterable[nodes.Expr], frame: Frame) -> None:
        """Write a call of a method of the environment."""
        self.write(f"environment.{method}(")
        for argument in arguments:
            self.visit(argument, frame)
            self.write(", ")
        self.write(")")


def _cost(node: nodes.Node) -> int:
    """Return the cost of running a node once: of its text, its lookups and its children."""
    if isinstance(node, nodes.TemplateData):
        own = len(node.data)
    elif isinstance(node, nodes.Getattr | nodes.Getitem | nodes.Filter | nodes.Test):
        own = _LOOKUP_COST
    else:
        own = 1
    return own + sum(map(_cost, node.iter_child_nodes()))
