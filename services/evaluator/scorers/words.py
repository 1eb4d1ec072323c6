"""Answers as words, normalized as SQuAD's own evaluation does it, so that figures can be held beside published ones.

P. Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, EMNLP 2016 (arXiv:1606.05250), 6.1.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(text: str) -> list[str]:
    """In lower case, without ASCII punctuation, English articles and white space."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def same(answer: str, expected: Iterable[str]) -> float:
    """1.0 where the answer has the words of one of the expected ones in their order, else 0.0."""
    said = words(answer)
    return float(any(said == words(one) for one in expected))


def overlap(answer: str, expected: Iterable[str]) -> float:
    """The harmonic mean of precision and recall over words, the best of the expected answers.

    Where one side has no words (a question without an answer), it is 1.0 if the other has none either, as in SQuAD 2.0.
    """
    said = words(answer)
    return max((_f1(said, words(one)) for one in expected), default=0.0)


def _f1(said: list[str], wanted: list[str]) -> float:
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))
