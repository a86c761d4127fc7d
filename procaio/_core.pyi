import os
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Generic, SupportsFloat, SupportsIndex, TypeVar, final, overload

from typing_extensions import Buffer as _BufferProtocol
from typing_extensions import Self

from procaio._pool import Pool

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)

_Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

class _HasFileno:
    def fileno(self) -> int: ...

SEGMENT_SIZE: int
MAX_WORKERS: int
SLOTS: int
FAULT_POINTS: tuple[str, ...]
FAULT_ALWAYS: int

@final
class Request(Generic[_T_co]):
    @property
    def state(self) -> str: ...
    @property
    def result(self) -> _T_co | None: ...
    @property
    def errno(self) -> int: ...
    @property
    def error(self) -> OSError | None: ...
    @property
    def pri(self) -> int: ...
    @property
    def callback(self) -> Callable[..., object] | None: ...
    def cancel(self) -> bool: ...
    def cb(self, callback: Callable[..., object] | None, /) -> Callable[..., object] | None: ...
    def wait(self, timeout: float | None = None) -> _T_co: ...
    def __await__(self) -> Generator[Any, None, _T_co]: ...
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...
