"""How large data may be: a small file can unpack to more than any machine holds."""

from pathlib import Path

from forgetting_core.errors import InputError

MIB = 2**20
ROW_BYTES = 4 * MIB
"""The longest row, packed or as text in characters: a token takes some 300 bytes while it is made."""
ARRAY_BYTES = 1024 * MIB
"""The largest JSON array, since it is read whole."""
ONE_ROW = "expected one conversation a row"
_MOST_UNPACKED = 200
"""Times the size of its file. Text packs to a tenth or a twentieth; gzip's limit is a thousandth."""
_RATIO_MATTERS_BYTES = 256 * MIB


def check_ratio(file: Path, unpacked: int) -> None:
    """Raises `InputError` when so many bytes out of `file` are a bomb."""
    if unpacked > _RATIO_MATTERS_BYTES and unpacked > _MOST_UNPACKED * file.stat().st_size:
        raise InputError(
            f"{file}: unpacks to more than {_MOST_UNPACKED} times its size, as no text does; write it without"
            " compression if that is right"
        )
