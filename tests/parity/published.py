"""From the state dict of the published Δ-IRIS implementation, and its hyperparameters, to ours."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agent.config import ActorCriticConfig, AgentConfig
from agent.config.networks import ConvConfig, TransformerConfig
from agent.config.policies import CnnLstmPolicyConfig
from agent.config.quantizers import CosineEmaConfig
from agent.config.tokenizers import DeltaTokenizerConfig
from agent.config.world_models import DeltaDynamicsConfig

DATA = Path(__file__).parent / "data"

# Published name -> ours, tried in order; each rule rewrites a part of the name. Structure, which is
# not a weight (attention masks, positions of the heads), has no counterpart.
STRUCTURE = re.compile(r"world_model\.(transformer\.blocks\.\d+\.sa\.mask|head_\w+\.indices)")
RULES = [
    (r"^tokenizer\.encoder_act_emb\.", "tokenizer.encoder_action."),
    (r"^tokenizer\.decoder_act_emb\.", "tokenizer.decoder_action."),
    (r"^tokenizer\.quantizer\.num_codebook_updates$", "tokenizer.quantizer.updates"),
    (r"^tokenizer\.quantizer\.codewords_freqs$", "tokenizer.quantizer.usage"),
    (r"^tokenizer\.quantizer\.pre_quant_proj\.", "tokenizer.to_code."),
    (r"^tokenizer\.quantizer\.post_quant_proj\.", "tokenizer.from_code."),
    (r"^tokenizer\.encoder\.encoder\.", "tokenizer.encoder."),
    (r"^tokenizer\.decoder\.decoder\.", "tokenizer.decoder."),
    (r"^tokenizer\.frame_cnn\.encoder\.", "tokenizer.frame_encoder."),
    (r"^world_model\.frame_cnn\.0\.encoder\.", "dynamics.frame_encoder."),
    (r"^world_model\.frame_cnn\.2\.", "dynamics.frame_norm."),
    (r"^world_model\.act_emb\.", "dynamics.action_embedding."),
    (r"^world_model\.latents_emb\.", "dynamics.token_embedding."),
    (r"^world_model\.transformer\.pos_emb\.", "dynamics.transformer.positions."),
    (r"^world_model\.transformer\.ln\.", "dynamics.transformer.norm."),
    (r"^world_model\.transformer\.blocks\.", "dynamics.transformer.blocks."),
    (r"\.sa\.ln\.", ".norm1."),
    (r"\.sa\.attention\.proj\.", ".attention.out."),
    (r"\.sa\.(query|key|value)\.", r".attention.\1."),
    (r"\.mlp\.ln\.", ".norm2."),
    (r"\.mlp\.mlp\.0\.", ".expand."),
    (r"\.mlp\.mlp\.2\.", ".contract."),
    (r"^world_model\.head_latents\.head_module\.", "dynamics.token_head."),
    (r"^world_model\.head_rewards\.head_module\.", "dynamics.reward_head."),
    (r"^world_model\.head_ends\.head_module\.", "dynamics.end_head."),
    (r"^actor_critic\.model\.", "policy."),
    (r"^actor_critic\.target_model\.", "target_policy."),
    (r"^(policy|target_policy)\.cnn\.0\.encoder\.", r"\1.encoder."),
    (r"\.actor_linear\.", ".actor."),
    (r"\.critic_linear\.", ".critic."),
    (r"\.f\.0\.", ".norm1."),
    (r"\.f\.2\.", ".conv1."),
    (r"\.f\.3\.", ".norm2."),
    (r"\.f\.5\.", ".conv2."),
    (r"\.skip_projection\.", ".skip."),
    (r"(\.encoder|frame_encoder)\.(\d+)\.conv\.", r"\1.\2."),
    (r"\.decoder\.(\d+)\.conv\.", r".decoder.\1.1."),
]


def described(name: str) -> dict[str, Any]:
    """What data/NAME.json tells of a published model: params, state_dict, num_actions."""
    return json.loads((DATA / f"{name}.json").read_text())


def our_state_dict(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the published layout -> that of our `Agent`, strict on both sides."""
    ours: dict[str, Tensor] = {}
    for name, tensor in published.items():
        if STRUCTURE.fullmatch(name):
            continue
        for pattern, replacement in RULES:
            name = re.sub(pattern, replacement, name)
        ours[name] = tensor
    for name in [n for n in ours if ".attention.query." in n]:  # parts of one of ours
        parts = [ours.pop(name.replace(".query.", f".{x}.")) for x in ("query", "key", "value")]
        ours[name.replace(".query.", ".query_key_value.")] = torch.cat(parts)
    return ours


def _conv(published: Mapping[str, Any]) -> ConvConfig:
    mult, down = list(published["mult"]), list(published["down"])
    return ConvConfig(base=published["num_channels"], mult=mult, down=down)


def our_config(params: Mapping[str, Any]) -> AgentConfig:
    """The published hyperparameters ("params" of the JSON files) -> our config."""
    tokenizer, world_model, actor_critic = map(
        params.get, ("tokenizer", "world_model", "actor_critic")
    )
    transformer = world_model["transformer_config"]
    policy = actor_critic["model"]["frame_encoder_config"]
    return AgentConfig(
        tokenizer=DeltaTokenizerConfig(
            conv=_conv(tokenizer["encoder_config"]),
            frame_conv=_conv(tokenizer["frame_cnn_config"]),
            quantizer=CosineEmaConfig(
                size=tokenizer["codebook_size"],
                dim=tokenizer["codebook_dim"],
                revival_updates=tokenizer["max_codebook_updates_with_revival"],
            ),
            tokens=tokenizer["num_tokens"],
            latent=tokenizer["encoder_config"]["latent_dim"],
            frame_latent=tokenizer["frame_cnn_config"]["latent_dim"],
            action_channels=tokenizer["decoder_act_channels"],
        ),
        dynamics=DeltaDynamicsConfig(
            conv=_conv(world_model["frame_cnn_config"]),
            transformer=TransformerConfig(
                layers=transformer["num_layers"],
                heads=transformer["num_heads"],
                width=transformer["embed_dim"],
            ),
            context=transformer["max_blocks"],
            reward="two_hot" if world_model["two_hot_rews"] else "sign",
            tokens_weight=world_model["latents_weight"],
            reward_weight=world_model["rewards_weight"],
            end_weight=world_model["ends_weight"],
        ),
        policy=CnnLstmPolicyConfig(
            conv=_conv(policy),
            latent=policy["latent_dim"],
            value="two_hot" if actor_critic["two_hot_rets"] else "scalar",
        ),
        actor_critic=ActorCriticConfig(
            burn_in=actor_critic["burn_in_length"],
            horizon=actor_critic["imagination_horizon"],
            discount=actor_critic["gamma"],
            lambda_=actor_critic["lambda_"],
            entropy_weight=actor_critic["entropy_weight"],
        ),
    )
