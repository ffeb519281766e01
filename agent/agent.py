"""The agent: its networks, built from a configuration, and what it does in an environment."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from agent import advantages
from agent.actor_critic import policy_loss, update_target
from agent.config.agent import AgentConfig
from agent.imagination import act
from agent.nets.heads import Select, gumbel_max
from agent.policies.base import Policy
from agent.policies.lstm import CnnLstmPolicy, CodeLstmPolicy
from agent.policies.vit import VitPolicy
from agent.segment import Segment
from agent.tokenizers.base import Tokenizer
from agent.tokenizers.delta import DeltaTokenizer
from agent.tokenizers.delta_light import DeltaLightTokenizer
from agent.tokenizers.frame import FrameTokenizer
from agent.world_models.base import Dynamics, World
from agent.world_models.delta import DeltaDynamics, DeltaWorld
from agent.world_models.delta_light import DeltaLightDynamics, DeltaLightWorld
from agent.world_models.frame import FrameDynamics, FrameWorld
from envs.errors import BadInput
from envs.spaces import Spaces

# What each kind of a part is; its configuration: KINDS in agent/config/agent.py.
TOKENIZERS: dict[str, type[Tokenizer]] = {
    "delta": DeltaTokenizer,
    "delta_light": DeltaLightTokenizer,
    "frame": FrameTokenizer,
}
WORLDS: dict[str, tuple[type[Dynamics], type[World]]] = {
    "delta": (DeltaDynamics, DeltaWorld),
    "delta_light": (DeltaLightDynamics, DeltaLightWorld),
    "frame": (FrameDynamics, FrameWorld),
}
POLICIES: dict[str, type[Policy]] = {
    "cnn_lstm": CnnLstmPolicy,
    "code_lstm": CodeLstmPolicy,
    "vit": VitPolicy,
}


class Agent(nn.Module):
    """Tokenizer, dynamics, policy and the policy's target network, for an environment's spaces.

    Raises:
        BadInput: If sizes or parts do not fit together.
    """

    def __init__(self, config: AgentConfig, spaces: Spaces) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.spaces = spaces
        make_dynamics, self._make_world = WORLDS[config.dynamics.kind]
        make_policy = POLICIES[config.policy.kind]
        self.tokenizer = TOKENIZERS[config.tokenizer.kind](config.tokenizer, spaces)
        self.dynamics = make_dynamics(config.dynamics, spaces, self.tokenizer)
        self.reads = make_policy.reads
        shape = spaces.frame_shape if self.reads == "frames" else self.world.code_shape
        self.policy = make_policy(config.policy, shape, spaces.actions)
        self.target_policy = copy.deepcopy(self.policy).requires_grad_(False)
        if config.actor_critic.entropy_half_life is not None:
            self.register_buffer("policy_updates", torch.tensor(0))

    @property
    def world(self) -> World:
        """The learned world, to imagine in."""
        return self._make_world(self.tokenizer, self.dynamics, self.reads)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.policy.actor.weight.device

    def tokenizer_loss(self, segment: Segment) -> dict[str, Tensor]:
        """What the tokenizer learns from a segment [B, T]."""
        return self.tokenizer.loss(segment)

    def dynamics_loss(self, segment: Segment) -> dict[str, Tensor]:
        """What the dynamics learns from a segment [B, T]."""
        return self.world.dynamics_loss(segment)

    def policy_loss(self, segment: Segment) -> dict[str, Tensor]:
        """What actor and critic learn from imagination after a segment [B, burn-in]."""
        config, weight = self.config.actor_critic, None
        if (half_life := config.entropy_half_life) is not None:
            weight = advantages.faded(config.entropy_weight, self.policy_updates, half_life)
        scale = advantages.centered if config.center else None
        parts = self.policy, self.target_policy, self.world
        return policy_loss(*parts, segment, config, entropy_weight=weight, scale=scale)

    def update_target(self) -> None:
        """Move the target network a step towards the policy, once an update."""
        update_target(self.target_policy, self.policy, self.config.actor_critic.target_decay)
        if self.config.actor_critic.entropy_half_life is not None:
            self.policy_updates.add_(1)

    @torch.no_grad()
    def act(
        self, frames: Tensor, state: Tensor, select: Select = gumbel_max
    ) -> tuple[Tensor, Tensor]:
        """Choose actions.

        Args:
            frames: [N, C, H, W] uint8.
            state: [N, state], of `policy.initial_state` at an episode's start.
            select: Chooses actions from their logits.

        Returns:
            Actions [N, F] int64, and the state after.
        """
        return act(self.policy, self.world.observe(frames), state, select)

    def num_parameters(self) -> dict[str, int]:
        """Per network; the policy counts with its target network, as in the paper."""
        counts = {}
        for name, module in self.named_children():
            counts[name] = sum(p.numel() for p in module.parameters())
        counts["policy"] += counts.pop("target_policy")
        return counts


def sketch_agent(config: AgentConfig, spaces: Spaces) -> Agent:
    """The agent without its weights' memory. Raises BadInput if sizes do not fit together."""
    try:
        with torch.device("meta"):
            return Agent(config, spaces)
    except (RuntimeError, TypeError) as error:  # numbers that torch cannot count with
        reason = str(error).splitlines()[0]
        raise BadInput(f"No network can be made of these sizes ({reason}); lower them.") from error
