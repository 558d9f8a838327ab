"""Rules of operations that contract: linear maps, products of matrices, einsum, convolutions, attention, embeddings.

Knows: which axes each of them sums over (the two summed axes are one) and which it keeps.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pmarket.alignment import axes
from p2pmarket.alignment.axes import Misfit, Term
from p2pmarket.alignment.op_rules import Call, Dims, Made, Stack, operands, rule


@rule("linear")
def _linear(call: Call) -> Made:
    value, weight, bias = call["input"], call["weight"], call["bias"]
    call.unify(value[-1], weight[-1])
    made = (*value[:-1], *weight[:-1])
    if bias is not None:
        call.broadcast(made, bias)
    return made


@rule("matmul", "mm", "bmm", "mv", "dot", "vdot")
def _matmul(call: Call) -> Made:
    return _product(
        call, call["self"], next(call[name] for name in ("other", "mat2", "vec", "tensor") if name in call.arguments)
    )


def _product(call: Call, first: Dims, second: Dims) -> Dims:
    inner = second[-2] if len(second) > 1 else second[-1]
    call.unify(first[-1], inner)
    batch = call.broadcast(first[:-2], second[:-2])
    return (*batch, *first[-2:-1], *(second[-1:] if len(second) > 1 else ()))


@rule("addmm", "addbmm", "baddbmm", "addmv")
def _addmm(call: Call) -> Made:
    if call.op == "addbmm":
        raise Misfit("a sum over a batch of products")
    first, second = (("batch1", "batch2"), ("mat1", "mat2"), ("mat", "vec"))[
        ("baddbmm", "addmm", "addmv").index(call.op)
    ]
    return call.broadcast(_product(call, call[first], call[second]), call["self"])


@rule("_grouped_mm", "transformers::grouped_mm_fallback")
def _grouped_matmul(call: Call) -> Made:
    """Rows sorted by group, each group with its own matrix: which rows belong together is data."""
    value, weight, *_ = operands(call)
    for term in (weight[0], value[0]):
        call.pin(term, "groups are told apart by data")
    call.unify(value[1], weight[1])
    return (value[0], weight[2])


@rule("outer", "ger")
def _outer(call: Call) -> Made:
    return (*call["self"], *(call["vec2"] or call["other"]))


@rule("bilinear")
def _bilinear(call: Call) -> Made:
    one, other, weight = call["input1"], call["input2"], call["weight"]
    call.unify(one[-1], weight[1])
    call.unify(other[-1], weight[2])
    if call["bias"] is not None:
        call.unify(weight[0], call["bias"][0])
    return (*call.broadcast(one[:-1], other[:-1]), weight[0])


@rule("einsum")
def _einsum(call: Call) -> Made:
    inputs, arrow, result = call["equation"].replace(" ", "").partition("->")
    names = inputs.split(",")
    if not arrow:
        letters = inputs.replace(",", "").replace(".", "")
        result = ("..." if "." in inputs else "") + "".join(
            sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        )
    known: dict[str, Term] = {}
    rest: list[Dims] = []
    for name, dims in zip(names, call["tensors"], strict=True):
        head, dots, tail = name.partition("...")
        end = len(dims) - len(tail)
        if dots:
            rest.append(dims[len(head) : end])
        for letter, term in zip(head + tail, [*dims[: len(head)], *(dims[end:] if dots else ())], strict=True):
            if term.size != 1 or letter not in known:
                known[letter] = call.unify(known[letter], term) if known.get(letter, term).size != 1 else term
    head, dots, tail = result.partition("...")
    return tuple(
        [known[letter] for letter in head] + list(call.broadcast(*rest) if dots else ()) + [known[x] for x in tail]
    )


@rule("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _convolution(call: Call) -> Made:
    value, weight, groups = call["input"], call["weight"], call["groups"] or 1
    transposed = "transpose" in call.op or bool(call["transposed"])
    kernel = weight[2:]
    channel = len(value) - len(kernel) - 1
    inputs, outputs = value[channel], weight[0]
    if transposed:
        inner, outer, made = weight[0], inputs, weight[1]
        call.unify(inner, outer)
        if groups > 1:
            group, _ = call.regroup(inputs, [groups, inputs.size // groups])
            made = axes.product([group, made])
    else:
        made = outputs
        group, inside = call.regroup(inputs, [groups, inputs.size // groups])
        call.unify(inside, weight[1])
        if groups > 1:
            call.unify(group, call.regroup(outputs, [groups, outputs.size // groups])[0])
    if call["bias"] is not None:
        call.unify(made, call["bias"][0])
    spatial = []
    for term, size, taps in zip(value[channel + 1 :], call.shapes[channel + 1 :], kernel, strict=True):
        call.pin(taps, "positions of a convolution's kernel")
        if taps.size == 1 and term.size == size:
            spatial.append(term)
            continue
        call.pin(term, "a convolution slides along it")
        spatial.append(call.fixed(size, "a convolution slides along it"))
    return (*value[:channel], made, *spatial)


@rule("scaled_dot_product_attention")
def _attention(call: Call) -> Made:
    query, key, value = call["query"], call["key"], call["value"]
    if call["enable_gqa"]:
        heads, groups = query[-3], key[-3]
        outer, inner = call.regroup(heads, [groups.size, heads.size // groups.size])
        call.unify(outer, groups, value[-3])
        key, value = ((*part[:-3], axes.product([groups, inner]), *part[-2:]) for part in (key, value))
    call.unify(query[-1], key[-1])
    call.unify(key[-2], value[-2])
    batch = call.broadcast(query[:-2], key[:-2], value[:-2])
    scores = (*batch, query[-2], key[-2])
    if call["is_causal"]:
        for term in scores[-2:]:
            call.pin(term, "a causal mask depends on positions")
    if call["attn_mask"] is not None:
        call.broadcast(scores, call["attn_mask"])
    return (*batch, query[-2], value[-1])


@rule("embedding")
def _embedding(call: Call) -> Made:
    weight, index = call["weight"], call["indices"]
    call.pin(weight[0], "an index names its rows")
    return (*index, *weight[1:])


@rule("one_hot")
def _one_hot(call: Call) -> Made:
    return (*call["self"], call.fixed(call.shapes[-1], "an index names its positions"))


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(call: Call) -> Made:
    """Each layer and direction has its hidden units; a weight's rows are `gates` times these."""
    value, parameters = call["input"], call["params"]
    if not isinstance(call["num_layers"], int) or value is None:
        raise Misfit("a packed sequence")
    directions, layers, biased = 2 if call["bidirectional"] else 1, call["num_layers"], call["has_biases"]
    each = 4 if biased else 2
    if len(parameters) != each * directions * layers:
        raise Misfit("projections of the hidden units")
    gates = {"lstm": 4, "gru": 3}.get(call.op, 1)
    below: Term = value[-1]
    hidden: list[Term] = []
    for layer in range(layers):
        here: list[Term] = []
        for direction in range(directions):
            first = each * (layer * directions + direction)
            inputs, recurrent, *biases = parameters[first : first + each]
            unit = recurrent[1]
            call.unify(inputs[1], below)
            for rows in (inputs[0], recurrent[0], *(bias[0] for bias in biases)):
                call.unify(rows, axes.join([unit] * gates))
            here.append(unit)
        hidden += here
        below = axes.join(here)
    time = value[-2] if call["batch_first"] or len(value) == 2 else value[0]
    call.pin(time, "steps of a recurrence come in order")
    states: Sequence[Dims] = call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
    if "hx" not in call.blank:
        for state in states:
            for unit in hidden:
                call.unify(state[-1], unit)
    batch = () if len(value) == 2 else (value[0 if call["batch_first"] else 1],)
    last = tuple((*batch, unit) for unit in hidden)
    return [(*value[:-1], below), *(Stack(0, last) for _ in states)]
