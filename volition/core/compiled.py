"""numba's decorators as games use them: compiled at first use, kept on disk, without Python's lock."""

from volition.errors import VolitionError

try:
    from numba import njit
except ImportError:
    raise VolitionError("games and their searches need numba: pip install 'volition[go]'") from None

jit = njit(cache=True, nogil=True, error_model="numpy")
inline = njit(cache=True, nogil=True, error_model="numpy", inline="always")
