"""The Δ-autoencoder: order of the cells, masks of the loss, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from agent.agent import TOKENIZERS
from agent.config.tokenizers import DeltaTokenizerConfig
from agent.tokenizers.delta import DeltaTokenizer, token_grid, transitions
from envs.errors import BadInput
from tests.agent.conftest import (
    ACTIONS,
    SIZE,
    SPACES,
    config_of,
    floats,
    padded_segment,
    random_segment,
    unlearned,
)


def make(size: int = SIZE, **changes) -> DeltaTokenizer:
    """The published one, or delta_light with nothing but the changes."""
    config = config_of("delta").tokenizer
    if not changes.keys() <= vars(config).keys():
        config = config_of("delta_light").tokenizer
        quiet = {"residual": False, "embedding_std": 0.02, "change_weighting": 1.0}
        changes = {**quiet, "pushforward_after": None, **changes}
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    return TOKENIZERS[config.kind](config, replace(SPACES, size=size)).eval()


def pairs(count: int) -> tuple[torch.Tensor, ...]:
    """Frames, actions and next frames."""
    return transitions(random_segment(count, 2))


@pytest.mark.parametrize("tokens", [1, 2, 4, 8, 16])
def test_cells_are_flattened_by_row_column_channel(tokens: int) -> None:
    tokenizer = make(size=32, tokens=tokens)
    rows, columns = {1: (1, 1), 2: (1, 2), 4: (2, 2), 8: (2, 4), 16: (4, 4)}[tokens]
    h, w, channels = 8 // rows, 8 // columns, 8
    z = torch.arange(2 * channels * 8 * 8, dtype=torch.float32).view(2, channels, 8, 8)
    cells = tokenizer.map_to_cells(z)
    assert cells.shape == (2, tokens, h * w * channels)
    for k in range(tokens):
        top, left = k // columns * h, k % columns * w
        expected = z[:, :, top : top + h, left : left + w].permute(0, 2, 3, 1)
        assert torch.equal(cells[:, k], expected.flatten(1))
    assert torch.equal(tokenizer.cells_to_map(cells), z)


def test_token_grid() -> None:
    grids = [token_grid(k) for k in (1, 2, 3, 8, 9, 12, 64)]
    assert grids == [(1, 1), (1, 2), (1, 3), (2, 4), (3, 3), (3, 4), (8, 8)]


@pytest.mark.parametrize("tokens", [1, 4])
def test_encode_and_decode(tokens: int) -> None:
    tokenizer = make(tokens=tokens)
    frames, actions, next_frames = pairs(3)
    codes = tokenizer.encode(frames, actions, next_frames)
    assert codes.shape == (3, tokens) and codes.dtype == torch.int64
    assert codes.min() >= 0 and codes.max() < 16
    decoded = tokenizer.decode(frames, actions, codes)
    assert decoded.shape == frames.shape and decoded.dtype == torch.uint8
    cells = tokenizer.from_code(tokenizer.quantizer.codebook[codes])
    plain = tokenizer.reconstruct(frames, actions, cells).clamp(0, 1)
    assert (decoded.float() / 255 - plain).abs().max() <= 0.5 / 255 + 1e-6


def test_decoded_frames_do_not_wrap_around() -> None:
    tokenizer = make()
    frames, actions, _ = pairs(2)
    for bias, grey in ((9.0, 255), (-9.0, 0)):
        torch.nn.init.constant_(tokenizer.decoder[-1].bias, bias)
        decoded = tokenizer.decode(frames, actions, torch.zeros(2, 4, dtype=torch.int64))
        assert (decoded == grey).all()


def test_all_inputs_are_seen() -> None:
    tokenizer = make()
    frames, _, next_frames = pairs(1)
    a, b = torch.tensor([[0, 2]]), torch.tensor([[0, 1]])  # the second factor too
    z = tokenizer.encode_map(frames, a, next_frames)
    inverted = 255 - frames
    others = (inverted, a, next_frames), (frames, b, next_frames), (frames, a, 255 - next_frames)
    for other in others:
        assert not torch.allclose(z, tokenizer.encode_map(*other))
    torch.nn.init.normal_(tokenizer.quantizer.codebook)
    cells = tokenizer.embed(torch.zeros(1, 4, dtype=torch.int64))
    decoded = tokenizer.reconstruct(frames, a, cells)
    for other in [(inverted, a, cells), (frames, b, cells), (frames, a, -cells)]:
        assert not torch.allclose(decoded, tokenizer.reconstruct(*other))


def test_the_loss_against_a_loop_over_real_transitions() -> None:
    tokenizer, segment = make(l1=0.3, l2=0.7, max_error_weight=0.2), padded_segment(6)
    losses = tokenizer.loss(segment)
    errors, distances = [], []
    for b in range(3):
        for t in range(5):
            before, following = segment[b : b + 1, t : t + 2], segment.frames[b, t + 1 : t + 2]
            z = tokenizer.vectors(*transitions(before))
            codes = tokenizer.quantizer.codebook[tokenizer.encode(*transitions(before))]
            distances.append((z / z.norm(dim=-1, keepdim=True) - codes).square().mean().item())
            if segment.mask[b, t]:
                frame, action, _ = transitions(before)
                image = tokenizer.reconstruct(frame, action, tokenizer.from_code(codes))
                errors.append((image - following / 255).abs().double())
    mean = lambda terms: sum(terms).item() / len(errors)
    expected = {
        "reconstruction_l1": 0.3 * mean(e.mean() for e in errors),
        "reconstruction_l2": 0.7 * mean((e**2).mean() for e in errors),
        "reconstruction_max": 0.2 * mean((e**2).max() for e in errors),
        # Of every transition, padded ones too.
        "commitment": 0.02 * sum(distances) / len(distances),
    }
    expected["loss"] = sum(expected.values())
    assert floats(losses) == pytest.approx(expected, rel=1e-4)


def test_in_time_the_decoder_learns_from_what_it_decoded_itself() -> None:
    """Pushforward: after `pushforward_after` updates the decoder gets its own last frame.

    From the second frame on, but not across padding; the encoder sees real frames throughout.
    """
    only_l2 = {"l1": 0.0, "l2": 1.0, "max_error_weight": 0.0}
    tokenizer, quiet = make(**only_l2, pushforward_after=2), make(**only_l2)
    segment = padded_segment(6)
    l2 = lambda model: model.loss(segment)["reconstruction_l2"]
    for _ in range(2):
        assert l2(tokenizer.train()) == l2(quiet.train())
    tokenizer.eval()
    tokens, errors = tokenizer.tokens_of(segment), []
    for b in range(3):
        frame = segment.frames[b, :1]
        for t in range(5):
            action, token = segment.actions[b, t : t + 1], tokens[b, t : t + 1]
            following = segment.frames[b, t + 1 : t + 2]
            if segment.mask[b, t]:
                decoded = tokenizer.reconstruct(frame, action, tokenizer.embed(token))
                errors.append((decoded - following / 255).square().mean().item())
            frame = tokenizer.decode(frame, action, token) if segment.mask[b, t] else following
    assert l2(tokenizer).item() == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    assert l2(tokenizer) != l2(quiet.eval())
    assert tokenizer.updates == 2  # to evaluate is no update


def test_embeddings_are_as_loud_as_asked() -> None:
    """Those of actions and codes, and nothing else."""
    usual, loud = make(), make(embedding_std=1.0)
    for name, weight in usual.named_parameters():
        heard = name in ("from_code.weight", "encoder_action.weight", "decoder_action.weight")
        torch.testing.assert_close(loud.get_parameter(name), weight * 50 if heard else weight)
    assert loud.decoder_action.weight.std().item() == pytest.approx(1, abs=0.1)


def test_errors_of_rare_changes_count_more() -> None:
    """A rare change counts as many times as the steps between two of them.

    At most `change_weighting` times; the mean over real steps is 1.
    """
    tokenizer, segment = make(change_weighting=5.0, l1=1.0), padded_segment(6)
    segment.frames[:, :, :, :4] = 9  # never changes
    tokenizer.changes[4:8], tokenizer.changes[8:] = 0.25, 0.001
    frames, actions, following = transitions(segment)
    real = segment.mask[:, :-1].flatten()
    counts = tokenizer.pixel_weights(frames, following, real).view(-1, 3, SIZE, SIZE)
    assert counts[real].mean() == pytest.approx(1)
    expected = torch.ones(SIZE, SIZE)
    expected[4:8], expected[8:] = 4, 5
    changed = (frames != following).any(dim=1, keepdim=True).expand_as(frames)
    relative = counts / counts[:, :, :4].mean()
    torch.testing.assert_close(relative, torch.where(changed, expected, 1.0))

    cells = tokenizer.embed(tokenizer.tokens_of(segment).flatten(0, 1))
    error = (tokenizer.reconstruct(frames, actions, cells) - following / 255).abs()
    losses = floats(tokenizer.loss(segment))
    for name, power in (("reconstruction_l1", 1), ("reconstruction_l2", 2)):
        mean = (counts * error**power)[real].mean().item()
        assert losses[name] == pytest.approx(mean, rel=1e-4)


def test_how_often_pixels_change_is_learned_in_training_from_real_steps() -> None:
    tokenizer, segment = make(change_weighting=100.0), padded_segment(6)
    segment.frames[:, :, :, 8:] = 9
    segment.frames[0, 0, :, 8:], segment.frames[0, 1, :, 8:] = 3, 5  # padding does not count
    tokenizer.loss(segment)
    assert (tokenizer.changes == 1).all()  # to begin with
    for _ in range(3):
        tokenizer.train().loss(segment)
    assert (tokenizer.changes[:8] > 0.99).all()
    torch.testing.assert_close(tokenizer.changes[8:], torch.full((8, SIZE), 0.99**3))


@pytest.mark.parametrize("changes", [{}, {"change_weighting": 30.0}, {"pushforward_after": 0}])
def test_padding_reaches_nothing_but_the_commitment(changes: dict) -> None:
    """And so, in training mode, the codebook."""
    tokenizer, segment = make(**changes), padded_segment(6)
    if "change_weighting" in changes:
        tokenizer.changes[:] = 0.1
    other = segment.clone()
    other.frames[0, :2] = 7
    other.frames[1, 4:] = 7
    other.actions[~other.mask] = 3
    before, after = tokenizer.loss(segment), tokenizer.loss(other)
    for name in ("reconstruction_l1", "reconstruction_l2", "reconstruction_max"):
        assert before[name] == after[name]
    assert before["commitment"] != after["commitment"]
    real = segment.clone()
    real.frames[1, 3] = 7  # the last observation, which no action follows
    assert tokenizer.loss(real)["reconstruction_l2"] != before["reconstruction_l2"]


def test_every_parameter_learns_from_the_reconstruction() -> None:
    """Those before the quantizer too, straight through it."""
    tokenizer = make().train()
    segment = random_segment(8, 4)
    segment.actions[:] = torch.arange(64).view(8, 4, 2) % ACTIONS
    tokenizer.loss(segment)["reconstruction_l2"].backward()
    assert unlearned(tokenizer) == []


def test_misfits_are_refused() -> None:
    with pytest.raises(BadInput, match="32 tokens do not tile .* 4×4"):
        make(tokens=32)
    with pytest.raises(BadInput, match="3 tokens do not tile"):
        make(tokens=3)
    frame_conv = config_of("delta").tokenizer.conv
    frame_conv.down = [1, 0]
    with pytest.raises(BadInput, match="conv gives 4×4 maps and frame_conv 8×8"):
        make(frame_conv=frame_conv)
    with pytest.raises(BadInput, match="image size 60 is not divisible by 8"):
        DeltaTokenizer(DeltaTokenizerConfig(), replace(SPACES, size=60))


def test_a_residual_decoder_adds_to_the_previous_frame() -> None:
    """A decoder whose output is zero repeats the frame; without `residual` it is black."""
    for residual in (False, True):
        tokenizer = make(residual=residual)
        torch.nn.init.zeros_(tokenizer.decoder[-1].weight)
        torch.nn.init.zeros_(tokenizer.decoder[-1].bias)
        frames = random_segment(2, 3).frames.flatten(0, 1)
        actions, tokens = torch.zeros(6, 2).long(), torch.zeros(6, tokenizer.tokens).long()
        decoded = tokenizer.decode(frames, actions, tokens)
        assert torch.equal(decoded, frames if residual else torch.zeros_like(frames))
