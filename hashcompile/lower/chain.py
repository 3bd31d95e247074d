"""Regions of a network in which activations can stay 8-bit integers: chains of steps.

Given:  %c = aten.conv2d(%x, %w, %b);  %s = aten.add(%c, %r);  %y = aten.relu(%s);  %p = aten.max_pool2d(%y, ...)
Result: Step(CONV, source=x, other=r, nodes=(c, s, y), activation=RELU), Step(MAX_POOL, source=y, nodes=(p,))

A chain is convex: no path leaves it and comes back, so one node can stand for it. Every value gets a level, the number
of times that a path to it left the steps; steps of one level, connected by the tensors between them, make a chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import fx

from hashcompile.core.layers import arguments
from hashcompile.core.onnx_op import OnnxOp
from hashcompile.lower.pointwise import Activation, activation_of, addends_of
from hashcompile.lower.steps import Chain, Kind, Step
from hashcompile.lower.subsample import subsample_of
from hashcompile.lower.windows import is_image, match_window


def find_chains(graph: fx.Graph, ops: Mapping[fx.Node, OnnxOp]) -> tuple[Chain, ...]:
    """The chains of a graph, in the order of their last steps; `ops` are the nodes that our kernels take.

    There are none where an operator works in place: a step must see the values that the graph's order gives it.
    """
    nodes = list(graph.nodes)
    if any(mutates(node) for node in nodes):
        return ()
    steps = find_steps(nodes, ops)
    order = {node: position for position, node in enumerate(nodes)}
    chains = [
        chain
        for members in regions(nodes, steps)
        if worthwhile(chain := make_chain(sorted(members, key=lambda step: order[step.output])))
    ]
    return tuple(chains)


def mutates(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


def find_steps(nodes: Iterable[fx.Node], ops: Mapping[fx.Node, OnnxOp]) -> dict[fx.Node, Step]:
    """Every step by its output; what follows a convolution is taken into its step where nobody else reads it."""
    steps: dict[fx.Node, Step] = {}
    order: dict[fx.Node, int] = {}
    for position, node in enumerate(nodes):
        order[node] = position
        if is_image(node) and (activation := activation_of(node)) is not None:
            of = node.args[0]
            step = steps.get(of) if isinstance(of, fx.Node) else None
            if step is not None and step.activation is Activation.NONE and only_reader(node, step.output):
                del steps[step.output]
                which, low, high = activation
                steps[node] = replace(step, nodes=(*step.nodes, node), activation=which, low=low, high=high)
        elif is_image(node) and (addends := addends_of(node)) is not None:
            open_ended = [
                (order[step.output], step, other)
                for addend, other in (addends, addends[::-1])
                if (step := steps.get(addend)) is not None
                and takes_residual(step)
                and only_reader(node, addend)
                and other is not addend
            ]
            if open_ended:
                _, step, other = max(open_ended, key=lambda entry: entry[0])
                del steps[step.output]
                steps[node] = replace(step, nodes=(*step.nodes, node), other=other)
            else:
                steps[node] = Step(Kind.ADD, addends[0], (node,), other=addends[1])
        elif (step := subsampling(node, steps)) is not None:
            if len(step.nodes) > 1:
                del steps[step.nodes[-2]]
            steps[node] = step
        elif (step := match_window(node, ops)) is not None:
            steps[node] = step
    # a copy is worth no rounding
    return {output: step for output, step in steps.items() if not (step.subsample and step.subsample.is_copy)}


def only_reader(node: fx.Node, of: fx.Node) -> bool:
    return set(of.users) == {node}


def takes_residual(step: Step) -> bool:
    return step.kind is Kind.CONV and step.other is None and step.activation is Activation.NONE


def subsampling(node: fx.Node, steps: Mapping[fx.Node, Step]) -> Step | None:
    """The step of a slice or a pad, joined with the one it reads where nobody else does."""
    found = subsample_of(node) if is_image(node) else None
    if found is None:
        return None
    source = arguments(node)["self"]
    earlier = steps.get(source)
    if earlier is None or not earlier.keeps_levels or not only_reader(node, source):
        return Step(Kind.SUBSAMPLE, source, (node,), window=found.window, subsample=found)
    assert earlier.subsample is not None
    both = earlier.subsample.then(found)
    return replace(earlier, nodes=(*earlier.nodes, node), window=both.window, subsample=both)


def regions(nodes: Iterable[fx.Node], steps: Mapping[fx.Node, Step]) -> list[list[Step]]:
    """Steps that belong together, each list of one level and connected."""
    level: dict[fx.Node, int] = {}
    region: dict[fx.Node, list[Step]] = {}
    for node in nodes:
        step = steps.get(node)
        if step is None:
            level[node] = max((level[read] + (read in steps) for read in node.all_input_nodes), default=0)
            continue
        level[node] = max(level[read] for read in step.reads)
        region[node] = [step]
        for read in step.reads:
            if read in steps and level[read] == level[node] and region[read] is not region[node]:
                joined = region[read] + region[node]
                region.update((member.output, joined) for member in joined)
    return list({id(members): members for members in region.values()}.values())


def make_chain(steps: list[Step]) -> Chain:
    inside = {step.output for step in steps}
    within = {node for step in steps for node in step.nodes}
    inputs = dict.fromkeys(read for step in steps for read in step.reads if read not in inside)
    outputs = tuple(step.output for step in steps if any(user not in within for user in step.output.users))
    return Chain(tuple(inputs), tuple(steps), outputs)


def worthwhile(chain: Chain) -> bool:
    """At least two convolutions, one of them on a tensor that never has to be float."""
    inside = {step.output for step in chain.steps}
    kept = any(read in inside for step in chain.convolutions for read in step.reads)
    return kept and len(chain.convolutions) > 1
