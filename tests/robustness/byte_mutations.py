"""Small faults in binary files."""

import random

_INTEGERS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 10**12, 2**63 - 1, 2**63, 2**64 - 1)


def spoiled_bytes(content: bytes, rng: random.Random, header: int = 0) -> tuple[bytes, str]:
    """Return a copy of a file with one fault, and a description of the fault.

    Args:
        content: The file.
        rng: Chooses the fault.
        header: Half of all faults are within so many bytes of the beginning; 0: anywhere.
    """
    end = header if header and rng.random() < 0.5 else len(content)
    place = rng.randrange(max(end, 1))
    kind = rng.randrange(7)
    if kind == 0:
        return content[:place], f"cut off at {place}"
    if kind == 1:
        extra = rng.randbytes(rng.randint(1, 40))
        return content + extra, f"{len(extra)} bytes more"
    if kind == 2:
        n = rng.randint(1, 16)
        return content[:place] + content[place + n :], f"{n} bytes missing at {place}"
    if kind == 3:
        extra = rng.randbytes(rng.randint(1, 16))
        return content[:place] + extra + content[place:], f"{len(extra)} bytes inserted at {place}"
    if kind == 4:
        number = rng.choice(_INTEGERS)
        size = rng.choice((4, 8))
        field = (number % 2 ** (8 * size)).to_bytes(size, "little")
        return content[:place] + field + content[place + size :], f"{number} at {place}"
    if kind == 5:
        n = rng.randint(1, 64)
        filler = bytes([rng.choice((0, 255, 0x80))]) * n
        return content[:place] + filler + content[place + n :], f"{n} equal bytes at {place}"
    bit = rng.randrange(8)
    flipped = bytes([content[place] ^ 1 << bit]) if content else b""
    return content[:place] + flipped + content[place + 1 :], f"bit {bit} flipped at {place}"
