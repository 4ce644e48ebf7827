"""All experts at once against one after the other in float64."""

import pytest
import torch

from backend.layers.activation import activation
from backend.layers.experts import ExpertWeights
from backend.layers.kernels import experts as grouped_products
from backend.layers.kernels import few_rows
from backend.layers.kernels.expert_lists import arranged
from backend.layers.kernels.experts import experts
from backend.layers.kernels.few_experts import Cut, Cuts, few_experts
from backend.layers.kernels.routing import choose
from backend.layers.routing import SIGMOID, Routing
from tests.backend.kernels.reference import assert_close

LARGE = torch.cuda.is_available()


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """Each takes the interpreter its time."""
    if not LARGE:
        monkeypatch.setattr(grouped_products, "FEW", Cuts(Cut(16, 128, 1), Cut(32, 128, 1)))


def normal(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def expected(x, weights, ids, of):
    """float64, token by token."""
    x, weights = x.double().cpu(), weights.double().cpu()
    out = torch.zeros_like(x)
    for token, choice in torch.ones_like(ids.cpu()).nonzero().tolist():
        expert = int(ids[token, choice])
        both = of.gate_up[expert].double().cpu() @ x[token]
        if of.gate_up_bias is not None:
            both += of.gate_up_bias[expert].double().cpu()
        gate, up = both.unflatten(0, (-1, 2)).unbind(-1) if of.interleaved else both.chunk(2)
        if of.act == "clamped_swiglu":
            gate, up = gate.clamp(max=of.limit), up.clamp(-of.limit, of.limit)
            inner = (up + 1) * gate * torch.sigmoid(of.alpha * gate)
        else:
            inner = activation(of.act)(gate) * up
        result = of.down[expert].double().cpu() @ inner
        if of.down_bias is not None:
            result += of.down_bias[expert].double().cpu()
        out[token] += weights[token, choice] * result
    return out


def matrices(count, size, hidden, act, dtype, device):
    gate_up = normal(count, 2 * size, hidden) / hidden**0.5
    down = normal(count, hidden, size, seed=1) / size**0.5
    parts = [gate_up, down]
    if act == "clamped_swiglu":
        parts += [normal(count, 2 * size, seed=2), normal(count, hidden, seed=3)]
    parts = [part.to(device, dtype) for part in parts]
    more = {"interleaved": True, "alpha": 1.702, "limit": 1.0} if act == "clamped_swiglu" else {}
    return ExpertWeights(*parts[:2], act, *parts[2:], **more)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("act", ["silu", "gelu_pytorch_tanh", "clamped_swiglu"])
@pytest.mark.parametrize("tokens", [1, 5, 700 if LARGE else 40])
def test_sums_of_random_choices(tokens, act, dtype, device):
    count, top_k, size, hidden = (60, 4, 200, 136) if LARGE else (6, 2, 24, 40)
    of = matrices(count, size, hidden, act, dtype, device)
    x = normal(tokens, hidden, seed=4).to(device, dtype)
    choice = normal(tokens, count, seed=5).topk(top_k)
    weights, ids = choice.values.softmax(-1).to(device), choice.indices.to(device)
    assert_close(experts(x, weights, ids, of), expected(x, weights, ids, of))


@pytest.mark.parametrize("ids", [[[0, 1]] * 20, [[3, 2], [3, 0], [3, 1]]], ids=["two experts", "one above all"])
def test_experts_without_tokens(ids, device):
    of = matrices(4, 16, 32, "silu", torch.float32, device)
    ids = torch.tensor(ids, device=device)
    x, weights = normal(len(ids), 32).to(device), normal(*ids.shape, seed=1).abs().to(device)
    assert_close(experts(x, weights, ids, of), expected(x, weights, ids, of))


@pytest.mark.parametrize("act", ["silu", "clamped_swiglu"])
def test_pairs_by_themselves(act, device):
    """Of more choices than a power of two, in parts of rows, and some experts chosen more than once."""
    of = matrices(6, 20, 40, act, torch.bfloat16, device)
    x, choice = normal(3, 40, seed=4).to(device, torch.bfloat16), normal(3, 6, seed=5).topk(3)
    weights, ids = choice.values.softmax(-1).to(device), choice.indices.to(device)
    found = few_experts(x, weights, ids, of, Cuts(Cut(8, 32, 1), Cut(16, 16, 1)))
    assert_close(found, expected(x, weights, ids, of))


@pytest.mark.parametrize("pairs", [1, 130, 5000])
def test_pairs_stand_by_expert_in_blocks(pairs, device):
    ids = torch.randint(0, 5, (pairs, 1), generator=torch.Generator().manual_seed(pairs)) * 2  # none of the odd ones
    lists = arranged(ids.to(device), 9, 16)
    order = ids.flatten().sort(stable=True).indices
    assert lists.order.tolist() == order.tolist()
    seen = []
    for expert, first, behind in lists.table.T.tolist():
        assert first >= behind or {int(i) for i in ids[order[first:behind], 0]} == {expert}
        seen += range(first, min(first + 16, behind))
    assert seen == list(range(pairs))


@pytest.mark.parametrize(
    "rule",
    [
        Routing(3, renormalise=True),
        Routing(4, renormalise=False, scale=2.5),
        Routing(2, renormalise=True, scores=SIGMOID),
        Routing(2, renormalise=True, groups=3, top_groups=2),
    ],
)
@pytest.mark.parametrize("biased", [False, True])
def test_choices_are_those_of_the_rule(rule, biased, device):
    logits = normal(7, 12).to(device)
    bias = normal(12, seed=1).to(device) if biased else None
    weights, ids = choose(logits, rule, bias)
    expected_weights, expected_ids = rule.choose(logits, bias)
    assert ids.tolist() == expected_ids.tolist()
    assert_close(weights, expected_weights.double().cpu())


def test_numbers_that_are_none_still_choose_experts(device):
    _, ids = choose(torch.full((2, 12), float("nan"), device=device), Routing(3, renormalise=True), None)
    assert 0 <= int(ids.min()) <= int(ids.max()) < 12


def test_scores_in_full_precision_of_few_rows(device):
    """A float32 matrix and half the bits in the rows, as DeepSeek's router has them."""
    x, weight = normal(2, 64).to(device, torch.bfloat16), normal(12, 64, seed=1).to(device)
    found = few_rows.linear(x, weight)
    assert found.dtype == torch.float32
    assert_close(found, x.double().cpu() @ weight.double().cpu().T)
