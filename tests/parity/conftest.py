from __future__ import annotations

import json
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from agent.actor_critic import actor_critic_loss
from agent.agent import Agent
from agent.imagination import imagine
from agent.nets.heads import greedy
from agent.segment import Segment
from agent.world_models.delta import DeltaWorld
from envs.spaces import Spaces
from tests.parity.published import our_config, our_state_dict

DATA = Path(__file__).parent / "data"


def formula_weights(layout: dict) -> dict[str, torch.Tensor]:
    """The parity data's weights by formula, for a published state dict's names and shapes."""
    weights = {}
    for name, (shape, dtype) in layout.items():
        if dtype != "float32":
            weights[name] = torch.zeros(shape, dtype=getattr(torch, dtype))
            continue
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        t = (0.05 * generator.standard_normal(shape)).astype(np.float32)
        if name.endswith("codebook"):
            t /= np.linalg.norm(t, axis=1, keepdims=True)
        if name.endswith("codewords_freqs"):
            t[:] = 1 / len(t)
        if name.endswith(".weight") and t.ndim == 1:
            t = 1 + t
        weights[name] = torch.from_numpy(np.asarray(t))
    return weights


def build_agent(description: dict) -> Agent:
    """The agent of a description (tiny.json, official_*.json), with the weights of the formula."""
    agent = Agent(
        our_config(description["params"]),
        Spaces(3, description["params"]["tokenizer"]["image_size"], (description["num_actions"],)),
    )
    agent.load_state_dict(our_state_dict(formula_weights(description["state_dict"])))
    return agent.eval()


class Guided(DeltaWorld):
    """The world; each step starts from the published frame of the step before.

    A pixel between two grey levels goes to one or the other by the order in which a CPU adds, and
    a rollout of an untrained network makes much of it.
    """

    def __init__(self, world: DeltaWorld, frames: torch.Tensor) -> None:
        super().__init__(world.tokenizer, world.dynamics)
        self.guide = iter(frames.to(torch.uint8).unbind(dim=1))
        self.dreamt: list[torch.Tensor] = []  # our own

    def step(self, *arguments):
        imagined, state = super().step(*arguments)
        self.dreamt.append(state.latent.frames)
        return imagined, state._replace(latent=state.latent._replace(frames=next(self.guide)))


# Every NAME.npz in data/ beside a NAME.json is held against ours; more may be put there, of any
# size.
@pytest.fixture(scope="session", params=sorted(path.stem for path in DATA.glob("*.npz")))
def model(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def published(model) -> dict[str, torch.Tensor]:
    """The published arrays by name."""
    with np.load(DATA / f"{model}.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="session")
def ours(model, published) -> SimpleNamespace:
    """What our code computes on the same inputs with the same weights."""
    description = json.loads((DATA / f"{model}.json").read_text())
    agent = build_agent(description)
    ends = published["in/ends"].bool()
    segment = Segment(
        frames=published["in/observations"],
        actions=published["in/actions"].unsqueeze(-1),
        rewards=published["in/rewards"],
        terminated=ends,
        truncated=torch.zeros_like(ends),
        mask=published["in/mask_padding"],
        batch_size=list(ends.shape),
    )
    batch, steps = ends.shape
    tokenizer, dynamics = agent.tokenizer, agent.dynamics
    frames, actions, next_frames = (
        segment.frames[:, :-1],
        segment.actions[:, :-1],
        segment.frames[:, 1:],
    )
    with torch.no_grad():
        z = tokenizer.encode_map(
            frames.flatten(0, 1), actions.flatten(0, 1), next_frames.flatten(0, 1)
        )
        quantized = tokenizer.quantizer(tokenizer.to_code(tokenizer.map_to_cells(z)))
        tokens = quantized.tokens.unflatten(0, (batch, steps - 1))
        full_tokens = torch.nn.functional.pad(tokens, (0, 0, 0, 1))
        dynamics_output = dynamics(segment.frames, segment.actions, full_tokens)
        config = agent.config.actor_critic
        start = segment[:, : int(published["imagine/burn_in"])]
        past = start.frames[:, :-1]
        state, target_state = agent.policy.burn_in(past), agent.target_policy.burn_in(past)
        world = Guided(agent.world, published["imagine/frames"])
        trajectory = imagine(world, agent.policy, start, state, config.horizon, greedy)
        output, _ = agent.policy(trajectory.observations[:, :-1], state)
        target_output, _ = agent.target_policy(trajectory.observations, target_state)
        target_values = agent.policy.value_code.value(target_output.value)
        trained = build_agent(description).tokenizer.train()
        trained.loss(segment)
        return SimpleNamespace(
            agent=agent,
            segment=segment,
            z=z.unflatten(0, (batch, steps - 1)),
            tokens=tokens,
            q=tokenizer.from_code(quantized.vectors).unflatten(0, (batch, steps - 1)),
            embedded=tokenizer.embed(tokens.flatten(0, 1)).unflatten(0, (batch, steps - 1)),
            reconstruction=tokenizer.decode(
                frames.flatten(0, 1), actions.flatten(0, 1), tokens.flatten(0, 1)
            ).unflatten(0, (batch, steps - 1)),
            tokenizer_loss=tokenizer.loss(segment),
            quantizer_after=trained.quantizer,
            frame_embedding=dynamics.embed_frames(segment.frames),
            dynamics=dynamics_output,
            dynamics_loss=dynamics.loss(segment, tokens),
            trajectory=trajectory,
            imagined_frames=torch.stack(world.dreamt, dim=1),
            output=output,
            target_output=target_output,
            target_values=target_values,
            actor_critic_loss=actor_critic_loss(
                agent.policy, output, target_values, trajectory, config
            ),
        )
