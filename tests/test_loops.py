"""One contract, all loops: what `loop_contract.py` asks, of the real libraries."""

from __future__ import annotations

import gc
import json
import os
import selectors
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import loop_contract
import procaio
from conftest import descriptors, eventually, not_sanitized, run_fine
from drivers import DRIVERS


def check(kind: str, **variables: str) -> None:
    """Every check of the contract, each in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), **variables}
    said = subprocess.run(
        [sys.executable, loop_contract.__file__, kind],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        timeout=100,
        check=True,
    )
    answers: dict[str, str] = json.loads(said.stdout)
    if list(answers) == [""]:
        pytest.skip(answers[""].partition(" ")[2])
    failed = {name: text for name, text in answers.items() if text and text[:4] != "skip"}
    assert failed == {}, "".join(f"\n{name}:\n{text}" for name, text in failed.items())
    assert len(answers) == len(loop_contract.CHECKS) > 15


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[not_sanitized] if "gevent" in kind else [])
        for kind in DRIVERS
        if kind != "tk"
    ],
)
def test_contract(kind: str) -> None:
    check(kind)


def test_contract_of_tk(display: str) -> None:
    check("tk", DISPLAY=display)


# -- finding one -----------------------------------------------------------------------------------


def test_where_no_loop_is_the_error_tells_what_to_do() -> None:
    """In this thread; by name and by object too."""
    run_fine("""
        import pytest, procaio
        with pytest.raises(RuntimeError, match="no event loop was found in this thread"):
            procaio.attach()
        with pytest.raises(RuntimeError, match="asyncio has no loop in this thread"):
            procaio.attach("asyncio")
        with pytest.raises(RuntimeError, match="selectors has no loop"):
            procaio.attach("selectors")
        with pytest.raises(ValueError, match="'libuv' is none of asyncio, trio"):
            procaio.attach("libuv")
        with pytest.raises(TypeError, match="needs add_reader, remove_reader"):
            procaio.attach(object())
        print("fine")
    """)


def test_a_loop_whose_library_is_missing_cannot_be_named() -> None:
    run_fine("""
        import sys, pytest, procaio
        for name in ("trio", "gevent"):
            sys.modules[name] = None
            with pytest.raises(RuntimeError, match=f"{name} cannot be imported"):
                procaio.attach(name)
        print("fine")
    """)


def test_the_loop_of_another_thread_is_not_found() -> None:
    """A Qt application that runs elsewhere is none of this thread."""
    pytest.importorskip("PySide6")
    run_fine("""
        import threading
        import procaio
        from PySide6.QtCore import QCoreApplication
        application, failures = QCoreApplication([]), []
        def other():
            try:
                procaio.attach()
            except RuntimeError as error:
                failures.append(str(error)[:13])
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert failures == ["no event loop"], failures
        print("fine")
    """)


def test_attachment_of_a_closed_pool_can_be_left(pool: procaio.Pool) -> None:
    """In whichever order the two end."""
    selector = selectors.DefaultSelector()
    with procaio.attach(selector, pool=pool) as attachment:
        assert "Pool" in repr(attachment)
        pool.close()
    attachment.detach()
    selector.close()


def test_a_closed_selector_is_forgotten_with_the_pool() -> None:
    """Nothing that was watched for a loop stays open, whichever ends first."""
    with procaio.Pool() as first, procaio.Pool() as second:
        for pool in (first, second):
            selector = selectors.DefaultSelector()
            procaio.attach(selector, pool=pool)
            selector.close()


def test_a_pool_that_takes_the_number_of_one_closed_elsewhere_stays_watched() -> None:
    """Its loop hears of the close only when it runs again, and by then has attached the next."""
    selector, got = selectors.DefaultSelector(), []
    first = procaio.Pool(1)
    procaio.attach(selector, pool=first)
    number = first.poll_fileno()
    closer = threading.Thread(target=first.close)
    closer.start()
    closer.join()
    with procaio.Pool(1) as second, procaio.attach(selector, pool=second):
        assert second.poll_fileno() == number
        procaio.aio_nop(lambda: got.append(None), pool=second)
        while not got:
            for key, _ in selector.select(20):
                key.data()
    for key, _ in selector.select(0):
        key.data()
    assert not selector.get_map()
    selector.close()


def test_a_thread_that_ends_without_detaching_leaves_nothing_once_another_loop_comes() -> None:
    """Its loop can never run again."""
    with procaio.Pool(1) as pool:
        attached = []
        before = len(descriptors())

        def forgetful() -> None:
            attached.append(procaio.attach(selectors.DefaultSelector(), pool=pool))

        for _ in range(3):
            thread = threading.Thread(target=forgetful)
            thread.start()
            thread.join()
        attached.clear()
        selector = selectors.DefaultSelector()

        def is_given_back() -> bool:  # a thread may end some time after join()
            procaio.attach(selector, pool=pool).detach()
            gc.collect()
            return len(descriptors()) == before + 1

        eventually(is_given_back, "what the threads left is given back")
        selector.close()
