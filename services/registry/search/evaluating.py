"""A question as the set of versions that answer it."""

from __future__ import annotations

from pyroaring import BitMap

from services.registry.search.asking import And, Compare, Has, Is, Leaf, Like, Not, Or, Question, Word, leaves
from services.registry.search.bitmaps import union
from services.registry.search.facts import ALL, MANY, presence, term
from services.registry.search.view import View

ANY = "%"


async def load(view: View, question: Question) -> None:
    """Everything that the question needs, in as few round trips as there are kinds of it."""
    terms, columns = {ALL}, set()
    for leaf in leaves(question):
        if isinstance(leaf, Is):
            terms |= {term(leaf.field, value) for value in leaf.values}
        elif isinstance(leaf, Word):
            terms.add(term("word", leaf.stem))
        elif isinstance(leaf, Compare) or (isinstance(leaf, Has) and leaf.number):
            columns.add(leaf.field)
        elif isinstance(leaf, Has) and leaf.field not in MANY:
            terms.add(presence(leaf.field))
    await view.load_terms(terms)
    await view.load_columns(columns)
    for leaf in leaves(question):
        if isinstance(leaf, Like):
            await view.load_pattern(leaf.field, leaf.pattern, leaf.any_case)
        elif isinstance(leaf, Has) and leaf.field in MANY:
            await view.load_pattern(leaf.field, ANY, False)


def evaluate(view: View, question: Question) -> BitMap:
    """The versions that answer a loaded question. Not to be changed: it may be what others read, too."""
    if isinstance(question, Not):
        return view.term(ALL) - evaluate(view, question.part)
    if isinstance(question, And):
        return _all_of(view, question)
    if isinstance(question, Or):
        return union(evaluate(view, part) for part in question.parts)
    return of_leaf(view, question)


def _all_of(view: View, question: And) -> BitMap:
    """What is denied is taken away in the end, which spares its complement."""
    kept = [evaluate(view, part) for part in question.parts if not isinstance(part, Not)]
    found = BitMap.intersection(*sorted(kept, key=len)) if kept else view.term(ALL)
    for part in question.parts:
        if isinstance(part, Not):
            found = found - evaluate(view, part.part)
    return found


def of_leaf(view: View, leaf: Leaf) -> BitMap:
    """The versions that one comparison finds; looked for once a view."""
    found = view.answers.get(leaf)
    if found is None:
        found = view.answers[leaf] = _of_leaf(view, leaf)
    return found


def _of_leaf(view: View, leaf: Leaf) -> BitMap:
    if isinstance(leaf, Is):
        return union(view.term(term(leaf.field, value)) for value in leaf.values)
    if isinstance(leaf, Word):
        return view.term(term("word", leaf.stem))
    if isinstance(leaf, Like):
        return view.matching(leaf.field, leaf.pattern, leaf.any_case)
    if isinstance(leaf, Compare):
        return view.comparing(leaf.field, leaf.operator, leaf.value)
    if leaf.number:
        return view.having(leaf.field)
    return view.matching(leaf.field, ANY, False) if leaf.field in MANY else view.term(presence(leaf.field))
