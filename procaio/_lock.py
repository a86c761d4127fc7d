"""
A lock between threads of the system, for what all threads of a program share.

Not `threading.RLock`: gevent replaces that by one of greenlets, and threads that have no hub wait
for it for ever now and then. Nothing in procaio lets other greenlets run while it holds one.
"""

from _thread import RLock

__all__ = ["RLock"]
