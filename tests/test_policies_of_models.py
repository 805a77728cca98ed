"""GPT-2 and LLaMA, split as PiPPy splits them."""

import pytest
from pippy import charged

import pipelab
from pipelab.errors import SplitError
from pipelab.graph import Graph
from pipelab.policies import equal_size, threshold


@pytest.fixture(scope="module")
def gpt2() -> Graph:
    return traced_gpt2("GPT2LMHeadModel")


def traced_gpt2(class_name: str) -> Graph:
    import torch
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, class_name)(transformers.GPT2Config(pad_token_id=0)).eval()
        return pipelab.trace(model, input_ids=torch.zeros(1, 16, dtype=torch.long), use_cache=False).graph


N8 = [38_597_376, 14_963_712, *[14_175_744] * 5, 38_597_376]


@pytest.mark.parametrize(
    ("num_stages", "sizes"),
    [
        (2, [60_648_960, 102_388_224]),
        (3, [41_157_120, 40_755_456, 81_124_608]),
        (4, [38_597_376, 30_911_232, 28_943_616, 64_584_960]),
        (8, N8),
    ],
)
def test_equal_size_of_gpt2(gpt2: Graph, num_stages: int, sizes: list[int]) -> None:
    assert charged(equal_size(gpt2, num_stages=num_stages)) == sizes


def test_threshold_of_gpt2(gpt2: Graph) -> None:
    assert charged(threshold(gpt2, max_params=15e6)) == N8
    assert [round(size / 1e6, 1) for size in charged(threshold(gpt2, max_params=40e6))] == [39.4, 37.8, 37.8, 9.4, 38.6]


def test_threshold_of_gpt2_in_four_stages_is_even(gpt2: Graph) -> None:
    assert [round(size / 1e6, 1) for size in charged(threshold(gpt2, num_stages=4))] == [41.2, 40.8, 40.2, 41.0]


def test_equal_size_refuses_eight_stages_of_gpt2_for_sequence_classification() -> None:
    with pytest.raises(SplitError) as error:
        equal_size(traced_gpt2("GPT2ForSequenceClassification"), num_stages=8)
    assert str(error.value) == (
        "equal_size cannot make 8 stages of GPT2ForSequenceClassification: transformer.wte.weight alone (38.6 M) "
        "exceeds the 15.6 M elements each stage may hold. The greedy pass makes 7 stages. The largest number of stages "
        "below 8 that works is 7."
    )


def test_equal_size_of_a_llama() -> None:
    import torch
    import transformers

    config = transformers.LlamaConfig(
        num_hidden_layers=22, hidden_size=2048, intermediate_size=5632, num_attention_heads=32,
        num_key_value_heads=4, vocab_size=32000,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config).eval()
        graph = pipelab.trace(model, input_ids=torch.zeros(1, 16, dtype=torch.long), use_cache=False).graph
    assert [round(n / 1e6) for n in charged(equal_size(graph, num_stages=4))] == [274, 264, 264, 297]
    assert [round(n / 1e6) for n in charged(equal_size(graph, num_stages=8))] == [131, *[132] * 6, 177]
