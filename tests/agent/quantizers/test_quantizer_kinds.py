"""The other quantizers: one interface, and each kind against its paper's equations."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from agent.config.quantizers import (
    CosineEmaConfig,
    FsqConfig,
    QuantizerConfig,
    VqConfig,
    VqEmaConfig,
)
from agent.quantizers.base import Quantizer
from agent.quantizers.codebooks import rotate
from agent.quantizers.make import make_quantizer
from agent.runs.api import configure
from envs.errors import BadInput
from tests.agent.quantizers.test_quantizers import noise
from tests.tiny import experiment

ALL = {
    "cosine_ema": CosineEmaConfig(size=16, dim=4),
    "cosine_ema, rotation": CosineEmaConfig(size=16, dim=4, gradient="rotation"),
    "cosine_ema, product": CosineEmaConfig(size=16, dim=4, codebooks=2, revival_updates=None),
    "vq": VqConfig(size=16, dim=4),
    "vq, rotation, product": VqConfig(size=16, dim=4, gradient="rotation", codebooks=2),
    "vq_ema": VqEmaConfig(size=16, dim=4),
    "fsq": FsqConfig(levels=[4, 2, 2, 3]),
}


def make(config: QuantizerConfig, seed: int = 0) -> Quantizer:
    """In training mode; its codes, where it keeps them, are about as large as `noise`."""
    torch.manual_seed(seed)
    quantizer = make_quantizer(config)
    for name, value in quantizer.state_dict().items():
        if name.endswith("codebook"):
            value.copy_(noise(*value.shape, seed=seed))
    return quantizer


@pytest.fixture(params=ALL)
def quantizer(request) -> Quantizer:
    return make(ALL[request.param])


class TestInterface:
    def test_what_is_no_number_does_not_stay(self, quantizer: Quantizer) -> None:
        z = noise(5, 3, quantizer.config.vector_dim)
        z[2, 1] = math.nan
        quantizer(z)
        assert all(value.isfinite().all() for value in quantizer.state_dict().values())

    def test_vectors_tokens_and_back(self, quantizer: Quantizer) -> None:
        quantizer.eval()
        z = noise(3, 5, 4, seed=1)
        output = quantizer(z)
        assert (
            output.vectors.shape == z.shape
            and output.tokens.shape == (3, 5)
            and output.commitment.shape == ()
        )
        assert (
            output.tokens.dtype == torch.int64
            and output.vectors.dtype == output.commitment.dtype == torch.float32
        )
        assert 0 <= output.tokens.min() and output.tokens.max() < quantizer.config.num_codes
        assert torch.equal(quantizer.nearest(z), output.tokens)
        torch.testing.assert_close(quantizer.lookup(output.tokens), output.vectors)
        everything = quantizer.lookup(torch.arange(quantizer.config.num_codes))
        assert everything.shape == (quantizer.config.num_codes, quantizer.config.vector_dim)
        assert len(everything.unique(dim=0)) == quantizer.config.num_codes

    def test_float32_under_autocast(self, quantizer: Quantizer) -> None:
        quantizer.eval()
        z = noise(200, 4, seed=1).bfloat16()
        plain = quantizer(z.float())
        with torch.autocast("cpu", torch.bfloat16):
            output, nearest = quantizer(z), quantizer.nearest(z)
        assert all(torch.equal(a, b) for a, b in zip(output, plain, strict=True)) and torch.equal(
            nearest, plain.tokens
        )

    def test_nothing_moves_in_evaluation_mode_and_use_is_counted_in_training(
        self, quantizer: Quantizer
    ) -> None:
        before = copy.deepcopy(quantizer.state_dict())
        z = noise(50, 4, seed=1)
        tokens = quantizer.eval()(z).tokens
        assert all(
            torch.equal(value, before[name]) for name, value in quantizer.state_dict().items()
        )
        quantizer.train()(z)
        use = torch.bincount(tokens, minlength=quantizer.config.num_codes) / 50
        torch.testing.assert_close(quantizer.usage, 0.98 * before["usage"] + 0.02 * use)
        assert (
            quantizer.usage_entropy() < math.log2(quantizer.config.num_codes)
            and quantizer.codes_in_use() > 8
        )

    def test_the_input_learns(self, quantizer: Quantizer) -> None:
        z = noise(50, 4, seed=1).requires_grad_()
        (quantizer(z).vectors * noise(50, 4, seed=2)).sum().backward()
        assert z.grad.isfinite().all() and z.grad.any(dim=0).all()

    def test_a_recorded_step_replays_bit_equal(self, quantizer: Quantizer) -> None:
        """Recorded once, it replays on other inputs without the Python.

        tests/agent/training/test_learner.py has whole updates.
        """
        twin = copy.deepcopy(quantizer)

        def step(quantizer: Quantizer, z: Tensor) -> list[Tensor]:
            z = z.detach().requires_grad_()
            output = quantizer(z)
            return [
                *output,
                torch.autograd.grad(output.vectors.square().sum() + output.commitment, z)[0],
            ]

        inputs = [noise(50, 4, seed=seed) for seed in range(1, 6)]
        torch.manual_seed(7)
        recorded = make_fx(partial(step, quantizer))(inputs[0])
        replayed = [recorded(z) for z in inputs[1:]]
        torch.manual_seed(7)
        eager = [step(twin, z) for z in inputs][1:]
        assert all(
            torch.equal(a, b)
            for ours, theirs in zip(replayed, eager, strict=True)
            for a, b in zip(ours, theirs, strict=True)
        )
        assert all(
            torch.equal(value, twin.state_dict()[name])
            for name, value in quantizer.state_dict().items()
        )

    def test_the_compiler_takes_it_whole(self, quantizer: Quantizer) -> None:
        """No graph break, and the same numbers."""
        torch.manual_seed(0)
        expected = copy.deepcopy(quantizer)(noise(50, 4, seed=1))
        torch._dynamo.reset()
        torch.manual_seed(0)
        output = torch.compile(quantizer, fullgraph=True, dynamic=False, backend="eager")(
            noise(50, 4, seed=1)
        )
        assert all(torch.equal(a, b) for a, b in zip(output, expected, strict=True))


class TestVectorQuantizer:
    def test_nearest_by_distance(self) -> None:
        quantizer, z = make(ALL["vq"]), noise(50, 4, seed=1)
        assert torch.equal(
            quantizer.nearest(z),
            torch.cdist(z.double(), quantizer.codebook.double()).argmin(dim=-1),
        )

    def test_gradients(self) -> None:
        """The input gets the straight-through gradient and β's share; the codes the distance's."""
        quantizer, z, gradient = (
            make(replace(ALL["vq"], commitment=0.3)),
            noise(50, 4, seed=1),
            noise(50, 4, seed=2),
        )
        z.requires_grad_()
        output = quantizer(z)
        distance = (z - quantizer.codebook[output.tokens]).detach()
        torch.testing.assert_close(output.commitment, 1.3 * distance.square().mean())
        ((output.vectors * gradient).sum() + output.commitment).backward()
        torch.testing.assert_close(z.grad, gradient + 0.3 * 2 * distance / z.numel())
        expected = torch.zeros_like(quantizer.codebook).index_add_(
            0, output.tokens, -2 * distance / z.numel()
        )
        torch.testing.assert_close(quantizer.codebook.grad, expected)


class TestAveragingVectorQuantizer:
    def test_two_updates_against_a_loop_over_codes(self) -> None:
        quantizer = make(replace(ALL["vq_ema"], decay=0.9))
        counts, sums, codes = [0.0] * 16, torch.zeros(16, 4).double(), quantizer.codebook.double()
        for seed in (1, 2):
            z = noise(3, 7, 4, seed=seed)
            tokens = torch.cdist(z.double().flatten(0, 1), codes).argmin(dim=-1)
            assert len(tokens.unique()) < 16
            quantizer(z)
            for code in range(16):
                chosen = z.double().flatten(0, 1)[tokens == code]
                counts[code] = 0.9 * counts[code] + 0.1 * len(chosen)
                sums[code] = 0.9 * sums[code] + 0.1 * chosen.sum(dim=0)
                if counts[code] > 0:
                    codes[code] = sums[code] / counts[code]
            torch.testing.assert_close(quantizer.codebook.double(), codes, rtol=0, atol=1e-5)

    def test_codes_out_of_use_stay_for_ever(self) -> None:
        quantizer = make(ALL["vq_ema"])
        quantizer(noise(200, 4, seed=1))
        before = quantizer.codebook.clone()
        quantizer.counts.mul_(1e-30)
        quantizer.sums.mul_(1e-30)
        for _ in range(3):
            tokens = quantizer(before[:1].expand(5, 4).contiguous()).tokens
        assert (tokens == 0).all()
        torch.testing.assert_close(quantizer.codebook, before)


class TestFiniteScalarQuantizer:
    def test_levels_of_a_dimension(self) -> None:
        """Odd: symmetric. Even: one more level below zero. Both have zero and saturate."""
        quantizer = make(FsqConfig(levels=[5, 4, 2]))
        z = torch.linspace(-9, 9, 999)[:, None].expand(-1, 3).contiguous()
        levels = [quantizer(z).vectors[:, i].unique().tolist() for i in range(3)]
        assert levels == [[-1, -0.5, 0, 0.5, 1], [-1, -0.5, 0, 0.5], [-1, 0]]
        assert (quantizer(torch.zeros(1, 3)).vectors == 0).all()
        # tanh of 1 is 0.76: of five levels that is 1.53 from the middle, which rounds to the
        # second; 0.9 gives 1.43.
        assert quantizer(torch.tensor([[1.0, 0, 0], [0.9, 0, 0]])).vectors[:, 0].tolist() == [
            1,
            0.5,
        ]

    def test_a_token_for_every_combination(self) -> None:
        """Its first dimension counts fastest."""
        quantizer = make(FsqConfig(levels=[3, 4]))
        grid = [(a / 1, b / 2) for b in (-2, -1, 0, 1) for a in (-1, 0, 1)]
        assert [tuple(code) for code in quantizer.lookup(torch.arange(12)).tolist()] == grid
        # Halfway to the next level there is no doubt; undo the bounding and quantise.
        bounded = quantizer.lookup(torch.arange(12)) * quantizer.middle
        z = torch.atanh((bounded + quantizer.offset) / quantizer.reach) - quantizer.shift
        assert torch.equal(quantizer.nearest(z), torch.arange(12))

    def test_the_gradient_is_that_of_the_bounding(self) -> None:
        quantizer, z, gradient = (
            make(ALL["fsq"]),
            noise(6, 4, seed=1).requires_grad_(),
            noise(6, 4, seed=2),
        )
        output = quantizer(z)
        output.vectors.backward(gradient)
        slope = quantizer.reach * (1 - torch.tanh(z + quantizer.shift) ** 2) / quantizer.middle
        torch.testing.assert_close(z.grad, gradient * slope.detach())
        assert output.commitment == 0 and not list(quantizer.parameters())

    def test_what_is_not_a_number_is_a_token_nevertheless(self) -> None:
        """Else it would index out of the dynamics' embedding before the loss is found to be NaN."""
        tokens = make(ALL["fsq"]).nearest(torch.full((3, 4), math.nan))
        assert (0 <= tokens).all() and (tokens < 48).all()


class TestRotation:
    def test_values_and_gradient_against_a_rotation_matrix(self) -> None:
        """A rotation by the angle between z and its code, times |q| / |z|.

        In the plane of both by Rodrigues' formula; across it the identity.
        """
        z, q, gradient = (noise(20, 4, seed=seed).double() for seed in (1, 2, 3))
        z.requires_grad_()
        rotated = rotate(z, q)
        torch.testing.assert_close(rotated, q)
        rotated.backward(gradient)
        for i in range(20):
            a = z[i].detach() / z[i].detach().norm()
            along = q[i] @ a
            b = F.normalize(q[i] - along * a, dim=0)
            angle = torch.atan2(q[i] @ b, along)
            plane = torch.outer(b, a) - torch.outer(a, b)
            across = torch.eye(4).double() - torch.outer(a, a) - torch.outer(b, b)
            matrix = (
                across + angle.cos() * (torch.outer(a, a) + torch.outer(b, b)) + angle.sin() * plane
            )
            expected = q[i].norm() / z[i].detach().norm() * matrix.T @ gradient[i]
            torch.testing.assert_close(z.grad[i], expected)

    def test_opposite_and_zero_vectors_stay_finite(self) -> None:
        z = torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 1.0]]).requires_grad_()
        rotated = rotate(z, torch.tensor([[-1.0, -2.0], [1.0, 0.0], [0.0, 0.0]]))
        torch.testing.assert_close(rotated[0], torch.tensor([-1.0, -2.0]))
        rotated.sum().backward()
        assert rotated.isfinite().all() and z.grad.isfinite().all()


class TestProduct:
    def test_each_codebook_codes_its_share(self) -> None:
        config = CosineEmaConfig(size=27, dim=6, codebooks=3)
        quantizer, z = make(config), noise(50, 6, seed=1)
        parts = copy.deepcopy(quantizer.parts)
        assert all(part.codebook.shape == (3, 2) for part in parts)
        output = quantizer(z)
        alone = [part(own) for part, own in zip(parts, z.split(2, dim=-1), strict=True)]
        assert torch.equal(output.vectors, torch.cat([part.vectors for part in alone], dim=-1))
        assert torch.equal(output.tokens, sum(3**i * part.tokens for i, part in enumerate(alone)))
        torch.testing.assert_close(output.commitment, sum(part.commitment for part in alone) / 3)
        for ours, theirs in zip(quantizer.parts, parts, strict=True):
            assert torch.equal(ours.codebook, theirs.codebook) and torch.equal(
                ours.usage, theirs.usage
            )

    def test_misfits_are_refused(self) -> None:
        with pytest.raises(
            BadInput, match="codebooks=2 was given with size=1000 and dim=64; .* 1024 say"
        ):
            make_quantizer(CosineEmaConfig(size=1000, codebooks=2))
        with pytest.raises(BadInput, match="multiple of 2 as dim"):
            make_quantizer(CosineEmaConfig(size=1024, dim=33, codebooks=2))


class TestConfig:
    def test_what_is_not_known(self) -> None:
        with pytest.raises(
            BadInput, match="kind=vqvae is not known; choose one of cosine_ema, vq, vq_ema, fsq"
        ):
            configure("agent.tokenizer.quantizer.kind=vqvae")
        with pytest.raises(BadInput, match="gradient=gumbel .* straight_through, rotation"):
            VqConfig(gradient="gumbel")

    @pytest.mark.parametrize(
        ("kind", "given"),
        [
            ("cosine_ema", "levels=[3]"),
            ("vq", "decay=0.9"),
            ("vq_ema", "revival_updates=null"),
            ("fsq", "size=256"),
            ("fsq", "codebooks=2"),
        ],
    )
    def test_what_a_kind_does_not_have(self, kind: str, given: str) -> None:
        key = f"agent.tokenizer.quantizer.{given.partition('=')[0]}"
        with pytest.raises(BadInput, match=f"^{key} belongs to quantizer="):
            configure(f"quantizer={kind}", f"agent.tokenizer.quantizer.{given}")

    @pytest.mark.parametrize(
        "name",
        [
            "cosine_ema",
            "cosine_ema_rotation",
            "cosine_ema_product",
            "vq",
            "vq_rotation",
            "vq_ema",
            "fsq",
        ],
    )
    def test_every_file_goes_with_an_experiment(self, name: str) -> None:
        config = experiment("crafter_quick", f"quantizer={name}").agent.tokenizer.quantizer
        assert name.startswith(config.kind) and make_quantizer(config).usage.shape == (
            config.num_codes,
        )
