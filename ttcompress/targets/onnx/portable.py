"""Makes a graph one that more runtimes load: self-contained bodies, and older opsets.

ONNX lets the body of a Scan read values of the graph around it. OpenVINO takes only what the Scan
is given, and stored constants. So values computed from constants are computed inside the body that
reads them; a runtime folds these nodes there as it does outside: once, when it loads the file.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    defs,
    helper,
    version_converter,
)

from ttcompress.errors import TTCompressError

NATIVE_OPSET = 18
"""The lowest that torch's exporter writes."""

NIBBLE_OPSET = 21
"""The first with 4-bit tensors."""

_HELD = "held"
"""A domain that the version converter does not look into."""


def lower_opset(model: ModelProto, opset: int) -> ModelProto:
    """Write a model in an opset below its own, in place where possible.

    The version converter refuses operators that only got more number types in between. So it sees
    those alone whose inputs or attributes changed; all others are what they were.

    Raises:
        TTCompressError: an operator of the model has no form in that opset.
    """
    changed = set[str]()
    for node in all_nodes(model.graph):
        if node.op_type == "Split":  # below 18, as many equal parts as there are outputs
            kept = [one for one in node.attribute if one.name != "num_outputs"]
            del node.attribute[:]
            node.attribute.extend(kept)
        if _fits(node, opset):
            node.domain = node.domain or _HELD
        else:
            changed.add(node.op_type)
    if changed:
        model.opset_import.append(helper.make_opsetid(_HELD, 1))
        try:
            model = version_converter.convert_version(model, opset)
        except Exception as error:  # of C++, with no common base
            raise TTCompressError(
                f"opset {opset} has no form of {' or '.join(sorted(changed))} as the model uses it."
                f" Choose a higher one with --opset, up to {NATIVE_OPSET} if need be."
            ) from error
    for node in all_nodes(model.graph):
        node.domain = "" if node.domain == _HELD else node.domain
    kept_domains = [one for one in model.opset_import if one.domain not in ("", _HELD)]
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", opset), *kept_domains])
    return model


def _fits(node: NodeProto, opset: int) -> bool:
    """Whether an opset has the operator with these inputs and attributes."""
    if node.domain or not defs.has(node.op_type, opset):
        return bool(node.domain)
    schema = defs.get_schema(node.op_type, opset)
    attributes = {attribute.name for attribute in node.attribute}
    return len(node.input) <= schema.max_input and attributes <= schema.attributes.keys()


def lowest_ir(model: ModelProto) -> int:
    """The lowest IR version that has the model's opset; older runtimes refuse newer ones."""
    return helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)


def close_bodies(graph: GraphProto) -> None:
    """Copy what bodies read of values computed from constants into them, and remove the rest."""
    makers = {name: node for node in graph.node for name in node.output}
    constants = _constants(graph)
    for k, node in enumerate(graph.node):
        for body in bodies(node):
            wanted = [name for name in _outer(body) if name in constants and name in makers]
            if wanted:
                _copy_into(body, _ancestry(wanted, graph, makers), prefix=f"body{k}_")
            close_bodies(body)
    _remove_unused(graph)


def split_gemms(graph: GraphProto) -> None:
    """Replace every plain Gemm by MatMul and Add: inside a Scan, ONNX Runtime rounds only MatMul.

    It makes a Gemm of the two again when it loads the file.
    """
    nodes = [part for node in graph.node for part in _split(node)]
    del graph.node[:]
    graph.node.extend(nodes)
    for node in graph.node:
        for body in bodies(node):
            split_gemms(body)


def _split(node: NodeProto) -> Iterator[NodeProto]:
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plain = settings.items() <= {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}.items()
    if node.op_type != "Gemm" or not plain or len(node.input) < 3:
        yield node
        return
    product = f"{node.output[0]}_product"
    yield helper.make_node("MatMul", node.input[:2], [product], f"{node.name}_product")
    yield helper.make_node("Add", [product, node.input[2]], node.output, f"{node.name}_sum")


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs that a node holds."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Those of a graph and of the bodies in it."""
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from all_nodes(body)


def _constants(graph: GraphProto) -> set[str]:
    """The names of values that follow from stored constants alone."""
    known = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        if not any(bodies(node)) and known.issuperset(node.input):
            known.update(node.output)
    return known - {""}


def _outer(graph: GraphProto) -> dict[str, None]:
    """The names that a body, or one inside it, reads of the graphs around it, in their order."""
    own = {value.name for value in (*graph.input, *graph.initializer)}
    own.update(name for node in graph.node for name in node.output)
    read = [name for node in graph.node for name in node.input]
    read += [name for node in graph.node for body in bodies(node) for name in _outer(body)]
    read += [value.name for value in graph.output]
    return dict.fromkeys(name for name in read if name and name not in own)


def _ancestry(
    wanted: list[str], graph: GraphProto, makers: dict[str, NodeProto]
) -> list[NodeProto]:
    """The nodes that compute these values, in the order of the graph."""
    names, seen = list(wanted), set[str]()
    while names:
        if (name := names.pop()) in makers and name not in seen:
            seen.update(makers[name].output)
            names += makers[name].input
    return [node for node in graph.node if not seen.isdisjoint(node.output)]


def _copy_into(body: GraphProto, nodes: list[NodeProto], prefix: str) -> None:
    """Put copies of nodes before those of a body; names may not be those of the graph around it."""
    renamed = {name: prefix + name for node in nodes for name in node.output}
    own = list(body.node)
    del body.node[:]
    for node in nodes:
        copy = body.node.add()
        copy.CopyFrom(node)
        copy.name = prefix + node.name
        _rename(copy, renamed)
    for node in own:
        _rename(node, renamed)
        body.node.append(node)


def _rename(node: NodeProto, renamed: dict[str, str]) -> None:
    for names in (node.input, node.output):
        for k, name in enumerate(names):
            names[k] = renamed.get(name, name)
    for body in bodies(node):
        for inner in body.node:
            _rename(inner, renamed)


def _remove_unused(graph: GraphProto) -> None:
    """Remove nodes whose outputs nothing reads."""
    used = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not used.isdisjoint(node.output):
            kept.append(node)
            used.update(node.input)
            used.update(name for body in bodies(node) for name in _outer(body))
    del graph.node[:]
    graph.node.extend(reversed(kept))
