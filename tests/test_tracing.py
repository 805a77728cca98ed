"""The trace: the model untouched, inputs and outputs by the batch symbol, errors that say what to do."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

import pipelab
from pipelab.errors import InputError, LaunchError, TraceError
from pipelab.stages import whole_table


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Every attribute of every module, with tensors by identity and by value."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            found[f"{path}:{name}"] = (id(value), copy.copy(value) if isinstance(value, dict | list) else value)
        found[f"{path}:forward"] = module.forward.__func__
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            found[f"{path}:{name} tensor"] = (id(tensor), tensor.requires_grad, tensor.device, tensor.grad)
            found[f"{path}:{name} bytes"] = tensor.detach().numpy().tobytes()
    return found


@pytest.mark.parametrize("name", ["gpt2", "mixtral", "batch_norm", "marked"])
@pytest.mark.filterwarnings("ignore:.*training mode")
def test_the_users_model_is_what_it_was(name: str) -> None:
    model, inputs = zoo.build(name)
    model.train()
    next(iter(model.children())).eval()
    before = snapshot(model)
    pipelab.trace(model, **inputs)
    traced = pipelab.trace(model, **inputs)
    for num_stages in (1, 2):
        with pipelab.start(traced, pipelab.uniform(traced, num_stages=num_stages), device="cpu") as pipe:
            pipe.run(**inputs, repeats=1)
    assert snapshot(model) == before


def test_the_users_model_is_what_it_was_after_an_error() -> None:
    model = zoo.Branches()
    before = snapshot(model)
    with pytest.warns(UserWarning, match="training mode"), pytest.raises(TraceError):
        pipelab.trace(model, torch.zeros(2, 4))
    assert snapshot(model) == before


def test_hooks_that_a_forward_adds_are_taken_away_again() -> None:
    """A LLaVA that had been traced failed on images: transformers' hooks for hidden states were there twice."""

    class Hooking(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.register_forward_hook(lambda module, given, output: None)
            return super().forward(x)

    model = Hooking(4, 4).eval()
    hooks = model._forward_hooks
    pipelab.trace(model, torch.zeros(2, 4))
    assert model._forward_hooks is hooks
    assert not hooks


def test_training_mode_is_traced_as_evaluation_with_a_warning() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    with pytest.warns(UserWarning, match="as in evaluation"):
        traced = pipelab.trace(model, torch.zeros(2, 4))
    assert model[1].training
    assert traced.graph.ops[-1].target in {"aten.linear.default", "aten.dropout.default"}


def test_data_dependent_branch_names_the_line_and_the_way_out() -> None:
    with pytest.raises(TraceError, match=r"values of a tensor \(.*zoo\.py:\d+: return x \+ 1 if.*torch\.cond"):
        pipelab.trace(zoo.Branches().eval(), torch.zeros(2, 4))


def test_a_look_for_overflow_in_float16_says_to_take_another_dtype() -> None:
    """BART's encoder does so; nobody can change it there."""

    class Careful(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.clamp(max=1) if x.dtype == torch.float16 and not torch.isfinite(x).all() else x + 1

    with pytest.raises(TraceError, match=r"in float16 alone: load it in bfloat16"):
        pipelab.trace(Careful().eval(), torch.zeros(2, 4, dtype=torch.float16))


def test_other_failures_show_every_cause() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("the hidden reason")

    with pytest.raises(TraceError, match="the hidden reason"):
        pipelab.trace(Broken().eval(), torch.zeros(2, 4))


def test_a_failure_in_the_models_own_code_names_the_line_and_what_to_pass() -> None:
    """Switch Transformers need a mask, and it was said that a 'NoneType' object is not subscriptable."""

    class NeedsMask(nn.Module):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return x * mask[:, None]  # type: ignore[index]  # as in theirs

    with pytest.raises(TraceError, match=r"(?s)test_tracing\.py:\d+: return x \* mask.*pass those it needs"):
        pipelab.trace(NeedsMask().eval(), torch.zeros(2, 4))


def test_a_tensor_made_on_the_cpu_says_to_load_the_model() -> None:
    """Mask2Former makes some wherever it is itself; it was said that a tensor was not on the expected device."""

    class Shifted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.ones(4, device="cpu")

    with pytest.raises(TraceError, match=r"forward makes a tensor on the CPU \(.*: return super.*Load the model"):
        pipelab.trace(Shifted(4, 4, device="meta").eval(), torch.zeros(2, 4, device="meta"))


class Caching(nn.Module):
    """Returns a cache where its config asks for one, and does not say so in its signature, as LLaVA does."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(use_cache=True)

    def forward(self, x: Tensor, **kwargs: Any) -> tuple[Tensor, object]:
        return x + 1, object() if kwargs.get("use_cache", self.config.use_cache) else None


def test_a_cache_that_only_the_config_asks_for_is_no_output() -> None:
    """Granite-MoE, LLaVA and Qwen3-VL could not be traced: a DynamicCache in the output."""
    model = Caching().eval()
    assert pipelab.trace(model, torch.zeros(2, 4)).program.outputs[1] is None
    assert model.config.use_cache is True


def test_a_call_may_be_written_in_any_way() -> None:
    model, inputs = zoo.build("dict_output")
    traced = pipelab.trace(model, inputs["x"], scale=inputs["scale"])
    first = traced.bind((inputs["x"],), {"scale": inputs["scale"]})
    second = traced.bind((), {"scale": inputs["scale"], "x": inputs["x"]})
    assert [id(a.untyped_storage()) for a in first] == [id(b.untyped_storage()) for b in second] or all(
        torch.equal(a, b) for a, b in zip(first, second, strict=True)
    )
    assert traced.batched == (True, False)


def test_inputs_that_do_not_fit_are_named_with_both_shapes() -> None:
    model, inputs = zoo.build("gpt2")
    traced = pipelab.trace(model, **inputs)
    with pytest.raises(InputError, match=r"'input_ids' is \(8, 5\) int64.*traced with \(8, 6\)"):
        traced.bind((), {"input_ids": inputs["input_ids"][:, :5]})
    with pytest.raises(InputError, match="input_ids, attention_mask"):
        traced.bind((), {**inputs, "attention_mask": torch.ones(8, 6)})
    with pytest.raises(InputError, match="now called with no_such"):
        traced.bind((), {"no_such": inputs["input_ids"]})
    with pytest.raises(InputError, match="int64"):
        traced.bind((), {"input_ids": inputs["input_ids"].float()})


def test_arguments_forward_does_not_take_are_refused() -> None:
    with pytest.raises(InputError, match=r"Mlp\.forward does not take these arguments"):
        pipelab.trace(zoo.Mlp().eval(), torch.zeros(2, 4), mask=torch.zeros(2))


def test_an_input_torch_does_not_look_into_is_named() -> None:
    with pytest.raises(TraceError, match=r"a Wrapper must be registered: torch\.export\.register_dataclass"):
        pipelab.trace(zoo.Mlp().eval(), Wrapper())


class Wrapper(nn.Module):
    """Hands on whatever it is given, as adapters around a model do."""

    def __init__(self) -> None:
        super().__init__()
        self.model = zoo.DictOutput()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)


def test_a_forward_of_any_keywords_is_traced() -> None:
    """torch.export 2.13 counts `kwargs` as an argument besides those in it."""
    model = Wrapper().eval()
    x, scale = torch.randn(8, 4), torch.ones(4)
    traced = pipelab.trace(model, x=x, scale=scale)
    assert {info.name for info in traced.graph.inputs} == {"x", "scale"}
    for bound, info in zip(traced.bind((), {"scale": scale, "x": x}), traced.graph.inputs, strict=True):
        assert bound.shape == info.shape
    assert "forward" not in vars(model)


def test_inputs_must_agree_on_their_rows() -> None:
    model, inputs = zoo.build("opt")
    traced = pipelab.trace(model, **inputs)
    bound = traced.bind((), {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"][:4]})
    with pytest.raises(InputError, match="different numbers of rows"):
        traced.batch_size_of(bound)


def test_microbatch_sizes_are_tensor_split() -> None:
    traced = pipelab.trace(zoo.Mlp().eval(), torch.zeros(8, 4))
    for batch in range(1, 12):
        for parts in range(1, batch + 1):
            expected = tuple(len(part) for part in torch.tensor_split(torch.zeros(batch), parts))
            assert traced.microbatch_sizes(batch, parts, 2) == expected
    assert traced.microbatch_sizes(8, None, 3) == (2, 2, 1, 1, 1, 1)
    with pytest.raises(InputError, match="between 1 and the batch of 4"):
        traced.microbatch_sizes(4, 5, 2)
    with pytest.raises(InputError, match="whole number"):
        traced.microbatch_sizes(4, 2.0, 2)


class Loss(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, (x * 2).mean()


class Pairs(nn.Module):
    """CLIP's logits: every image against every text."""

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        return image @ text.T


@pytest.mark.parametrize(
    ("model", "inputs", "said"),
    [(Loss(), (torch.zeros(4, 3),), "output 1"), (Pairs(), (torch.zeros(4, 3), torch.ones(4, 3)), "output 0")],
)
def test_output_that_cannot_merge_refuses_more_than_one_microbatch(
    model: nn.Module, inputs: tuple[Tensor, ...], said: str
) -> None:
    traced = pipelab.trace(model.eval(), *inputs)
    assert traced.microbatch_sizes(4, 1, 2) == (4,)
    assert traced.microbatch_sizes(4, None, 2) == (4,)
    with pytest.raises(InputError, match=said):
        traced.microbatch_sizes(4, 2, 2)


class Prompt(nn.Module):
    """Every row of x meets the mean of all rows of the prompt."""

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        result = torch.zeros_like(x)
        result[:, 0].add_(prompt.mean())
        return x + result


class Towers(nn.Module):
    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        return image * 2, text + 1


def test_an_input_that_has_the_batch_size_by_accident_is_not_split() -> None:
    """Its parts were averaged, each micro-batch its own, and the outputs were silently wrong."""
    traced = pipelab.trace(Prompt().eval(), torch.zeros(4, 3), torch.ones(4, 5))
    assert traced.microbatch_sizes(4, None, 2) == (4,)
    with pytest.raises(InputError, match=r"rows are not its own \(x, prompt\).*another batch size"):
        traced.microbatch_sizes(4, 2, 2)
    other = pipelab.trace(Prompt().eval(), torch.zeros(6, 3), torch.ones(4, 5))
    assert other.batched == (True, False)
    assert other.microbatch_sizes(6, 3, 2) == (2, 2, 2)
    model, inputs = zoo.build("llama")  # its mask, too, keeps a batch symbol of its own, but is read row by row
    assert pipelab.trace(model, **inputs).microbatch_sizes(8, 2, 2) == (4, 4)
    towers = pipelab.trace(Towers().eval(), torch.zeros(4, 3), torch.zeros(4, 5))
    assert towers.microbatch_sizes(4, 2, 2) == (2, 2)


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(4, 6) + 1


def test_a_fixed_batch_is_said() -> None:
    traced = pipelab.trace(Fixed().eval(), torch.zeros(4, 6))
    assert traced.batched == (False,)
    with pytest.raises(InputError, match="fixes its batch to 4 rows"):
        traced.microbatch_sizes(4, 2, 2)


def test_batch_of_one_is_traced_for_every_size() -> None:
    model, _ = zoo.build("mlp")
    traced = pipelab.trace(model, torch.zeros(1, 4))
    assert traced.graph.batch_size == 1
    assert traced.graph.inputs[0].shape == (1, 4)
    assert traced.batched == (True,)


def test_size_that_depends_on_values_is_refused() -> None:
    class Nonzero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.nonzero() + 1

    with pytest.raises(TraceError, match=r"depends on the values|data-dependent"):
        pipelab.trace(Nonzero().eval(), torch.ones(2, 4))


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x * x.sum().item(), r"number in the model depends.*no \.item\(\)"),
        (lambda x: (x * 2)[x[:, 0] > 0], "no selection by a mask"),
        (lambda x: torch.vmap(lambda row: row * 2)(x), r"torch\.vmap.*whole batch"),
    ],
)
def test_what_a_stage_cannot_compute_is_refused(function: Callable[[Tensor], Tensor], said: str) -> None:
    """A number read from a tensor became the number of rows."""
    with pytest.raises(TraceError, match=said):
        pipelab.trace(Lambda(function).eval(), torch.ones(4, 3))


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        (nn.Linear, torch.ones(4, 3), r"this is the class itself: make one, Linear\(\.\.\.\)"),
        (nn.Linear(3, 3).eval(), torch.ones(4, 3).numpy(), r"array of numpy: pass a tensor, as torch\.from_numpy"),
        (nn.Linear(3, 3).eval(), torch.ones(4, 2), "If Linear does not run on these inputs either, that is why"),
    ],
)
def test_what_newcomers_pass_is_refused_with_what_to_pass(model: Any, given: Any, said: str) -> None:
    with pytest.raises(TraceError, match=said):
        pipelab.trace(model, given)


@pytest.mark.parametrize(
    ("branch", "fits", "other"),
    [(lambda rows: rows > 4, 8, 4), (lambda rows: rows % 2 == 0, 2, 3), (lambda rows: rows < 20, 1, 20)],
)
def test_a_branch_by_the_number_of_rows_holds_for_the_traced_side(
    branch: Callable[[int], bool], fits: int, other: int
) -> None:
    """The other side of the branch was never traced, and the output was silently wrong."""
    traced = pipelab.trace(Lambda(lambda x: x + 1 if branch(x.shape[0]) else x - 1).eval(), torch.zeros(8, 3))
    traced.check_rows(fits)
    with pytest.raises(InputError, match=rf"another branch with {other}"):
        whole_table(traced, other)


def test_of_control_flow_only_cond_runs_in_stages() -> None:
    def repeat(x: Tensor) -> Tensor:
        return while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 2), (torch.tensor(0), x))[1]

    with pytest.raises(LaunchError, match=r"only torch\.cond"):
        whole_table(pipelab.trace(Lambda(repeat).eval(), torch.ones(4, 3)), 4)


class Overlapping(nn.Module):
    """One buffer is a row of another; what is written to it must show in both."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(3, 4))
        self.register_buffer("row", self.table[0])

    def forward(self, x: Tensor) -> Tensor:
        self.row.add_(1)
        return x + self.table[0]


def test_a_write_to_memory_of_two_buffers_is_refused() -> None:
    """Each was copied to the ranks by itself, and the output was silently wrong."""
    with pytest.raises(TraceError, match=r"'table' and 'row' share.*in forward"):
        pipelab.trace(Overlapping().eval(), torch.zeros(2, 4))


def test_model_on_meta_can_only_be_planned() -> None:
    with torch.device("meta"):
        model, ids = zoo.Mlp().eval(), torch.zeros(8, 4)
    traced = pipelab.trace(model, ids)
    assert not traced.has_weights
    with pytest.raises(LaunchError, match="without weights"):
        traced.weights()


def test_pipe_split_marks_are_kept() -> None:
    model, inputs = zoo.build("marked")
    traced = pipelab.trace(model, **inputs)
    assert pipelab.split_at(traced).cuts == traced.graph.marks == (2, 4)


def test_repr_is_one_line_that_says_it_all() -> None:
    model, inputs = zoo.build("gpt2")
    assert repr(pipelab.trace(model, **inputs)) == (
        "GPT2LMHeadModel  10,896 parameters (43.6 kB)  8 × 6  3 blocks  162 split points, 4 between blocks"
    )
