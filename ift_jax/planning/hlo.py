"""The text of a compiled program (optimized HLO), parsed into instructions."""

import dataclasses
import math
import re
from typing import NamedTuple

# Bits of an element, where the digits of the dtype's name do not say it.
_OTHER_BITS = {"pred": 8, "token": 0, "opaque": 0}
# Start a computation that runs beside what follows.
STARTS = ("async-start", "call-start", "fusion-start")
_COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?(?P<name>[\w.-]+) = ")
_OPERAND = re.compile(r"%([\w.-]+)")


class ArrayShape(NamedTuple):
    """One array of a shape.

    Attributes:
        dtype: As HLO spells it: "bf16", "f32".
        n_elements: Its elements, without the padding of its layout.
    """

    dtype: str
    n_elements: int


def array_shapes(shape: str) -> list[ArrayShape]:
    """Return the arrays of a shape, which may be a tuple: "(s32[], f32[8,128]{1,0})"."""
    found = re.findall(r"\b([a-z][a-z0-9]*)\[([\d,<=]*)\]", shape)
    return [
        ArrayShape(dtype, math.prod(int(n.removeprefix("<=")) for n in sizes.split(",") if n))
        for dtype, sizes in found
    ]


def shape_bytes(shape: str) -> int:
    """Return the bytes of all arrays of a shape, without the padding of their layouts.

    Raises:
        ValueError: The size of a dtype is not known.
    """
    arrays = array_shapes(shape)
    return sum(-(-_element_bits(array.dtype) * array.n_elements // 8) for array in arrays)


def _element_bits(dtype: str) -> int:
    """Return the bits of an element: of "bf16" 16, of "f8e4m3fn" 8, of "s4" 4."""
    if dtype in _OTHER_BITS:
        return _OTHER_BITS[dtype]
    width = re.match(r"(?:bf|[sufc])(\d+)", dtype)
    if not width:
        raise ValueError(f"the compiled program has an array of {dtype!r}, whose size is not known")
    return int(width[1])


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`name = shape opcode(arguments), attributes`.

    Attributes:
        name: Its name, unique in its computation.
        shape: The shape of its result.
        opcode: What it does.
        operands: The names of the instructions that it takes, all of them in its computation.
        arguments: What stands in the parentheses: of a constant, its value.
        attributes: The rest of the line.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    arguments: str
    attributes: str

    def attribute(self, pattern: str) -> str:
        """Return the first group of a regular expression in the attributes, or ""."""
        found = re.search(pattern, self.attributes)
        return found.group(1) if found else ""

    @property
    def fused_computation(self) -> str:
        """The computation that a fusion consists of, or ""."""
        return self.attribute(r"calls=%?([\w.-]+)")

    @property
    def loop_body(self) -> str:
        """The computation that a while loop repeats, or ""."""
        return self.attribute(r"body=%?([\w.-]+)") if self.opcode == "while" else ""

    @property
    def loop_condition(self) -> str:
        """The computation that decides whether a while loop continues, or ""."""
        return self.attribute(r"condition=%?([\w.-]+)") if self.opcode == "while" else ""

    @property
    def called_computations(self) -> list[str]:
        """The computations that it runs once; those of fusions and loops are not among them."""
        if self.opcode not in ("call", "conditional"):
            return []
        branches = self.attribute(r"branch_computations=\{([^}]*)\}")
        if branches:
            return re.findall(r"[\w.-]+", branches)
        # A conditional of two branches names them one by one.
        return re.findall(
            r"(?:to_apply|true_computation|false_computation)=%?([\w.-]+)", self.attributes
        )

    @property
    def started_computation(self) -> str:
        """The computation that it starts, and that runs beside what follows; or "".

        Collectives of tpu7x run so, each in a computation of its own on the sparse cores. The
        `to_apply` of other operations that start something, such as `all-reduce-start`, is how two
        numbers are added.
        """
        if self.opcode not in STARTS:
            return ""
        return self.attribute(r"(?:calls|to_apply)=%?([\w.-]+)")


Computation = dict[str, Instruction]


class Module:
    """A program.

    Attributes:
        entry: The name of the computation that the program begins with.
        computations: Each computation by name: its instructions by name, in the order in which they
            run; the last one is its result.
    """

    def __init__(self, text: str):
        """Parse the result of `compiled.as_text()`."""
        self.entry = ""
        self.computations: dict[str, Computation] = {}
        current: Computation = {}
        # The description inside a Pallas kernel may contain line breaks.
        joined = re.sub(r'\n(?=["}].)', "", text)
        for line in joined.splitlines():
            if head := _COMPUTATION.match(line):
                current = {}
                self.computations[head["name"]] = current
                if head["entry"]:
                    self.entry = head["name"]
            elif instruction := _parse_instruction(line):
                current[instruction.name] = instruction

    def root(self, name: str) -> Instruction:
        """Return the instruction whose result is that of a computation."""
        return list(self.computations[name].values())[-1]


def _parse_instruction(line: str) -> Instruction | None:
    """Return the instruction in a line, or None if there is none."""
    start = _INSTRUCTION.match(line)
    if not start:
        return None
    shape_end = _find_outside_brackets(line, " ", start.end())
    opening = line.find("(", shape_end)
    closing = _find_outside_brackets(line, ")", opening + 1)
    arguments = line[opening + 1 : closing]
    return Instruction(
        name=start["name"],
        shape=line[start.end() : shape_end],
        opcode=line[shape_end + 1 : opening],
        operands=tuple(_OPERAND.findall(arguments)),
        arguments=arguments,
        attributes=line[closing + 1 :],
    )


def _find_outside_brackets(text: str, character: str, start: int) -> int:
    """Return the index of the first such character outside brackets, or the end of the text."""
    depth = 0
    for i in range(start, len(text)):
        if text[i] == character and depth == 0:
            return i
        if text[i] in "([{":
            depth += 1
        elif text[i] in ")]}":
            depth -= 1
    return len(text)
