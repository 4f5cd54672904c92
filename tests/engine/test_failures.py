"""What torch says about lost processes is said in one sentence, and not about others."""

import pytest

from maskclippp.engine.failures import explained, explaining_failures
from maskclippp.errors import InputError


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("[gloo] Connection closed by peer [127.0.0.1]:1", "process 0 of the run lost another one"),
        ("DataLoader worker (pid 3) is killed by signal: Killed.", "a data loading process was"),
        ("worker is killed by signal: Bus error. It is", r"\(/dev/shm\) is full"),
        ("CUDA out of memory. Tried to allocate", "the memory of the GPU ran out"),
        ("server: EADDRINUSE, port 5", "the port at which the processes would meet is in use"),
    ],
)
def test_failures_of_torch_are_explained(message: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        raise explained(message) or AssertionError


def test_a_pipe_that_breaks_in_a_single_process_is_no_lost_process() -> None:
    with pytest.raises(BrokenPipeError), explaining_failures():
        raise BrokenPipeError(32, "Broken pipe")
