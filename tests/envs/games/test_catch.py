import numpy as np
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from envs.games.catch import BALL, BOARD, PADDLE, CatchEnv

ACTIONS = st.lists(st.integers(0, 2), min_size=9, max_size=9)


def board(observation: np.ndarray) -> list[str]:
    """The picture read back as text: cells of 3 x 6 pixels, one pixel of margin around."""
    letters = {BOARD: ".", BALL: "o", PADDLE: "="}
    rows = []
    for row in range(10):
        line = ""
        for column in range(5):
            cell = observation[1 + 3 * row : 4 + 3 * row, 1 + 6 * column : 7 + 6 * column]
            (color,) = {tuple(map(int, pixel)) for pixel in cell.reshape(-1, 3)}
            line += letters[color]
        rows.append(line)
    return rows


def test_gymnasium_accepts_it():
    check_env(CatchEnv(render_mode="rgb_array"))


def test_a_board_stepped_by_hand():
    env = CatchEnv()
    env.reset(seed=0)
    env.ball = (0, 3)
    observation = env._picture()
    assert board(observation) == ["...o."] + ["....."] * 8 + ["..=.."]
    # Margins are black.
    assert observation[0].max() == observation[-1].max() == 0
    assert observation[:, 0].max() == observation[:, -1].max() == 0

    observation, reward, terminated, truncated, _ = env.step(0)  # left
    assert board(observation) == ["....."] + ["...o."] + ["....."] * 7 + [".=..."]
    assert (reward, terminated, truncated) == (0.0, False, False)
    for action in (0, 0):  # to the wall and against it
        observation, *_ = env.step(action)
    assert board(observation) == ["....."] * 3 + ["...o."] + ["....."] * 5 + ["=...."]
    for action in (2, 2, 2, 1):  # right three times, stay
        observation, reward, terminated, *_ = env.step(action)
    assert board(observation) == ["....."] * 7 + ["...o."] + ["....."] + ["...=."]
    assert (reward, terminated) == (0.0, False)
    env.step(1)
    observation, reward, terminated, truncated, _ = env.step(1)
    assert board(observation) == ["....."] * 9 + ["...o."]  # caught: the ball covers the paddle
    assert (reward, terminated, truncated) == (1.0, True, False)


@given(seed=st.integers(0, 2**31), actions=ACTIONS)
def test_any_episode(seed: int, actions: list[int]):
    """Nine steps; the reward comes last, and is +1 exactly if the paddle ends under the ball."""
    env = CatchEnv()
    env.reset(seed=seed)
    paddle = 2
    for step, action in enumerate(actions, start=1):
        paddle = [max(paddle - 1, 0), paddle, min(paddle + 1, 4)][action]
        _, reward, terminated, truncated, _ = env.step(action)
        assert terminated == (step == 9)
        assert not truncated
        if not terminated:
            assert reward == 0
    assert reward == (1 if paddle == env.ball[1] else -1)


def test_the_enlarged_picture_is_the_observation():
    env = CatchEnv(render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (256, 256, 3)
    np.testing.assert_array_equal(picture[4::8, 4::8], observation)
