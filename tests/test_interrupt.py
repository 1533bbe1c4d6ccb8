import signal

import pytest

from wgpt_jax.interrupt import hold_interrupts


def test_a_held_interrupt_comes_when_the_work_is_whole():
    done = []
    with pytest.raises(KeyboardInterrupt), hold_interrupts():
        done.append(1)
        signal.raise_signal(signal.SIGINT)
        done.append(2)
    assert done == [1, 2]
    with pytest.raises(KeyboardInterrupt):  # the usual effect is back
        signal.raise_signal(signal.SIGINT)


def test_what_fails_while_interrupts_are_held_is_told():
    with pytest.raises(ValueError, match="broken"), hold_interrupts():
        raise ValueError("broken")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
