"""The agent: its networks built from a config, and what it does in an environment."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from agent.actor_critic import ActorCriticConfig, policy_loss, update_target
from agent.imagination import act
from agent.nets.heads import Select, gumbel_max
from agent.policies.cnn_lstm import CnnLstmPolicy, CnnLstmPolicyConfig
from agent.segment import Segment
from agent.tokenizers.delta import DeltaTokenizer, DeltaTokenizerConfig
from agent.world_models.delta import DeltaDynamics, DeltaDynamicsConfig, DeltaWorld
from envs.errors import BadInput
from envs.spaces import Spaces


@dataclass
class AgentConfig:
    tokenizer: DeltaTokenizerConfig = field(default_factory=DeltaTokenizerConfig)
    dynamics: DeltaDynamicsConfig = field(default_factory=DeltaDynamicsConfig)
    policy: CnnLstmPolicyConfig = field(default_factory=CnnLstmPolicyConfig)
    actor_critic: ActorCriticConfig = field(default_factory=ActorCriticConfig)

    def check(self) -> None:
        """Raises BadInput if burn-in and horizon do not fit the world model's context."""
        needed = self.actor_critic.burn_in - 1 + self.actor_critic.horizon
        if self.actor_critic.burn_in < 1 or self.actor_critic.horizon < 1:
            raise BadInput(
                f"burn_in={self.actor_critic.burn_in} and horizon={self.actor_critic.horizon} were given; "
                "both must be at least 1."
            )
        if needed > self.dynamics.context:
            raise BadInput(
                f"burn_in={self.actor_critic.burn_in} and horizon={self.actor_critic.horizon} need a context of "
                f"{needed} steps and agent.dynamics.context is {self.dynamics.context}; lengthen it or shorten them."
            )


class Agent(nn.Module):
    """Tokenizer, dynamics, policy and the policy's target copy, for an environment's spaces."""

    def __init__(self, config: AgentConfig, spaces: Spaces) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.spaces = spaces
        self.tokenizer = DeltaTokenizer(config.tokenizer, spaces)
        self.dynamics = DeltaDynamics(
            config.dynamics, spaces, config.tokenizer.quantizer.num_codes, config.tokenizer.tokens
        )
        self.policy = CnnLstmPolicy(config.policy, spaces)
        self.target_policy = copy.deepcopy(self.policy).requires_grad_(False)

    @property
    def world(self) -> DeltaWorld:
        """The learned world, to imagine in."""
        return DeltaWorld(self.tokenizer, self.dynamics)

    @property
    def device(self) -> torch.device:
        return self.policy.actor.weight.device

    def tokenizer_loss(self, segment: Segment) -> dict[str, Tensor]:
        """What the tokenizer learns from a segment [B, T]."""
        return self.tokenizer.loss(segment)

    def dynamics_loss(self, segment: Segment) -> dict[str, Tensor]:
        """What the dynamics learns from a segment [B, T]."""
        frames, next_frames = segment.frames[:, :-1].flatten(0, 1), segment.frames[:, 1:].flatten(0, 1)
        with torch.no_grad():
            tokens = self.tokenizer.encode(frames, segment.actions[:, :-1].flatten(0, 1), next_frames)
        return self.dynamics.loss(segment, tokens.unflatten(0, (segment.frames.shape[0], -1)))

    def policy_loss(self, segment: Segment) -> dict[str, Tensor]:
        """What actor and critic learn from imagination that starts at the end of a segment [B, burn-in]."""
        return policy_loss(self.policy, self.target_policy, self.world, segment, self.config.actor_critic)

    def update_target(self) -> None:
        """Moves the target network a step towards the policy."""
        update_target(self.target_policy, self.policy, self.config.actor_critic.target_decay)

    @torch.no_grad()
    def act(self, frames: Tensor, state: Tensor, select: Select = gumbel_max) -> tuple[Tensor, Tensor]:
        """frames: [N, C, H, W] uint8; state: [N, state], of `policy.initial_state` at an episode's start
        -> actions [N, F] int64, the state after."""
        return act(self.policy, frames, state, select)

    def num_parameters(self) -> dict[str, int]:
        """Per network; the policy counts with its target copy, as in the paper."""
        count = {
            name: sum(p.numel() for p in module.parameters())
            for name, module in self.named_children()
        }
        count["policy"] += count.pop("target_policy")
        return count
