"""Weights in blocks of small integers, by ONNX Runtime.

    w ~ s_b * q,  q in [-2^(bits-1), 2^(bits-1) - 1],   s_b = (largest w of the block, with its sign) / -2^(bits-1)

A block is `group_size` weights of one output channel. The products are the operator MatMulNBits, which rounds what goes
in to 8 bits, each block by its own range.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from limbeck.compression._graph import layers_of, read
from limbeck.core.errors import MissingExtra, ModelError
from limbeck.core.patterns import named
from limbeck.core.quiet import quiet
from limbeck.exporters._graph import save

if TYPE_CHECKING:
    import onnx

_ACCURACY = 4
"""Activations as 8-bit integers within a product, in ONNX Runtime's count."""


def blockwise(
    source: Path,
    target: Path,
    bits: Literal[4, 8],
    group_size: int,
    keep: Sequence[str] = (),
    only: str | None = None,
) -> dict[str, Any]:
    """Write a graph whose products have weights in blocks of integers.

    A table of embeddings that is tied to the head is looked up in the head's integers. Other tables stay.

    Args:
        source: an ONNX file.
        target: takes the compressed one.
        bits: of a weight.
        group_size: weights that share a scale.
        keep: layers that stay as they are, by name, with `*`.
        only: the one layer that is compressed; None: all that are not kept.

    Returns:
        What the manifest should tell.

    Raises:
        RecipeError: `keep` names a layer that is not there.
        ModelError: no layer can be compressed.
        MissingExtra: onnxruntime is not installed.
    """
    try:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    except ImportError as error:
        raise MissingExtra("integers in blocks", "onnx") from error
    model = read(source)
    layers = layers_of(model)
    left = named(keep, list(layers), "compress.keep")
    chosen = [only] if only is not None else [name for name in layers if name not in left]
    nodes = [node for name in chosen for node in layers[name].nodes]
    if not nodes:
        raise ModelError("no layer of the student is left to compress", got=", ".join(left) or "no weights")
    with quiet("root", "onnxruntime.quantization"):
        made = MatMulNBitsQuantizer(
            model,
            bits=bits,
            block_size=group_size,
            is_symmetric=True,
            accuracy_level=_ACCURACY,
            nodes_to_exclude=[node.name for node in model.graph.node if node.name not in nodes],
            op_types_to_quantize=("MatMul",),
        )
        made.process()
    _look_up(made.model.model, bits, group_size)
    made.model.clean_initializers()
    save(made.model.model, target)
    still = {node.name for node in made.model.model.graph.node}
    unchanged = [name for name in chosen if still >= set(layers[name].nodes)]
    if unchanged == chosen and only is None:
        raise ModelError("ONNX Runtime quantizes none of the layers", got=", ".join(chosen[:8]))
    return {"layers": len(chosen) - len(unchanged), "kept": sorted(left), "unchanged": unchanged}


def _look_up(model: onnx.ModelProto, bits: int, group_size: int) -> None:
    """Look embeddings up in the integers of the head that they are tied to: V rows of D weights.

    Builders write such a table as the head's weight [D, V], turned; that would stay beside the integers.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    packed = {tensor.name: tensor for tensor in graph.initializer}
    for turned in [node for node in graph.node if node.op_type == "Transpose"]:
        weight = turned.input[0]
        integers = packed.get(f"{weight}_Q{bits}")
        users = [node for node in graph.node if turned.output[0] in node.input]
        if integers is None or len(users) != 1 or users[0].op_type != "Gather":
            continue
        rows, blocks, size = integers.dims
        if blocks * group_size != packed[weight].dims[0]:  # padded: a row would be too long
            continue
        shape = numpy_helper.from_array(np.array([rows, blocks * size], dtype=np.int64), f"{weight}_shape")
        graph.initializer.append(shape)
        gather, flat = users[0], f"{weight}_rows"
        looked_up = [
            helper.make_node("Reshape", [integers.name, shape.name], [flat], name=f"{turned.name}_rows"),
            helper.make_node(
                "GatherBlockQuantized",
                [flat, gather.input[1], f"{weight}_scales"],
                list(gather.output),
                name=f"{gather.name}_Q{bits}",
                domain="com.microsoft",
                bits=bits,
                block_size=group_size,
                gather_axis=0,
                quantize_axis=1,
            ),
        ]
        place = list(graph.node).index(gather)
        after = [*list(graph.node)[:place], *looked_up, *list(graph.node)[place + 1 :]]
        del graph.node[:]
        graph.node.extend(node for node in after if node != turned)
