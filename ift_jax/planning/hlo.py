"""The text of a compiled program, read: its instructions, and how often each is executed.

The compiler counts a loop's body once; here loops are followed, with the numbers of turns that
their conditions say, so that what is said of one instruction can be added up over a step.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "s64": 8, "u64": 8,
         "f16": 2, "bf16": 2, "f32": 4, "f64": 8}  # fmt: skip
_HEAD = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = ")
_CALLED = re.compile(r"(?:calls|to_apply|called_computations)=\{?%?([\w.-]+)")
Known = dict[int, int]  # The integers in a tuple, by place, as far as they are known.


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`name = shape opcode(operands), attributes`."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    inside: str  # What stands in the brackets: a constant's value.
    attributes: str

    def attribute(self, pattern: str) -> str:
        """The first group of a pattern in the attributes, or ""."""
        found = re.search(pattern, self.attributes)
        return found.group(1) if found else ""

    @property
    def calls(self) -> str:
        """The computation that a fusion is made of, or ""."""
        return self.attribute(r"calls=%?([\w.-]+)")


def arrays(shape: str) -> list[tuple[str, int]]:
    """(dtype, elements) of each array in a shape."""
    found = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape)
    return [(t, math.prod(int(n) for n in sizes.split(",") if n)) for t, sizes in found]


def size(shape: str) -> int:
    """Bytes of all arrays of a shape, without the padding of its layout."""
    return sum(BYTES.get(dtype, 0) * n for dtype, n in arrays(shape))


def _up_to(text: str, start: int, stop: str) -> int:
    """The place of the first `stop` that stands in no bracket."""
    depth = 0
    for i in range(start, len(text)):
        if text[i] == stop and depth == 0:
            return i
        depth += (text[i] in "([{") - (text[i] in ")]}")
    return len(text)


def _branches(one: Instruction) -> list[str]:
    """The computations that an instruction runs once, but for those of fusions."""
    if one.opcode not in ("call", "async-start", "conditional"):
        return []
    listed = one.attribute(r"branch_computations=\{([^}]*)\}")
    return re.findall(r"[\w.-]+", listed or one.attribute(r"(?:calls|to_apply)=(%?[\w.-]+)"))


class Module:
    """All computations of a program, each a dict of its instructions by name, the last its root."""

    def __init__(self, text: str):
        """Reads `compiled.as_text()`."""
        self.entry = ""
        self.computations: dict[str, dict[str, Instruction]] = {}
        current: dict[str, Instruction] = {}
        # What a kernel says of itself may be cut into lines.
        for line in re.sub(r'\n(?=["}].)', "", text).splitlines():
            if head := _HEAD.match(line):
                current = self.computations[head[2]] = {}
                self.entry = head[2] if head[1] else self.entry
            elif found := _INSTRUCTION.match(line):
                space = _up_to(line, found.end(), " ")
                opening = line.find("(", space)
                closing = _up_to(line, opening + 1, ")")
                inside = line[opening + 1 : closing]
                current[found[2]] = Instruction(
                    found[2],
                    line[found.end() : space],
                    line[space + 1 : opening],
                    tuple(re.findall(r"%([\w.-]+)", inside)),
                    inside,
                    line[closing + 1 :],
                )

    def executions(self, data_turns: int = 1) -> Counter[str]:
        """How often a step runs each computation that is not part of a fusion.

        `data_turns` is taken for loops whose end the data decides. Of a conditional all branches
        are counted.
        """
        counts: Counter[str] = Counter()
        for name, times in self._runs(self.entry, 1, {}, data_turns):
            counts[name] += times
        return counts

    def _runs(
        self, name: str, times: int, known: Known, data_turns: int
    ) -> Iterator[tuple[str, int]]:
        yield name, times
        computation = self.computations[name]
        for one in computation.values():
            if one.opcode == "while":
                condition = one.attribute(r"condition=%?([\w.-]+)")
                body = one.attribute(r"body=%?([\w.-]+)")
                start = self._tuple(computation, one.operands[0], known)
                turns, same = self._turns(condition, body, start)
                turns = data_turns if turns is None else turns
                yield from self._runs(body, times * turns, same, data_turns)
            else:
                for branch in _branches(one):
                    yield from self._runs(branch, times, {}, data_turns)

    def inner(self, name: str) -> list[str]:
        """The loops' bodies, and what else a computation runs, of the computation itself."""
        bodies = [
            (one.attribute(r"body=%?([\w.-]+)"),) if one.opcode == "while" else _branches(one)
            for one in self.computations[name].values()
        ]
        return [body for of_one in bodies for body in of_one]

    def _turns(self, condition: str, body: str, start: Known) -> tuple[int | None, Known]:
        """How often a loop turns (None: not known), and what stays the same in its tuple."""
        after = self._tuple(self.computations[body], self.root(body).name, start)
        same = {place: n for place, n in start.items() if after.get(place) == n}
        steps = {place: after[place] - n for place, n in start.items() if place in after}
        compare, places = self.root(condition), self.computations[condition]
        if compare.opcode != "compare" or "direction=LT" not in compare.attributes:
            return None, same
        counter = places[compare.operands[0]].attribute(r"index=(\d+)")
        end = self._integer(places, compare.operands[1], start)
        place = int(counter) if counter else -1
        if end is None or steps.get(place, 0) <= 0:
            return None, same
        return max(0, -(-(end - start[place]) // steps[place])), same

    def root(self, name: str) -> Instruction:
        """The last instruction of a computation."""
        return list(self.computations[name].values())[-1]

    def _tuple(self, computation: dict[str, Instruction], name: str, known: Known) -> Known:
        one = computation[name]
        if one.opcode == "parameter":
            return known
        values = [self._integer(computation, operand, known) for operand in one.operands]
        return {i: n for i, n in enumerate(values) if n is not None and one.opcode == "tuple"}

    def _integer(self, computation: dict[str, Instruction], name: str, known: Known) -> int | None:
        """What an integer scalar is, where the constants and `known` (of the parameter) say it."""
        one = computation[name]
        if not re.match(r"[su]\d+\[\]", one.shape):
            return None
        if one.opcode == "constant":
            return int(one.inside)
        if one.opcode == "get-tuple-element":
            of_parameter = computation[one.operands[0]].opcode == "parameter"
            return known.get(int(one.attribute(r"index=(\d+)"))) if of_parameter else None
        if one.opcode == "parameter":
            return known.get(int(one.inside))
        values = [self._integer(computation, operand, known) for operand in one.operands]
        if one.opcode == "fusion":
            within = one.attribute(_CALLED.pattern)
            given = {i: n for i, n in enumerate(values) if n is not None}
            return self._integer(self.computations[within], self.root(within).name, given)
        if None in values:
            return None
        exact = [n for n in values if n is not None]
        if one.opcode in ("copy", "bitcast", "convert", "add"):
            return sum(exact)
        return exact[0] - exact[1] if one.opcode == "subtract" else None
