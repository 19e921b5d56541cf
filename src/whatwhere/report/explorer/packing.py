"""Arrays as text in a page: numbers in few bytes, and pictures of all neurons on sheets."""

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image

_MOST_SIDE = 4096  # pixels of a sheet: what every browser draws


def packed(values: Any, dtype: str = "f4") -> dict[str, Any]:
    """Numbers in little-endian bytes as base64, with their type: {"type": "f4", "data": "..."}.

    >>> packed([1.0])
    {'type': 'f4', 'data': 'AACAPw=='}
    """
    array = np.ascontiguousarray(np.asarray(values), np.dtype(dtype).newbyteorder("<"))
    return {"type": dtype, "data": base64.b64encode(array.tobytes()).decode("ascii")}


def signed_bytes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's values as uint8, 128 for zero and 127 steps to its largest magnitude; and that, float32.

    >>> codes, limits = signed_bytes(np.array([[0.0, -2.0, 1.0]]))
    >>> codes, limits
    (array([[128,   1, 192]], dtype=uint8), array([2.], dtype=float32))
    """
    flat = np.nan_to_num(values.reshape(len(values), -1))
    limits = np.abs(flat).max(1, initial=0.0)
    codes = np.rint(128 + 127 * flat / np.where(limits > 0, limits, 1.0)[:, None])
    return codes.astype(np.uint8).reshape(values.shape), limits.astype(np.float32)


def unsigned_bytes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's values, 0 or more, as uint8, 255 for its largest; and that, float32."""
    flat = np.nan_to_num(values.reshape(len(values), -1))
    limits = flat.max(1, initial=0.0)
    codes = np.rint(255 * flat / np.where(limits > 0, limits, 1.0)[:, None])
    return codes.astype(np.uint8).reshape(values.shape), limits.astype(np.float32)


def within_limits(values: list[np.ndarray], most: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, str]:
    """Arrays (n_neurons, n) as whole numbers between each neuron's least and largest value in any of them.

    Of two bytes where all of them together then take at most `most` bytes, otherwise of one; NaN is the largest code.
    Returns the codes, the least values and the largest (n_neurons,), and the type of the codes.

    >>> codes, low, high, kind = within_limits([np.array([[0.0, 1.0, np.nan]])], 0)
    >>> codes[0], low, high, kind
    (array([[  0, 254, 255]], dtype=uint8), array([0.], dtype=float32), array([1.], dtype=float32), 'u1')
    """
    kind = "u2" if 2 * sum(array.size for array in values) <= most else "u1"
    top = 2 ** (8 * int(kind[1])) - 1
    together = np.concatenate(values, axis=1).astype(np.float64)
    seen = np.where(np.isfinite(together), together, np.nan)
    low = np.fmin.reduce(seen, axis=1, initial=np.inf)
    high = np.fmax.reduce(seen, axis=1, initial=-np.inf)
    low, high = np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 1.0)
    span = np.where(high > low, high - low, 1.0)[:, None]
    codes = []
    for array in values:
        code = np.rint((top - 1) * (array - low[:, None]) / span)
        codes.append(np.where(np.isfinite(code), code, top).astype(kind))
    return codes, low.astype(np.float32), high.astype(np.float32), kind


def sheets(cells: np.ndarray) -> dict[str, Any]:
    """Pictures (n, height, width) or (n, height, width, 3), uint8, side by side on as few PNGs as hold them.

    Picture i is on sheet i // perSheet, in its row and column in the order of reading, `columns` in a row.
    """
    n, height, width = cells.shape[:3]
    columns = max(1, min(n, _MOST_SIDE // width, math.ceil(math.sqrt(n * height / width))))
    rows = max(1, min(_MOST_SIDE // height, math.ceil(n / columns)))
    per_sheet = columns * rows
    uris = [_sheet(cells[start : start + per_sheet], columns) for start in range(0, n, per_sheet)]
    return {"height": height, "width": width, "columns": columns, "perSheet": per_sheet, "sheets": uris}


def _sheet(cells: np.ndarray, columns: int) -> str:
    n, height, width = cells.shape[:3]
    rows = -(-n // columns)
    blank = np.zeros((rows * columns, *cells.shape[1:]), np.uint8)
    blank[:n] = cells
    blank = blank.reshape(rows, columns, *cells.shape[1:])
    picture = np.moveaxis(blank, 2, 1).reshape(rows * height, columns * width, *cells.shape[3:])
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", optimize=False, compress_level=9)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
