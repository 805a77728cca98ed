"""Tiny models of transformers that generate, with logits far enough apart for token-for-token comparisons."""

import logging
from typing import Any

import torch
from torch import Tensor

VOCAB = 48
_LLAMA = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": VOCAB, "max_position_embeddings": 64,
}  # fmt: skip
_GPT2 = {"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": VOCAB, "n_positions": 64}

# Per family: the config class and its settings.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", _GPT2),
    "opt": ("OPTConfig", {"num_hidden_layers": 2, "hidden_size": 16, "ffn_dim": 32, "num_attention_heads": 2,
                          "vocab_size": VOCAB, "max_position_embeddings": 64, "word_embed_proj_dim": 16}),
    "bloom": ("BloomConfig", {"n_layer": 2, "hidden_size": 16, "n_head": 2, "vocab_size": VOCAB}),
    "gpt_neo": ("GPTNeoConfig", {"num_layers": 2, "hidden_size": 16, "num_heads": 2, "vocab_size": VOCAB,
                                 "max_position_embeddings": 64, "attention_types": [[["global", "local"], 1]],
                                 "window_size": 4}),
    "codegen": ("CodeGenConfig", {**_GPT2, "n_embd": 32, "n_head": 4, "rotary_dim": 4}),
    "llama": ("LlamaConfig", _LLAMA),
    "mistral": ("MistralConfig", {**_LLAMA, "sliding_window": 8}),  # shorter than what is generated
    "qwen3": ("Qwen3Config", {**_LLAMA, "head_dim": 4}),
    "mixtral": ("MixtralConfig", {**_LLAMA, "num_local_experts": 4}),
    "phi": ("PhiConfig", _LLAMA),
    "gpt_neox": ("GPTNeoXConfig", _LLAMA),
    "falcon": ("FalconConfig", {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2,
                                "vocab_size": VOCAB}),
    "t5": ("T5Config", {"num_layers": 2, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "vocab_size": VOCAB,
                        "decoder_start_token_id": 2}),
    "bart": ("BartConfig", {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32,
                            "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
                            "vocab_size": VOCAB, "max_position_embeddings": 64, "decoder_start_token_id": 2}),
}  # fmt: skip


def build(family: str) -> Any:
    """A model of a family with random weights that do not change from run to run."""
    logging.getLogger("transformers").setLevel(logging.CRITICAL)  # it finds these configs odd
    import transformers

    name, settings = FAMILIES[family]
    config = getattr(transformers, name)(**settings)
    kind = "Seq2SeqLM" if config.is_encoder_decoder else "CausalLM"
    torch.manual_seed(0)
    model = getattr(transformers, f"AutoModelFor{kind}").from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 2 / weight.shape[-1] ** 0.5)
    settings = model.generation_config
    settings.bos_token_id, settings.eos_token_id, settings.pad_token_id = None, None, 0
    return model


def prompts(model: Any, rows: int = 3) -> dict[str, Tensor]:
    """Prompts of different lengths, padded as the kind of model wants it."""
    ids = torch.randint(3, VOCAB, (rows, 6), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    mask[-1, :1] = 0
    if model.config.is_encoder_decoder:
        mask = mask.flip(1)
    return {"input_ids": ids * mask, "attention_mask": mask}


def traced_call(model: Any) -> dict[str, Tensor]:
    """A call of the model to trace."""
    call = prompts(model)
    return {**call, "decoder_input_ids": call["input_ids"][:, :4]} if model.config.is_encoder_decoder else call
