"""How deep and how dear a query is, told before anything of it is run. Pure.

The cost of a field is 1, times how many may be around it: a list counts as often as its `first` lets it, so that two
lists of 100 inside each other cost 10,000. Aliases, fragments and operations are counted as what they stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
)

from services.registry.graphql.limits import (
    LISTS,
    MOST_COST,
    MOST_DEPTH,
    MOST_FIRST,
    MOST_INTROSPECTION_DEPTH,
    MOST_STEPS,
    USUAL_FIRST,
    QueryTooDear,
    QueryTooDeep,
)


@dataclass(slots=True)
class _Counting:
    fragments: dict[str, FragmentDefinitionNode]
    variables: Mapping[str, Any]
    steps: int = 0


def cost_of(document: DocumentNode, variables: Mapping[str, Any]) -> int:
    """The cost of all operations. Raises QueryTooDeep or QueryTooDear."""
    fragments = {one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)}
    counting = _Counting(fragments, variables)
    cost = 0
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            cost += _cost(definition.selection_set, 1, 1, counting, frozenset(), introspecting=False)
    if cost > MOST_COST:
        raise QueryTooDear(f"the query costs {cost}, and {MOST_COST} is the most; ask for less with `first`", cost=cost)
    return cost


def _cost(
    selected: SelectionSetNode,
    depth: int,
    times: int,
    counting: _Counting,
    inside: frozenset[str],
    *,
    introspecting: bool,
) -> int:
    most = MOST_INTROSPECTION_DEPTH if introspecting else MOST_DEPTH
    if depth > most:
        raise QueryTooDeep(f"the query is nested deeper than {most} levels, which is the most")
    cost = 0
    for node in selected.selections:
        counting.steps += 1
        if counting.steps > MOST_STEPS:
            raise QueryTooDear(f"the query stands for more than {MOST_STEPS} fields")
        if isinstance(node, FieldNode):
            cost += times
            if node.selection_set is not None:
                within = introspecting or node.name.value.startswith("__")
                more = times * _first(node, counting.variables)
                cost += _cost(node.selection_set, depth + 1, more, counting, inside, introspecting=within)
        elif isinstance(node, InlineFragmentNode):
            cost += _cost(node.selection_set, depth, times, counting, inside, introspecting=introspecting)
        elif isinstance(node, FragmentSpreadNode):
            name = node.name.value
            fragment = counting.fragments.get(name)
            if fragment is not None and name not in inside:  # a circle, or none of that name, is refused by validation
                cost += _cost(
                    fragment.selection_set, depth, times, counting, inside | {name}, introspecting=introspecting
                )
    return cost


def _first(node: FieldNode, variables: Mapping[str, Any]) -> int:
    """How many there may be of what a field gives; an argument that is out of bounds is refused where it is read."""
    if node.name.value not in LISTS:
        return 1
    first: Any = USUAL_FIRST
    for argument in node.arguments:
        if argument.name.value == "first":
            if isinstance(argument.value, IntValueNode):
                first = int(argument.value.value[:9])
            elif isinstance(argument.value, VariableNode):
                first = variables.get(argument.value.name.value, MOST_FIRST)
    return min(max(first, 1), MOST_FIRST) if isinstance(first, int) else MOST_FIRST
