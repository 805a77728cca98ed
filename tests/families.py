"""Every family of transformers that pipelab is tried on, tiny and with random weights; others: other_families.py."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

BATCH, SEQ, VOCAB = 4, 6, 32
_DECODER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": VOCAB, "max_position_embeddings": 64, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_ENCODER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "vocab_size": VOCAB, "max_position_embeddings": 64,
}  # fmt: skip
_VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
_EN_DE = {
    "encoder_layers": 2, "decoder_layers": 2, "d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": VOCAB, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "forced_eos_token_id": None,
}  # fmt: skip
_SOUND = {
    **_ENCODER, "conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
_LATENT = {
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
    "num_key_value_heads": 2, "moe_intermediate_size": 16, "n_routed_experts": 4, "n_shared_experts": 1,
    "num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
_STATES = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_chunk_size": 4}


@dataclass(frozen=True)
class Family:
    """A family of transformers models, as one of them.

    Attributes:
        model: Class of the model.
        config: Class of its config.
        settings: What makes it tiny.
        generates: Whether `generate` is of use with it.
    """

    model: str
    config: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    generates: bool = False

    def made_config(self) -> Any:
        """The tiny config, which names the class of the model as that of a checkpoint does."""
        logging.getLogger("transformers").setLevel(logging.ERROR)
        import transformers

        settings = {key: value() if callable(value) else value for key, value in self.settings.items()}
        config = getattr(transformers, self.config)(**settings)
        config.architectures = [self.model]
        return config

    def made(self) -> nn.Module:
        """The model with random weights, in evaluation mode."""
        import transformers

        config = self.made_config()
        torch.manual_seed(0)
        return getattr(transformers, self.model)(config).eval()  # type: ignore[no-any-return]  # transformers'


def _decoder(name: str, *also: Mapping[str, Any], **settings: Any) -> Family:
    merged = dict(_DECODER)
    for more in (*also, settings):
        merged |= more
    return Family(f"{name}ForCausalLM", f"{name}Config", merged, generates=True)


def _config(name: str, **settings: Any) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        return getattr(transformers, name)(**settings)

    return make


PRETRAINED: dict[str, Family] = {
    "GPT-2": Family("GPT2LMHeadModel", "GPT2Config",
                    {"n_layer": 3, "n_embd": 16, "n_head": 2, "vocab_size": VOCAB, "n_positions": 64,
                     "bos_token_id": 1, "eos_token_id": 2}, True),
    "OPT": _decoder("OPT", ffn_dim=32, word_embed_proj_dim=16),
    "BLOOM": Family("BloomForCausalLM", "BloomConfig",
                    {"n_layer": 3, "hidden_size": 16, "n_head": 2, "vocab_size": VOCAB}, True),
    "GPT-Neo": Family("GPTNeoForCausalLM", "GPTNeoConfig",
                      {"num_layers": 4, "hidden_size": 16, "num_heads": 2, "vocab_size": VOCAB,
                       "max_position_embeddings": 64, "attention_types": [[["global", "local"], 2]], "window_size": 4,
                       "bos_token_id": 1, "eos_token_id": 2}, True),
    "CodeGen": Family("CodeGenForCausalLM", "CodeGenConfig",
                      {"n_layer": 3, "n_embd": 32, "n_head": 4, "vocab_size": VOCAB, "n_positions": 64,
                       "rotary_dim": 4, "bos_token_id": 1, "eos_token_id": 2}, True),
    "LLaMA": _decoder("Llama"),
    "Mistral": _decoder("Mistral", sliding_window=4),
    "Qwen2": _decoder("Qwen2"),
    "Qwen3": _decoder("Qwen3", head_dim=8),
    "Gemma": _decoder("Gemma", head_dim=8),
    "Gemma 2": _decoder("Gemma2", head_dim=8, sliding_window=4),
    "Gemma 3": Family("Gemma3ForCausalLM", "Gemma3TextConfig", {**_DECODER, "head_dim": 8, "sliding_window": 4}, True),
    "Phi": _decoder("Phi", num_key_value_heads=2),
    "Phi-3": _decoder("Phi3"),
    "Falcon": _decoder("Falcon"),
    "GPT-NeoX": _decoder("GPTNeoX"),
    "Mixtral": _decoder("Mixtral", num_local_experts=4),
    "Qwen3-MoE": _decoder("Qwen3Moe", _EXPERTS, head_dim=8, moe_intermediate_size=16),
    "OLMoE": _decoder("Olmoe", _EXPERTS),
    "SmolLM3": _decoder("SmolLM3"),
    "gpt-oss": _decoder("GptOss", head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=4,
                        layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    "DeepSeek-V3": _decoder("DeepseekV3", _LATENT),
    "Llama 4": Family("Llama4ForCausalLM", "Llama4TextConfig",
                      {**_DECODER, "head_dim": 8, "intermediate_size_mlp": 32, "num_local_experts": 2,
                       "attention_chunk_size": 4}, True),
    "GLM-4": _decoder("Glm4", head_dim=8),
    "OLMo 2": _decoder("Olmo2"),
    "OLMo 3": _decoder("Olmo3", sliding_window=4),
    "Command R": _decoder("Cohere"),
    "StarCoder2": _decoder("Starcoder2", sliding_window=4),
    "StableLM": _decoder("StableLm"),
    "Phi-3.5-MoE": _decoder("Phimoe", num_local_experts=4, num_experts_per_tok=2),
    "Granite-MoE": _decoder("GraniteMoe", num_local_experts=4, num_experts_per_tok=2),
    "Gemma 3n": Family("Gemma3nForCausalLM", "Gemma3nTextConfig",
                       {**_DECODER, "head_dim": 8, "sliding_window": 4, "num_hidden_layers": 8, "laurel_rank": 4,
                        "layer_types": ["sliding_attention", "full_attention"] * 4, "num_kv_shared_layers": 2,
                        "vocab_size_per_layer_input": VOCAB, "hidden_size_per_layer_input": 4,
                        "activation_sparsity_pattern": None, "intermediate_size": [32] * 8}, True),
    "Gemma 4": Family("Gemma4ForCausalLM", "Gemma4TextConfig",
                      {**_DECODER, "head_dim": 8, "global_head_dim": 8, "sliding_window": 4, "num_kv_shared_layers": 0,
                       "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
                       "vocab_size_per_layer_input": VOCAB, "hidden_size_per_layer_input": 4}, True),
    "Ernie 4.5": _decoder("Ernie4_5", head_dim=8),
    "HunYuan": _decoder("HunYuanDenseV1", head_dim=8),
    "MPT": Family("MptForCausalLM", "MptConfig",
                  {"d_model": 16, "n_heads": 2, "n_layers": 3, "expansion_ratio": 2, "max_seq_len": 64,
                   "vocab_size": VOCAB}, True),
    "GPT-J": Family("GPTJForCausalLM", "GPTJConfig",
                    {"n_embd": 16, "n_layer": 3, "n_head": 2, "rotary_dim": 4, "vocab_size": VOCAB, "n_positions": 64,
                     "bos_token_id": 1, "eos_token_id": 2}, True),
    "LFM2": _decoder("Lfm2", layer_types=["conv", "full_attention", "conv"], block_auto_adjust_ff_dim=False),
    "Qwen3-Next": _decoder("Qwen3Next", _EXPERTS, head_dim=8, moe_intermediate_size=16,
                           shared_expert_intermediate_size=16, linear_num_key_heads=2, linear_num_value_heads=2,
                           linear_key_head_dim=8, linear_value_head_dim=8, linear_conv_kernel_dim=2,
                           layer_types=["linear_attention", "linear_attention", "full_attention"]),
    "Jamba": _decoder("Jamba", num_experts=2, num_experts_per_tok=1, attn_layer_period=2, attn_layer_offset=1,
                      expert_layer_period=2, expert_layer_offset=1, mamba_d_state=4, mamba_dt_rank=4,
                      use_mamba_kernels=False),
    "Falcon-H1": _decoder("FalconH1", _STATES, head_dim=8, mamba_d_ssm=16, mamba_n_heads=2),
    "Granite 4": _decoder("GraniteMoeHybrid", _STATES, num_local_experts=4, num_experts_per_tok=2,
                          shared_intermediate_size=16, layer_types=["mamba", "attention", "mamba"]),
    "Mamba": Family("MambaForCausalLM", "MambaConfig",
                    {"hidden_size": 16, "num_hidden_layers": 3, "vocab_size": VOCAB, "state_size": 4,
                     "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}, True),
    "Mamba-2": Family("Mamba2ForCausalLM", "Mamba2Config",
                      {"hidden_size": 16, "num_hidden_layers": 3, "vocab_size": VOCAB, "state_size": 4, "num_heads": 4,
                       "head_dim": 8, "n_groups": 1, "chunk_size": 4, "pad_token_id": 0, "bos_token_id": 1,
                       "eos_token_id": 2}, True),
    "RWKV": Family("RwkvForCausalLM", "RwkvConfig",
                   {"hidden_size": 16, "num_hidden_layers": 3, "vocab_size": VOCAB, "context_length": 64,
                    "rescale_every": 0,                    "bos_token_id": 1, "eos_token_id": 2}, True),
    "T5": Family("T5ForConditionalGeneration", "T5Config",
                 {"num_layers": 2, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "vocab_size": VOCAB,
                  "decoder_start_token_id": 0}, True),
    "BART": Family("BartForConditionalGeneration", "BartConfig",
                   {"encoder_layers": 2, "decoder_layers": 2, "d_model": 16, "encoder_ffn_dim": 32,
                    "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
                    "vocab_size": VOCAB, "max_position_embeddings": 64}, True),
    "Marian": Family("MarianMTModel", "MarianConfig", {**_EN_DE, "decoder_vocab_size": VOCAB}, True),
    "Pegasus": Family("PegasusForConditionalGeneration", "PegasusConfig", _EN_DE, True),
    "mBART": Family("MBartForConditionalGeneration", "MBartConfig", _EN_DE, True),
    "M2M100": Family("M2M100ForConditionalGeneration", "M2M100Config", _EN_DE, True),
    "Switch Transformers": Family("SwitchTransformersForConditionalGeneration", "SwitchTransformersConfig",
                                  {"num_layers": 2, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2,
                                   "vocab_size": VOCAB, "decoder_start_token_id": 0, "num_experts": 4,
                                   "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}, True),
    "BERT": Family("BertForMaskedLM", "BertConfig", _ENCODER),
    "RoBERTa": Family("RobertaForSequenceClassification", "RobertaConfig", _ENCODER),
    "DistilBERT": Family("DistilBertForMaskedLM", "DistilBertConfig",
                         {"n_layers": 3, "dim": 16, "hidden_dim": 32, "n_heads": 2, "vocab_size": VOCAB,
                          "max_position_embeddings": 64}),
    "ALBERT": Family("AlbertForMaskedLM", "AlbertConfig", {**_ENCODER, "embedding_size": 8}),
    "ELECTRA": Family("ElectraForMaskedLM", "ElectraConfig", {**_ENCODER, "embedding_size": 8}),
    "DeBERTa-v2": Family("DebertaV2ForMaskedLM", "DebertaV2Config",
                         {**_ENCODER, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 4,
                          "share_att_key": True, "norm_rel_ebd": "layer_norm"}),
    "ModernBERT": Family("ModernBertForMaskedLM", "ModernBertConfig",
                         {**_ENCODER, "local_attention": 4, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2,
                          "bos_token_id": 1, "eos_token_id": 2}),
    "Longformer": Family("LongformerForMaskedLM", "LongformerConfig", {**_ENCODER, "attention_window": 4}),
    "ViT": Family("ViTForImageClassification", "ViTConfig", _VISION),
    "Swin": Family("SwinForImageClassification", "SwinConfig",
                   {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2],
                    "window_size": 4}),
    "DETR": Family("DetrForObjectDetection", "DetrConfig",
                   {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
                    "backbone_config": _config("ResNetConfig", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1],
                                               layer_type="basic", out_features=["stage2"]),
                    "num_queries": 4, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32,
                    "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}),
    "DeiT": Family("DeiTForImageClassification", "DeiTConfig", _VISION),
    "DINOv2": Family("Dinov2ForImageClassification", "Dinov2Config", _VISION),
    "DINOv3": Family("DINOv3ViTModel", "DINOv3ViTConfig", {**_VISION, "num_register_tokens": 2}),
    "VideoMAE": Family("VideoMAEForVideoClassification", "VideoMAEConfig", {**_VISION, "num_frames": 4}),
    "SegFormer": Family("SegformerForSemanticSegmentation", "SegformerConfig",
                        {"num_encoder_blocks": 2, "depths": [2, 2], "sr_ratios": [2, 1], "hidden_sizes": [8, 16],
                         "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2],
                         "decoder_hidden_size": 16, "image_size": 32}),
    "PVT": Family("PvtForImageClassification", "PvtConfig",
                  {"image_size": 32, "num_encoder_blocks": 2, "depths": [2, 2], "sequence_reduction_ratios": [2, 1],
                   "hidden_sizes": [8, 16], "patch_sizes": [4, 2], "strides": [4, 2], "num_attention_heads": [1, 2],
                   "mlp_ratios": [2, 2]}),
    "YOLOS": Family("YolosForObjectDetection", "YolosConfig",
                    {**_VISION, "image_size": [16, 16], "num_detection_tokens": 4}),
    "Mask2Former": Family("Mask2FormerForUniversalSegmentation", "Mask2FormerConfig",
                          {"backbone_config": _config("SwinConfig", image_size=64, patch_size=2, embed_dim=8,
                                                      depths=[1] * 4, num_heads=[2] * 4, window_size=4,
                                                      out_features=["stage1", "stage2", "stage3", "stage4"]),
                           "feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "dim_feedforward": 32,
                           "encoder_feedforward_dim": 32, "encoder_layers": 2, "decoder_layers": 3,
                           "num_attention_heads": 2, "num_queries": 4}),
    "SAM": Family("SamModel", "SamConfig",
                  {"vision_config": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                                     "image_size": 32, "patch_size": 8, "output_channels": 16, "window_size": 2,
                                     "global_attn_indexes": [1], "mlp_dim": 32, "num_pos_feats": 8},
                   "prompt_encoder_config": {"hidden_size": 16, "image_size": 32, "patch_size": 8,
                                             "mask_input_channels": 4},
                   "mask_decoder_config": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                                           "mlp_dim": 32, "iou_head_hidden_dim": 16}}),
    "Depth Anything": Family("DepthAnythingForDepthEstimation", "DepthAnythingConfig",
                             {"backbone_config": _config("Dinov2Config", **{**_VISION, "num_hidden_layers": 4},
                                                         out_features=["stage1", "stage2", "stage3", "stage4"],
                                                         reshape_hidden_states=False),
                              "patch_size": 8, "reassemble_hidden_size": 16, "reassemble_factors": [4, 2, 1, 0.5],
                              "neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8}),
    "CLIP": Family("CLIPModel", "CLIPConfig",
                   {"text_config": {**_ENCODER, "eos_token_id": 2}, "vision_config": _VISION, "projection_dim": 8}),
    "SigLIP": Family("SiglipModel", "SiglipConfig",
                     {"text_config": {**_ENCODER, "projection_size": 16, "pad_token_id": 0},
                      "vision_config": _VISION}),
    "BLIP": Family("BlipForConditionalGeneration", "BlipConfig",
                   {"text_config": {**_ENCODER, "encoder_hidden_size": 16, "pad_token_id": 0, "bos_token_id": 1,
                                    "eos_token_id": 2, "sep_token_id": 2},
                    "vision_config": _VISION, "projection_dim": 8}),
    "LLaVA": Family("LlavaForConditionalGeneration", "LlavaConfig",
                    {"vision_config": {"model_type": "clip_vision_model", **_VISION}, "image_token_index": 5,
                     "text_config": {"model_type": "llama", **_DECODER}}, True),
    "Qwen2-VL": Family("Qwen2VLForConditionalGeneration", "Qwen2VLConfig",
                       {"text_config": {**_DECODER, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0,
                                                                        "mrope_section": [1, 1, 2]}},
                        "vision_config": {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2,
                                          "mlp_ratio": 2, "patch_size": 8, "spatial_merge_size": 2}}, True),
    "TrOCR": Family("VisionEncoderDecoderModel", "VisionEncoderDecoderConfig",
                    {"encoder": {"model_type": "vit", **_VISION}, "decoder_start_token_id": 1, "pad_token_id": 0,
                     "eos_token_id": 2,
                     "decoder": {"model_type": "trocr", "vocab_size": VOCAB, "d_model": 16, "decoder_layers": 2,
                                 "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "max_position_embeddings": 64,
                                 "cross_attention_hidden_size": 16, "is_decoder": True,
                                 "add_cross_attention": True}}, True),
    "Whisper": Family("WhisperForConditionalGeneration", "WhisperConfig",
                      {"encoder_layers": 2, "decoder_layers": 2, "d_model": 16, "encoder_ffn_dim": 32,
                       "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
                       "vocab_size": VOCAB, "max_source_positions": 12, "max_target_positions": 32,
                       "num_mel_bins": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
                       "decoder_start_token_id": 1, "suppress_tokens": None, "begin_suppress_tokens": None}, True),
    "Speech2Text": Family("Speech2TextForConditionalGeneration", "Speech2TextConfig",
                          {**_EN_DE, "input_feat_per_channel": 8, "conv_channels": 16, "num_conv_layers": 2,
                           "conv_kernel_sizes": [3, 3], "max_source_positions": 64, "max_target_positions": 64}, True),
    "wav2vec 2.0": Family("Wav2Vec2ForCTC", "Wav2Vec2Config", _SOUND),
    "HuBERT": Family("HubertForCTC", "HubertConfig", _SOUND),
    "WavLM": Family("WavLMForCTC", "WavLMConfig", _SOUND),
    "AST": Family("ASTForAudioClassification", "ASTConfig",
                  {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
                   "patch_size": 4, "max_length": 16, "num_mel_bins": 8, "frequency_stride": 2, "time_stride": 2}),
    "PatchTST": Family("PatchTSTForPrediction", "PatchTSTConfig",
                       {"num_input_channels": 2, "context_length": 32, "patch_length": 8, "patch_stride": 8,
                        "num_hidden_layers": 3, "d_model": 16, "num_attention_heads": 2, "ffn_dim": 32,
                        "prediction_length": 8}),
    "ResNet": Family("ResNetForImageClassification", "ResNetConfig",
                     {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2], "layer_type": "basic"}),
    "RegNet": Family("RegNetForImageClassification", "RegNetConfig",
                     {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2], "groups_width": 8}),
    "ConvNeXt": Family("ConvNextForImageClassification", "ConvNextConfig",
                       {"hidden_sizes": [8, 16], "depths": [2, 2], "num_stages": 2, "image_size": 32}),
    "MobileNetV2": Family("MobileNetV2ForImageClassification", "MobileNetV2Config",
                          {"image_size": 32, "depth_multiplier": 0.25}),
    "MobileViT": Family("MobileViTForImageClassification", "MobileViTConfig",
                        {"image_size": 32, "hidden_sizes": [16] * 3, "neck_hidden_sizes": [8] * 6 + [16],
                         "num_attention_heads": 2}),
    "EfficientNet": Family("EfficientNetForImageClassification", "EfficientNetConfig",
                           {"image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320}),
}  # fmt: skip
