"""The agent: its networks built from a config, and what it does in an environment."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from agent.actor_critic import ActorCriticConfig, policy_loss, update_target
from agent.imagination import act
from agent.nets.heads import Select, gumbel_max
from agent.policies.lstm import CnnLstmPolicy, CnnLstmPolicyConfig, CodeLstmPolicy, CodeLstmPolicyConfig
from agent.policies.policy import Policy, PolicyConfig
from agent.policies.vit import VitPolicy, VitPolicyConfig
from agent.segment import Segment
from agent.tokenizers.delta import DeltaTokenizer, DeltaTokenizerConfig
from agent.tokenizers.frame import FrameTokenizer, FrameTokenizerConfig
from agent.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from agent.world_models.delta import DeltaDynamics, DeltaDynamicsConfig, DeltaWorld
from agent.world_models.frame import FrameDynamics, FrameDynamicsConfig, FrameWorld
from agent.world_models.tokens import TokenDynamics, TokenDynamicsConfig, TokenWorld
from envs.errors import BadInput
from envs.spaces import Spaces


# What each part may be, by its configuration: a fourth agent adds a line to these, and a YAML to configs/agent/.
TOKENIZERS: dict[type[TokenizerConfig], type[Tokenizer]] = {
    DeltaTokenizerConfig: DeltaTokenizer, FrameTokenizerConfig: FrameTokenizer
}  # fmt: skip
WORLDS: dict[type[TokenDynamicsConfig], tuple[type[TokenDynamics], type[TokenWorld]]] = {
    DeltaDynamicsConfig: (DeltaDynamics, DeltaWorld), FrameDynamicsConfig: (FrameDynamics, FrameWorld)
}  # fmt: skip
POLICIES: dict[type[PolicyConfig], type[Policy]] = {
    CnnLstmPolicyConfig: CnnLstmPolicy, CodeLstmPolicyConfig: CodeLstmPolicy, VitPolicyConfig: VitPolicy
}  # fmt: skip

# Part -> kind -> its configuration.
KINDS: dict[str, dict[str, type]] = {
    part: {config.kind: config for config in configs}
    for part, configs in (("tokenizer", TOKENIZERS), ("dynamics", WORLDS), ("policy", POLICIES))
}


@dataclass
class AgentConfig:
    """The defaults are those of Δ-IRIS."""

    tokenizer: TokenizerConfig = field(default_factory=DeltaTokenizerConfig)
    dynamics: TokenDynamicsConfig = field(default_factory=DeltaDynamicsConfig)
    policy: PolicyConfig = field(default_factory=CnnLstmPolicyConfig)
    actor_critic: ActorCriticConfig = field(default_factory=ActorCriticConfig)

    def check(self) -> None:
        """Raises BadInput if the parts do not fit together, or burn-in and horizon the world model's context."""
        if self.tokenizer.kind != self.dynamics.kind:
            raise BadInput(
                f"agent/tokenizer={self.tokenizer.kind} and agent/dynamics={self.dynamics.kind} were given; choose the same for both."
            )
        needed = self.dynamics.steps_needed(self.actor_critic.burn_in, self.actor_critic.horizon)
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
        make_dynamics, self._make_world = WORLDS[type(config.dynamics)]
        make_policy = POLICIES[type(config.policy)]
        self.tokenizer = TOKENIZERS[type(config.tokenizer)](config.tokenizer, spaces)
        self.dynamics = make_dynamics(config.dynamics, spaces, self.tokenizer)
        self.reads = make_policy.reads
        shape = spaces.frame_shape if self.reads == "frames" else self.world.code_shape
        self.policy = make_policy(config.policy, shape, spaces.actions)
        self.target_policy = copy.deepcopy(self.policy).requires_grad_(False)
        if config.actor_critic.entropy_half_life is not None:
            self.register_buffer("policy_updates", torch.tensor(0))

    @property
    def world(self) -> TokenWorld:
        """The learned world, to imagine in."""
        return self._make_world(self.tokenizer, self.dynamics, self.reads)

    @property
    def device(self) -> torch.device:
        return self.policy.actor.weight.device

    def tokenizer_loss(self, segment: Segment) -> dict[str, Tensor]:
        """What the tokenizer learns from a segment [B, T]."""
        return self.tokenizer.loss(segment)

    def dynamics_loss(self, segment: Segment) -> dict[str, Tensor]:
        """What the dynamics learns from a segment [B, T]."""
        return self.world.dynamics_loss(segment)

    def policy_loss(self, segment: Segment) -> dict[str, Tensor]:
        """What actor and critic learn from imagination that starts at the end of a segment [B, burn-in]."""
        updates = getattr(self, "policy_updates", 0)
        return policy_loss(self.policy, self.target_policy, self.world, segment, self.config.actor_critic, updates=updates)

    def update_target(self) -> None:
        """Moves the target network a step towards the policy, once an update."""
        update_target(self.target_policy, self.policy, self.config.actor_critic.target_decay)
        if self.config.actor_critic.entropy_half_life is not None:
            self.policy_updates.add_(1)

    @torch.no_grad()
    def act(self, frames: Tensor, state: Tensor, select: Select = gumbel_max) -> tuple[Tensor, Tensor]:
        """frames: [N, C, H, W] uint8; state: [N, state], of `policy.initial_state` at an episode's start
        -> actions [N, F] int64, the state after."""
        return act(self.policy, self.world.observe(frames), state, select)

    def num_parameters(self) -> dict[str, int]:
        """Per network; the policy counts with its target copy, as in the paper."""
        count = {
            name: sum(p.numel() for p in module.parameters())
            for name, module in self.named_children()
        }
        count["policy"] += count.pop("target_policy")
        return count


def sketch_agent(config: AgentConfig, spaces: Spaces) -> Agent:
    """The agent without its weights' memory. Raises BadInput if its sizes do not fit together."""
    try:
        with torch.device("meta"):
            return Agent(config, spaces)
    except (RuntimeError, TypeError) as error:  # numbers that torch cannot count with
        raise BadInput(f"No network can be made of these sizes ({str(error).splitlines()[0]}); lower them.") from error
