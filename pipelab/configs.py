"""What a config of transformers describes: the model without memory for its weights, and how it generates."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipelab.errors import TraceError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig


def config_of(given: "str | Path | PretrainedConfig") -> "tuple[PretrainedConfig, str | None]":
    """A config by model id, folder or file, and where it came from; a config object's own, as a copy.

    Raises:
        TraceError: It cannot be had.
    """
    try:
        from transformers import AutoConfig, PretrainedConfig
    except ImportError as error:
        raise TraceError("trace_pretrained needs transformers: pip install transformers") from error
    if isinstance(given, PretrainedConfig):
        return copy.deepcopy(given), None  # models write into theirs
    if not isinstance(given, str | Path):
        raise TraceError(
            "trace_pretrained takes a model id, a folder or a config of transformers; this is of type "
            f"{type(given).__name__}. A model itself goes to pipelab.trace(model, ...), its config comes here."
        )
    name = str(given)
    if not Path(name).exists() and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
        raise TraceError(f"There is no folder {name!r}. Pass one that `save_pretrained` wrote, or a model id.")
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise TraceError(f"{Path(name)} holds no config.json; pass a folder that `save_pretrained` wrote.")
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False), name
    except Exception as error:  # whatever a damaged file makes the readers raise
        advice = (
            "Download or save it again"
            if Path(name).exists()
            else "If the id is right but the model is gated or the network out of reach, pass a local folder (from "
            "`save_pretrained` or a download)"
        )
        raise TraceError(
            f"The config of {name!r} cannot be had: {_first_line(error)} {advice}, or pass a config object such as "
            "transformers.GPT2Config()."
        ) from error


def generation_settings(source: str, **settings: Any) -> "GenerationConfig | None":
    """The settings that lie beside a model's weights: when to stop, what to pad with; None if there are none.

    Args:
        source: A folder or model id.
        **settings: What is to be otherwise.

    Raises:
        TraceError: The file is damaged.
    """
    from transformers import GenerationConfig

    file = Path(source) / "generation_config.json"
    if Path(source).is_dir() and not file.exists():
        return None
    try:
        return GenerationConfig.from_pretrained(source, **settings)
    except Exception as error:  # whatever a damaged file makes the reader raise
        if isinstance(error, OSError) and not file.exists():
            return None  # the hub has none
        raise TraceError(f"{file} cannot be read: {_first_line(error)} Mend it, or delete it.") from error


def on_meta(config: "PretrainedConfig", dtype: torch.dtype | str | None) -> nn.Module:
    """The model the config describes, without memory for its weights."""
    import transformers

    named = [getattr(transformers, name, None) for name in config.architectures or ()]
    factory: Any = next((found for found in named if hasattr(found, "_from_config")), None)
    if isinstance(dtype, str):
        found = getattr(torch, dtype, None)
        if not isinstance(found, torch.dtype):
            raise TraceError(f"{dtype!r} is no dtype of torch; write 'float32', 'bfloat16' or 'float16'.")
        dtype = found
    dtype = dtype or getattr(config, "dtype", None) or torch.float32
    try:
        with torch.device("meta"):
            if factory is not None:
                return factory._from_config(config, dtype=dtype).eval()  # type: ignore[no-any-return]  # transformers leaves it untyped
            for task in _tasks(config):
                auto = getattr(transformers, f"AutoModel{task}")
                if type(config) in auto._model_mapping:
                    return auto.from_config(config, dtype=dtype).eval()  # type: ignore[no-any-return]  # as above
    except Exception as error:  # whatever numbers that do not fit make the class raise
        raise TraceError(f"No model can be made of this {type(config).__name__}: {_first_line(error)}") from error
    raise TraceError(f"transformers has no model for a {type(config).__name__}.")


def _tasks(config: "PretrainedConfig") -> tuple[str, ...]:
    """What models are asked for when their config does not name its class, by the end of transformers' auto classes."""
    if config.is_encoder_decoder:
        return "ForSeq2SeqLM", "ForSpeechSeq2Seq", "ForImageTextToText", "ForObjectDetection", ""
    language = ("ForCausalLM", "ForMaskedLM")
    if hasattr(config, "type_vocab_size") and not getattr(config, "is_decoder", False):
        language = ("ForMaskedLM", "ForCausalLM")  # BERT and its kin can be made decoders as well
    vision = ("ForZeroShotImageClassification", "ForImageClassification", "ForObjectDetection")
    return *language, *vision, "ForCTC", ""


def keep_wide(model: Any) -> None:
    """Leave in float32 what transformers leaves so when it loads a narrow model, such as T5 in float16."""
    from transformers.core_model_loading import build_glob_alternation

    plan = model._get_dtype_plan(next(model.parameters()).dtype)
    if plan:
        wide, rule_of, _ = build_glob_alternation(list(plan))
        for name, parameter in model.named_parameters():
            if (found := wide.search(name)) is not None:
                parameter.data = parameter.data.to(plan[rule_of[str(found.lastgroup)]])


def _first_line(error: Exception) -> str:
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    line = f"{first} {rest[0]}" if first.endswith(":") and rest else first
    kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
    return f"{kind}{line.removesuffix('.')}."
