"""Strategies that damage what is whole, and JSON and text of any kind."""

import struct

from hypothesis import strategies as st

# The ends of what fields hold, and a little beyond.
_BOUNDARIES = (
    [0, 1, 2, 3, 7, 8, 16, 255, 256, 1000, 16000, 10**6, 10**9]
    + [2**bits - 1 for bits in (15, 16, 24, 31, 32, 36, 40, 48, 63, 64)]
    + [2**bits for bits in (15, 16, 24, 31, 32, 36, 40, 48, 63)]
)
_FORMS = ("<H", ">H", "<I", ">I", "<Q", ">Q")

NUMBERS = st.sampled_from(_BOUNDARIES) | st.integers(0, 2**64 - 1)
FLOATS = st.sampled_from(
    ["nan", "inf", "-inf", "-0.0", "1e400", "1e-400", "1_0", "٣", "0x1p3"]
) | st.floats().map(repr)
# For parsers that recurse: closed, not closed, of lists and of mappings.
DEEP = st.sampled_from(
    ["[" * 900 + "]" * 900, "[" * 10**5, '{"a":' * 10**5, "[" * 10**5 + "]"]
)
# What terminals, spreadsheets and Python's own notions of lines and white
# space trip over.
ODD_TEXT = st.sampled_from(
    ["", " ", "..", "/", "/etc/passwd", "../a", "a/../../b", ".wav", "a/.wav"]
    + ["\0", "\x1b[2J", "\x0c", "\x1c", "\x85", "\u2028", "\ufeff", "\u202e"]
    + ["NaN", "None", "$data_root", "${HOME}", "$", '"', "'", '"""', ",", ";"]
    + ["x" * 5000, "-1", "1e9", "é", "😀"]
)
TEXT = ODD_TEXT | st.text(max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | NUMBERS
    | st.floats()
    | TEXT,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def damaged(draw, data, most=4, near=()):
    """Bytes after up to ``most`` edits, of which there may be none.

    Arguments
    ---------
    data : bytes
    most : int
    near : sequence of int
        Offsets that every other edit is close behind: of what matters.
    """
    data = bytearray(data)
    for _ in range(draw(st.integers(0, most))):
        _edit(draw, data, near)
    return bytes(data)


def _edit(draw, data, near):
    if near and draw(st.booleans()):
        at = draw(st.sampled_from(near)) + draw(st.integers(0, 32))
    else:
        at = draw(st.integers(0, max(0, len(data) - 1)))
    size = draw(st.integers(1, 16))
    kind = draw(st.sampled_from(_KINDS))
    kind(draw, data, at, size)


def _flip(draw, data, at, size):
    if at < len(data):
        data[at] ^= draw(st.integers(1, 255))


def _number(draw, data, at, size):
    form = draw(st.sampled_from(_FORMS))
    width = struct.calcsize(form)
    number = draw(NUMBERS) % 2 ** (8 * width)
    if at + width <= len(data):
        struct.pack_into(form, data, at, number)


def _not_finite(draw, data, at, size):
    at -= at % 4
    if at + 4 <= len(data):
        value = draw(st.sampled_from([float("nan"), float("inf"), 3e38]))
        struct.pack_into("<f", data, at, value)


def _insert(draw, data, at, size):
    data[at:at] = draw(st.binary(min_size=1, max_size=size))


def _delete(draw, data, at, size):
    del data[at : at + size]


def _repeat(draw, data, at, size):
    times = draw(st.sampled_from([1, 2, 100, 100_000]))
    data[at:at] = data[at : at + size] * times


def _truncate(draw, data, at, size):
    del data[at:]


_KINDS = (_flip, _number, _number, _not_finite, _insert, _delete, _repeat)
_KINDS += (_truncate,)


@st.composite
def damaged_text(draw, text, most=2):
    """UTF-8 of a text, in every other case after some edits of it."""
    data = text.encode("utf-8", "surrogatepass")
    if draw(st.booleans()):
        return data
    kind = draw(st.sampled_from(["bytes", "text", "mark", "lines"]))
    if kind == "bytes":
        return draw(damaged(data, most))
    if kind == "mark":
        return b"\xef\xbb\xbf" + data
    if kind == "lines":
        return data.replace(b"\n", draw(st.sampled_from([b"\r\n", b"\r"])))
    at = draw(st.integers(0, len(text)))
    text = text[:at] + draw(TEXT) + text[at:]
    return text.encode("utf-8", "surrogatepass")


@st.composite
def replaced(draw, tree):
    """A tree of JSON, in which one part or none is replaced or dropped."""
    paths = list(_paths(tree))
    path = draw(st.none() | st.sampled_from(paths))
    if path is None:
        return tree
    return _replace(draw, tree, path)


def _paths(tree):
    yield ()
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield from ((key, *rest) for rest in _paths(tree[key]))


def _replace(draw, tree, path):
    if not path:
        if isinstance(tree, int | float) and draw(st.booleans()):
            return draw(st.integers(0, 64) | st.floats(0, 1))
        return draw(JSON)
    key, *rest = path
    tree = tree.copy()
    if not rest and draw(st.integers(0, 3)) == 0:
        del tree[key]
    else:
        tree[key] = _replace(draw, tree[key], rest)
    return tree
