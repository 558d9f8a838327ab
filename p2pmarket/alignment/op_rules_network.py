"""Rules of the rest of a network: norms, pooling, reductions, activations with parameters, new tensors.

Knows: a norm's statistic does not depend on the order of what it sums over, so its axes stay free. Fails with Misfit
where a call is not one that the rule covers.
"""

from __future__ import annotations

from p2pmarket.alignment.axes import Leaf, Misfit
from p2pmarket.alignment.op_rules import Call, Dims, Made, operands, place, pointwise, rule


@rule("batch_norm", "instance_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm")
def _batch_norm(call: Call) -> Made:
    value: Dims = call["input"]
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call[name] is not None:
            call.unify(value[1], call[name][0])
    return value if isinstance(call.shapes, tuple) else [value, *(_free(shape) for shape in call.shapes[1:])]


@rule("layer_norm", "rms_norm", "native_layer_norm")
def _layer_norm(call: Call) -> Made:
    value: Dims = call["input"]
    for name in ("weight", "bias"):
        if call[name] is not None:
            call.broadcast(value, call[name])
    return value if isinstance(call.shapes, tuple) else [value, *(_free(shape) for shape in call.shapes[1:])]


def _free(shape: tuple[int, ...]) -> Dims:
    if any(size > 1 for size in shape):
        raise Misfit("a norm's statistics are used")
    return tuple(Leaf(size) for size in shape)


@rule("group_norm")
def _group_norm(call: Call) -> Made:
    value: Dims = call["input"]
    channels = value[1]
    call.regroup(channels, [call["num_groups"], channels.size // call["num_groups"]])
    for name in ("weight", "bias"):
        if call[name] is not None:
            call.unify(channels, call[name][0])
    return value


@rule(
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d", "lp_pool1d", "lp_pool2d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d",
    "upsample_bicubic2d", "upsample_trilinear3d", "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa", "grid_sampler", "reflection_pad1d", "reflection_pad2d", "replication_pad1d",
    "replication_pad2d", "replication_pad3d", "max_pool2d_with_indices",
)  # fmt: skip
def _spatial(call: Call) -> Made:
    """Channels stay; what slides over or resamples the other axes pins them, unless it takes all of them at once."""
    value: Dims = call["self"] if "self" in call.arguments else call["input"]
    many = not isinstance(call.shapes, tuple)
    shape = call.shapes[0] if many else call.shapes
    count = 3 if "3d" in call.op else 2 if "2d" in call.op or call.op == "grid_sampler" else 1
    made = list(value)
    for axis in range(len(value) - count, len(value)):
        if shape[axis] == 1 and "adaptive" in call.op:
            made[axis] = Leaf(1)
        elif shape[axis] != value[axis].size or "adaptive" not in call.op:
            call.pin(value[axis], f"{call.op} slides along it")
            made[axis] = call.fixed(shape[axis], f"{call.op} slides along it")
    if call.op == "grid_sampler":
        for term in call["grid"]:
            call.pin(term, "grid_sampler reads at places")
    return [tuple(made), tuple(made)] if many else tuple(made)


@rule(
    "sum", "mean", "amax", "amin", "prod", "var", "std", "logsumexp", "any", "all", "norm", "linalg_vector_norm",
    "var_mean", "std_mean", "max", "min", "aminmax", "nansum", "nanmean", "median", "count_nonzero",
)  # fmt: skip
def _reduction(call: Call) -> Made:
    """The order of what is reduced does not matter."""
    value: Dims = call["self"]
    if "other" in call.arguments:
        return pointwise(call)
    dim = call["dim"]
    out = range(len(value)) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    out = {place(value, axis) for axis in out}
    if call.op in ("max", "min", "median") and isinstance(call["dim"], int):
        for axis in out:
            call.pin(value[axis], f"{call.op} tells where it found it")
    if call["keepdim"]:
        left = tuple(Leaf(1) if axis in out else term for axis, term in enumerate(value))
    else:
        left = tuple(term for axis, term in enumerate(value) if axis not in out)
    return left if isinstance(call.shapes, tuple) else [left] * len(call.shapes)


@rule("argmax", "argmin", "topk", "sort", "argsort", "kthvalue")
def _ordering(call: Call) -> Made:
    """What says where something lies tells positions apart."""
    value: Dims = call["self"]
    if call["dim"] is None:
        raise Misfit("an order of all positions")
    axis = place(value, call["dim"])
    reason = f"{call.op} tells where it found it"
    call.pin(value[axis], reason)
    shapes = [call.shapes] if isinstance(call.shapes, tuple) else call.shapes
    made = [
        tuple(call.fixed(shape[axis], reason) if place_ == axis else term for place_, term in enumerate(value))
        if len(shape) == len(value)
        else value[:axis] + value[axis + 1 :]
        for shape in shapes
    ]
    return made[0] if isinstance(call.shapes, tuple) else made


@rule(
    "softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax", "softmin", "masked_fill", "fill", "copy",
    "zero", "where", "feature_dropout", "native_dropout", "alpha_dropout", "rrelu", "clamp",
    "isnan", "isinf", "isfinite", "logical_not", "logical_and", "logical_or", "__and__", "__or__", "lerp", "addcmul",
    "addcdiv", "hardtanh", "relu6", "celu", "selu", "elu", "mish", "nan_to_num", "normal", "rsub", "softplus",
    "gelu", "silu", "leaky_relu", "hardswish", "hardsigmoid", "log_sigmoid", "square", "float_power", "true_divide",
    "divide", "multiply", "subtract", "negative", "floor_divide", "ones_like", "zeros_like", "full_like", "empty_like",
)  # fmt: skip
def _pointwise(call: Call) -> Made:
    return pointwise(call)


@rule("prelu")
def _prelu(call: Call) -> Made:
    value, weight = call["self"], call["weight"]
    if weight and weight[0].size > 1:
        call.unify(value[1 if len(value) > 1 else 0], weight[0])
    return tuple(value)


@rule("_weight_norm")
def _weight_norm(call: Call) -> Made:
    """Norms over all axes but one, whose order does not matter, times one length for each position of that axis."""
    return call.broadcast(call["v"], call["g"])


@rule("glu")
def _glu(call: Call) -> Made:
    value: Dims = call["self"]
    axis = place(value, call["dim"])
    half = value[axis].size // 2
    first, second = call.cut(value[axis], [half, half])
    return (*value[:axis], call.unify(first, second), *value[axis + 1 :])


@rule("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "scalar_tensor")
def _filled(call: Call) -> Made:
    """One number everywhere: free."""
    return tuple(Leaf(size) for size in call.shapes)


@rule("arange", "linspace", "eye", "tril_indices", "triu_indices", "logspace", "hann_window", "range")
def _counted(call: Call) -> Made:
    return tuple(call.fixed(size, f"{call.op} counts positions") for size in call.shapes)


@rule("rand", "randn", "rand_like", "randn_like", "bernoulli", "randint", "randperm", "multinomial")
def _random(call: Call) -> Made:
    for dims in operands(call):
        for term in dims:
            call.pin(term, "noise is drawn for every position")
    return tuple(call.fixed(size, "noise is drawn for every position") for size in call.shapes)
