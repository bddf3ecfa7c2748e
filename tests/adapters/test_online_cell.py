"""PyTorch's `backward` through a cell of ours gives JAX's gradient, step by step, and that of the unrolled graph."""

import copy
import io
import pickle
import sys
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.saving import named_arrays
from onward.verify import in_float64, stepwise_gradient

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "onward[torch]"')
from onward.adapters.torch import OnlineCell

pytestmark = [pytest.mark.interfaces, pytest.mark.usefixtures("compile_fast")]

INPUTS, UNITS, STEPS = 3, 4, 12
GATES = {"LSTM": ow.LSTMGates, "GRU": ow.GRUGates}
KEY = jax.random.key(0)


def columns(kind="LSTM", **options):
    return ow.Columns(GATES[kind](), INPUTS, UNITS, key=KEY, spread=0.7, **options)


def normalised():
    return columns("GRU", normalise_inputs=ow.Moments(0.9), normalise_features=ow.Moments(0.9))


def cascade():
    cell = ow.Cascade(normalised())
    return cell.grow(cell.init(), key=jax.random.key(5))[0]


def double(make):
    with jax.enable_x64(True):
        return in_float64(make())


def series(*shape, seed=1, dtype=torch.float32):
    return torch.tensor(np.random.default_rng(seed).normal(size=shape), dtype=dtype)


def gradients(module):
    return {name: p.grad.numpy().copy() for name, p in module.named_parameters()}


def close(found, wanted, error):
    """Array by array, relative to the array's norm."""
    assert {*found} == {*wanted}
    for name, array in wanted.items():
        array = np.asarray(array)
        assert np.linalg.norm(array) > 1e-3, f"{name}: nothing to compare"
        assert np.linalg.norm(found[name] - array) < error * np.linalg.norm(array), name


# The unrolled graph, written in plain PyTorch.


def plain_step(kind, weight, recurrent, bias, states, x):
    """One step of columns: the same numbers as ours, no line of ours."""
    drive, loop = torch.einsum("i,igk->gk", x, weight) + bias, recurrent * states[-1]
    if kind == "LSTM":
        (i, f, o), g = torch.sigmoid(drive + loop)[:3], torch.tanh(drive[3] + loop[3])
        c = f * states[0] + i * g
        return c, o * torch.tanh(c)
    z, r = torch.sigmoid(drive + loop)[:2]
    return ((1 - z) * torch.tanh(drive[2] + r * loop[2]) + z * states[0],)


def plain(kind, parameters, xs, starts=()):
    """The features of every step, unrolled; at `starts` the states begin anew."""
    zero = torch.zeros_like(parameters[2][0])
    fresh = (zero,) * (2 if kind == "LSTM" else 1)
    states, features = fresh, []
    for t, x in enumerate(xs):
        states = plain_step(kind, *parameters, fresh if t in starts else states, x)
        features.append(states[-1])
    return torch.stack(features)


@pytest.mark.parametrize("kind", GATES)
def test_the_sum_of_online_gradients_is_that_of_the_unrolled_graph(kind):
    module = OnlineCell(double(lambda: columns(kind)))
    xs, targets = series(STEPS, INPUTS, dtype=torch.float64), series(STEPS, UNITS, seed=2, dtype=torch.float64)
    seen = []
    for t, (x, y) in enumerate(zip(xs, targets, strict=True)):
        if t == 7:
            module.reset()
        features = module(x)
        (features - y).square().sum().backward()
        seen.append(features.detach())
    weights = [p.detach().clone().requires_grad_() for p in module.parameters()]
    features = plain(kind, weights, xs, starts=(7,))
    (features - targets).square().sum().backward()
    assert (torch.stack(seen) - features).abs().max() < 1e-14
    close(gradients(module), dict(zip(dict(module.named_parameters()), [w.grad for w in weights], strict=True)), 1e-12)


@pytest.mark.parametrize("kind", GATES)
def test_gradcheck_over_the_steps(kind):
    module = OnlineCell(double(lambda: columns(kind)))
    names = [name for name, _ in module.named_parameters()]
    xs = series(5, INPUTS, dtype=torch.float64)

    def unrolled(*weights):
        module.reset()
        named = dict(zip(names, weights, strict=True))
        return torch.stack([torch.func.functional_call(module, named, (x,)) for x in xs])

    weights = [p.detach().clone().requires_grad_() for p in module.parameters()]
    assert torch.autograd.gradcheck(unrolled, weights)


def test_gradcheck_of_the_present_input():
    module = OnlineCell(double(lambda: columns()), input_gradient=True)
    for x in series(4, INPUTS, dtype=torch.float64):
        module(x)
    before = module.state_dict()

    def step(x):
        module.load_state_dict(before)
        return module(x)

    assert torch.autograd.gradcheck(step, [series(INPUTS, seed=3, dtype=torch.float64).requires_grad_()])


CELLS = {
    "LSTM columns": (columns, ow.Columnwise()),
    "GRU columns, running moments": (normalised, ow.Columnwise()),
    "a cascade of two stages": (cascade, ow.Columnwise()),
    "a dense GRU": (lambda: ow.GRU(INPUTS, UNITS, key=KEY), ow.RTRL()),
    "a stack": (
        lambda: ow.Stack(ow.GRU(INPUTS, UNITS, key=KEY), ow.LSTM(UNITS, 3, key=KEY)),
        ow.RTRL(),
    ),
    "a biased rule": (lambda: ow.GRU(INPUTS, UNITS, key=KEY), ow.SnAp(1)),
}


@pytest.mark.parametrize("name", CELLS)
def test_backward_gives_the_gradient_of_jax(name):
    make, rule = CELLS[name]
    cell = make()
    module = OnlineCell(cell, rule)
    xs, weights = series(STEPS, INPUTS), series(STEPS, cell.feature_count, seed=2)
    starts = np.arange(STEPS) == 5
    for x, weight, start in zip(xs, weights, starts, strict=True):
        if start:
            module.reset()
        (module(x) * weight).sum().backward()
    ours = eqx.filter_jit(stepwise_gradient)(
        cell, rule, cell.init(), *map(jnp.asarray, (xs.numpy(), starts, weights.numpy()))
    )
    close(gradients(module), named_arrays(ours), 1e-6)


def test_the_rule_is_the_exact_one_unless_another_is_given():
    exact = {"columns": (columns(), ow.Columnwise()), "dense": (ow.GRU(INPUTS, UNITS, key=KEY), ow.RTRL())}
    for cell, rule in exact.values():
        found = []
        for module in (OnlineCell(cell), OnlineCell(cell, rule)):
            for x in series(STEPS, INPUTS):
                module(x).sum().backward()
            found.append(gradients(module))
        assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def test_learning_with_an_optimiser_is_learning_with_online():
    """Every step's weights are those of the learner in JAX: traces run on while the weights move."""
    cell, head = columns(), torch.nn.Linear(UNITS, 1)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    module = OnlineCell(cell)
    optimiser = torch.optim.SGD([*module.parameters(), *head.parameters()], lr=0.1)
    xs = series(60, INPUTS)
    ys = torch.roll(xs[:, 0], 1)
    losses = []
    for x, y in zip(xs, ys, strict=True):
        loss = 0.5 * (head(module(x))[0] - y) ** 2 + 0.5 * np.log(2 * np.pi)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    learner = ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(0.1))
    model = ow.Model(cell, ow.Linear(UNITS))
    state, info = ow.fit(learner, model, xs.numpy(), ys.numpy(), key=KEY)
    assert np.array(losses) == pytest.approx(np.asarray(info.loss), abs=1e-6)
    assert np.linalg.norm(module.weight.detach().numpy() - np.asarray(cell.weight)) > 1e-3
    found, learned = module.cell, state.model.cell
    assert type(found) is type(learned)
    close(named_arrays(found), named_arrays(learned), 1e-6)


def test_streams_side_by_side_are_each_as_it_is_alone():
    together = OnlineCell(normalised(), streams=3)
    alone = [OnlineCell(normalised()) for _ in range(3)]
    xs, weights = series(STEPS, 3, INPUTS), series(STEPS, 3, UNITS, seed=2)
    for t in range(STEPS):
        if t == 4:
            together.reset(torch.tensor([True, False, True]))
            alone[0].reset()
            alone[2].reset()
        if t == 9:
            together.reset()
            [one.reset() for one in alone]
        features = together(xs[t])
        (features * weights[t]).sum().backward()
        each = [one(x) for one, x in zip(alone, xs[t], strict=True)]
        assert torch.allclose(features, torch.stack(each), atol=1e-6)
        [(one * weight).sum().backward() for one, weight in zip(each, weights[t], strict=True)]
    total = [gradients(one) for one in alone]
    close(gradients(together), {name: sum(g[name] for g in total) for name in total[0]}, 1e-5)


def test_the_gradient_of_an_input_is_that_of_the_present_step():
    """What made x gets d loss_t / d x_t with the state before it held; of earlier inputs there is nothing in it."""
    module = OnlineCell(double(lambda: columns()), input_gradient=True)
    weights = [p.detach() for p in module.parameters()]
    encoder = torch.nn.Linear(2, INPUTS, dtype=torch.float64)
    raw, states = series(STEPS, 2, dtype=torch.float64), (torch.zeros(UNITS, dtype=torch.float64),) * 2
    for z in raw:
        encoder.zero_grad()
        module(encoder(z)).sum().backward()
        found = {name: p.grad.numpy().copy() for name, p in encoder.named_parameters()}
        encoder.zero_grad()
        after = plain_step("LSTM", *weights, states, encoder(z))
        after[-1].sum().backward()
        close(found, {name: p.grad.numpy() for name, p in encoder.named_parameters()}, 1e-12)
        states = tuple(s.detach() for s in after)


def test_streams_have_input_gradients_of_their_own():
    cell = columns()
    xs = series(2, INPUTS).requires_grad_()
    OnlineCell(cell, streams=2, input_gradient=True)(xs).square().sum().backward()
    for x, gradient in zip(xs.detach(), xs.grad, strict=True):
        x = x.clone().requires_grad_()
        OnlineCell(cell, input_gradient=True)(x).square().sum().backward()
        assert torch.allclose(gradient, x.grad, atol=1e-7)


@pytest.mark.parametrize("rule", [ow.Columnwise(), ow.TBPTT(3)])
def test_weights_that_move_before_backward_do_not_change_the_gradient(rule):
    """It is the gradient at the weights of the call, though an optimiser changes tensors in place."""
    found = []
    for moves in (False, True):
        module = OnlineCell(columns(), rule, input_gradient=True)
        first, x = series(2, INPUTS)
        module(first)
        x.requires_grad_()
        features = module(x)
        if moves:
            with torch.no_grad():
                [p.mul_(3) for p in module.parameters()]
                [a.zero_() for a in (first, x)]
        features.square().sum().backward()
        found.append({**gradients(module), "x": x.grad.numpy()})
    for name, gradient in found[0].items():
        assert np.array_equal(found[1][name], gradient), name


def test_the_stream_goes_on_where_nobody_differentiates():
    found = []
    for quiet in (False, True):
        module = OnlineCell(columns())
        xs = series(STEPS, INPUTS)
        with torch.set_grad_enabled(not quiet):
            for x in xs[:-1]:
                module(x.requires_grad_() if quiet else x)
        module(xs[-1].detach()).sum().backward()
        found.append(gradients(module))
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def test_frozen_parameters_and_losses_kept_for_later():
    module = OnlineCell(columns())
    module.recurrent.requires_grad_(False)
    xs = series(STEPS, INPUTS)
    sum(module(x).sum() for x in xs).backward()
    assert module.recurrent.grad is None
    later = module.weight.grad.clone()
    module.zero_grad()
    module.reset()
    for x in xs:
        module(x).sum().backward()
    assert torch.allclose(later, module.weight.grad, rtol=1e-5)


def test_memory_does_not_grow_with_the_stream():
    module = OnlineCell(columns())
    counts = []
    for x in series(STEPS, INPUTS):
        module.zero_grad()
        module(x).sum().backward()
        counts.append(len(jax.live_arrays()))
    assert counts[2:] == [counts[2]] * (STEPS - 2)


def through_bytes(module):
    other = OnlineCell(cascade(), streams=2)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), through_bytes])
def test_a_copy_goes_on_to_the_bit_and_apart(again):
    module = OnlineCell(cascade(), streams=2)
    with torch.no_grad():
        [p.mul_(1.1) for p in module.parameters()]
    for x in series(5, 2, INPUTS):
        module(x)
    other = again(module)
    x = series(2, INPUTS, seed=4)
    said = []
    for each in (module, other):
        features = each(x)
        features.sum().backward()
        said.append((features.detach(), gradients(each)))
    assert torch.equal(said[0][0], said[1][0])
    assert all(np.array_equal(said[0][1][name], said[1][1][name]) for name in said[0][1])
    module(x)
    assert not torch.equal(module(x), other(x))


def young():
    """Of inputs without moments, which growth would hold."""
    return ow.Cascade(columns("GRU", normalise_features=ow.Moments(0.9)))


@pytest.mark.parametrize("streams", [None, 2])
def test_a_cascade_grows_and_goes_on(streams):
    module = OnlineCell(young(), streams=streams)
    twin = OnlineCell(young(), streams=streams)
    xs = series(STEPS, *([] if streams is None else [streams]), INPUTS)
    for x in xs[:6]:
        module(x)
        twin(x)
    before = [*module.parameters()]
    module.grow()
    assert not {*map(id, before)} & {*map(id, module.parameters())}
    assert tuple(module.get_parameter("stage.weight").shape) == (INPUTS + UNITS, 3, UNITS)
    assert module.cell.feature_count == 2 * UNITS
    cell, stream = module.cell, module.get_extra_state()
    assert {name.split(".")[0] for name in stream} == {"frozen", "carry", "credit", "steps", "seed"}
    for x in xs[6:]:
        features = module(x)
        if streams is None:  # several share the mean of their moments
            assert torch.allclose(features[:UNITS], twin(x), atol=1e-5)
        features.sum().backward()
    if streams is None:
        carry = young().init()
        start = cell_after(young(), carry, xs[:6])
        carry = eqx.tree_at(
            lambda c: (c.hidden[0], c.stats[0].features), cell.init(), (start.hidden[0], start.stats[0].features)
        )
        ones = jnp.ones((6, 2 * UNITS))
        ours = stepwise_gradient(cell, ow.Columnwise(), carry, jnp.asarray(xs[6:].numpy()), jnp.zeros(6, bool), ones)
        close(gradients(module), named_arrays(ours), 1e-5)


def cell_after(cell, carry, xs):
    for x in xs:
        carry = cell(carry, jnp.asarray(x.numpy()))
    return carry


def test_the_precision_is_that_of_the_cell_whatever_jax_is_set_to():
    said = []
    for wide in (False, True):
        module = OnlineCell(columns())
        with jax.enable_x64(wide):
            for x in series(5, INPUTS):
                features = module(x)
                features.sum().backward()
        assert features.dtype == module.weight.grad.dtype == torch.float32
        said.append((features.detach(), gradients(module)))
    assert torch.equal(said[0][0], said[1][0])
    assert all(np.array_equal(said[0][1][name], said[1][1][name]) for name in said[0][1])


def test_a_rule_that_draws_is_the_same_by_seed_and_draws_anew_at_each_step():
    found = []
    for seed in (0, 0, 1):
        module = OnlineCell(ow.GRU(INPUTS, UNITS, key=KEY), ow.UORO(), seed=seed, streams=2)
        for x in series(5, 2, INPUTS):
            module(x).sum().backward()
        found.append(module.weight.grad.clone())
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
    module.zero_grad()
    module.reset()
    for x in series(5, 2, INPUTS):
        module(x).sum().backward()
    assert not torch.allclose(found[2], module.weight.grad)


def moved(module, change):
    change(module)
    return module(torch.ones(INPUTS))


def widened(module):
    module.weight = torch.nn.Parameter(torch.ones(1, 4, UNITS))


MODULE = lambda **options: OnlineCell(columns(), **options)
ONES = torch.ones(INPUTS)
BAD = {
    "a tensor that requires grad": (
        lambda: MODULE()(torch.ones(INPUTS, requires_grad=True)),
        ValueError,
        r"x requires grad, but its gradient through earlier steps is not kept; give x.detach\(\), or say "
        r"OnlineCell\(..., input_gradient=True\) for the gradient through the present step alone",
    ),
    "an array of NumPy": (lambda: MODULE()(np.ones(3)), TypeError, "x must be a torch.Tensor, got ndarray"),
    "another width": (lambda: MODULE()(torch.ones(2)), ValueError, r"x must have the shape \(3,\), got \(2,\)$"),
    "a batch": (
        lambda: MODULE()(torch.ones(2, 3)),
        ValueError,
        r"x must have the shape \(3,\), got \(2, 3\); for parallel streams say OnlineCell\(..., streams=2\)",
    ),
    "another number of streams": (
        lambda: MODULE(streams=4)(torch.ones(2, 3)),
        ValueError,
        r"x must have the shape \(4, 3\), got \(2, 3\)$",
    ),
    "another precision": (
        lambda: MODULE()(ONES.double()),
        ValueError,
        "x must be of torch.float32, .* got torch.float64",
    ),
    "whole numbers": (lambda: MODULE()(ONES.int()), ValueError, "x must be of torch.float32, .* got torch.int32"),
    "another device": (
        lambda: MODULE()(ONES.to("meta")),
        ValueError,
        r"x must be a dense tensor on the CPU.*torch.strided on meta, give x.cpu\(\)",
    ),
    "a sparse tensor": (
        lambda: MODULE()(ONES.to_sparse()),
        ValueError,
        "dense tensor on the CPU.*torch.sparse_coo on cpu",
    ),
    "a module made double": (
        lambda: moved(MODULE(), lambda m: m.double()),
        ValueError,
        "parameter weight must be of torch.float32, .* got torch.float64; a cell made under jax.enable_x64",
    ),
    "a module moved away": (
        lambda: moved(MODULE(), lambda m: m.to("meta")),
        ValueError,
        r"parameter weight must be a dense tensor on the CPU.*on meta, give weight.cpu\(\)",
    ),
    "a parameter of another shape": (
        lambda: moved(MODULE(), widened),
        ValueError,
        r"parameter weight must have the shape \(3, 4, 4\), got \(1, 4, 4\)$",
    ),
    "no cell": (lambda: OnlineCell(torch.nn.LSTM(3, 4)), TypeError, r"cell must be a cell of onward .*, got LSTM"),
    "no rule": (lambda: OnlineCell(columns(), "exact"), TypeError, r"rule must be a credit rule .*, got str"),
    "a rule for other cells": (
        lambda: OnlineCell(ow.GRU(3, 4, key=KEY), ow.Columnwise()),
        TypeError,
        "Columnwise needs columns that do not read one another .* got Dense; use RTRL",
    ),
    "half precision": (
        lambda: OnlineCell(jax.tree.map(lambda a: a.astype(jnp.float16) if eqx.is_array(a) else a, columns())),
        ValueError,
        r"must be all of float32 or all of float64, got \['float16'\]",
    ),
    "no streams": (lambda: MODULE(streams=0), ValueError, "streams must be a whole number of at least 1, got 0"),
    "a seed that is none": (lambda: MODULE(seed=-1), ValueError, "seed must be a whole number of at least 0, got -1"),
    "a reset of streams where there is one": (
        lambda: MODULE().reset(torch.tensor([True])),
        ValueError,
        r"reset takes nothing, for there is one stream; got \(1,\) of torch.bool",
    ),
    "a reset of other streams": (
        lambda: MODULE(streams=2).reset(torch.ones(3)),
        ValueError,
        r"reset takes \(2,\) of bool; got \(3,\) of torch.float32",
    ),
    "growth of what does not grow": (lambda: MODULE().grow(), TypeError, "only a Cascade grows, got Columns"),
    "a state of another rule": (
        lambda: OnlineCell(columns(), ow.TBPTT(3)).load_state_dict(MODULE().state_dict()),
        ow.Unreadable,
        "the state_dict of an OnlineCell lacks credit",
    ),
    "a state of more streams": (
        lambda: MODULE().load_state_dict(MODULE(streams=2).state_dict()),
        ow.Unreadable,
        r"carry.hidden.0 is float32\[2, 4\], float32\[4\] is needed",
    ),
    "a second derivative": (
        lambda: (
            torch.autograd.grad((m := MODULE())(ONES).square().sum(), m.weight, create_graph=True)[0].sum().backward()
        ),
        RuntimeError,
        "once_differentiable",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_input_is_refused_in_a_line(what):
    act, kind, said = BAD[what]
    with pytest.raises(kind, match=said) as error:
        act()
    assert "\n" not in str(error.value)


def test_a_refused_call_changes_nothing():
    module, twin = MODULE(), MODULE()
    with pytest.raises(ValueError, match="requires grad"):
        module(torch.ones(INPUTS, requires_grad=True))
    with pytest.raises(TypeError, match="grows"):
        module.grow()
    assert torch.equal(module(ONES), twin(ONES))


def test_what_is_not_installed_is_said_in_a_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "onward.adapters.torch")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r'^onward.adapters.torch needs torch: pip install "onward\[torch\]"; from'):
        import onward.adapters.torch  # noqa: F401
