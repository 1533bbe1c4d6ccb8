from hypothesis import given
from hypothesis import strategies as st

from wgpt_jax.audio.clock import Clock

clocks = st.builds(Clock, sample_rate=st.integers(8000, 48000), hop=st.integers(1, 2048))
counts = st.integers(0, 10**9)


@given(clocks, counts)
def test_frames_are_whole_and_lose_less_than_one_hop(clock, samples):
    frames = clock.frames(samples)
    assert clock.samples(frames) <= samples < clock.samples(frames + 1)


@given(clocks, counts)
def test_samples_of_frames_make_these_frames_again(clock, frames):
    assert clock.frames(clock.samples(frames)) == frames


def test_the_clock_of_encodec_24khz():
    clock = Clock.of_codec(24000, [8, 5, 4, 2])
    assert (clock.hop, clock.frames_per_second, clock.seconds(150)) == (320, 75.0, 2.0)
