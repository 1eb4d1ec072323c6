"""Toxicity and prompt injection by words and phrases: fast, offline, explainable, and no match for a determined person.

Both give a score from 0 to 1, 1 - product(1 - weight) over what was found, each phrase counted once a text.

Their limits, so that nobody relies on more:
- English only. Irony, quotation and reported speech are not understood: a news text about a threat scores as one.
- Paraphrase passes: whoever insults or persuades in other words is not found. So do images and encodings (base64).
- Spelling is folded (case, accents, full-width and look-alike letters, digits for letters, letters apart by spaces or
  dots, zero-width characters); other disguises pass.
A guard of kind `judge` puts a model in their place.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from services.router.gateway.guardrails.findings import NOTHING, Finding, Span

Weighted = tuple[tuple[str, float], ...]

# Patterns on folded text, each with how much one occurrence says by itself.
TOXIC: Weighted = (
    (r"(?:i|we)(?: am| are|'m|'re)? (?:will|shall|am|are|'ll|gonna|going to)?\s*(?:going to |gonna )?"
     r"(?:kill|murder|rape|stab|shoot|hang|strangle|burn) (?:you|u|him|her|them|your \w+)", 0.95),
    (r"(?:go )?(?:kill|hang|shoot) (?:your ?self|urself)|\bkys\b", 0.95),
    (r"you (?:should|deserve to|ought to|must) (?:die|be shot|be hanged|be killed|suffer)", 0.9),
    (r"\b(?:gas|exterminate|deport|lynch) (?:the|all|these|those) \w+", 0.8),
    (r"\bi(?:'ll| will) (?:find|hunt|hurt|beat|destroy) you", 0.8),
    (r"\b(?:n[i1]gg(?:er|a)s?|k[i1]kes?|ch[i1]nks?|sp[i1]cs?|f[a4]gg?[o0]ts?|tr[a4]nn(?:y|ies)|g[o0]{2}ks?|wetbacks?|"
     r"towelheads?|ragheads?)\b", 0.95),
    (r"\b(?:subhuman|untermensch\w*|vermin|cockroach(?:es)?) (?:like|such as) (?:you|them|those)", 0.8),
    (r"\b(?:mother ?fuck\w*|cunts?|wh[o0]res?|sluts?|bitch(?:es)?)\b", 0.65),
    (r"\b(?:you|u)(?:'re| are|r)? (?:a |an |such an? |all )?(?:\w+ )?(?:fucking |stupid |dumb |worthless |useless )?"
     r"(?:idiots?|morons?|imbeciles?|retards?|retarded|scum|trash|garbage|pigs?|parasites?|losers?|pathetic|disgusting|"
     r"worthless|stupid|dumbass|asshole|bastards?|filth|vermin)\b", 0.7),
    (r"\b(?:fuck|screw) (?:you|off|u|them|him|her)\b|\bf u\b", 0.65),
    (r"\b(?:shut (?:the (?:fuck|hell) )?up)\b", 0.4),
    (r"\b(?:idiots?|morons?|imbeciles?|retards?|retarded|assholes?|bastards?|dumbass(?:es)?|scumbags?)\b", 0.35),
    (r"\b(?:fuck\w*|shit\w*|bullshit|crap)\b", 0.2),
    (r"\bi (?:hate|despise|loathe) (?:you|all|these|those)\b", 0.35),
)  # fmt: skip

INJECTION: Weighted = (
    (r"\b(?:ignore|disregard|forget|overlook|bypass|override|neglect|do not (?:follow|obey)|don't (?:follow|obey)) "
     r"(?:\w+ ){0,4}?(?:previous|prior|above|earlier|preceding|foregoing|existing|original|initial|system|your|my|the|"
     r"all|any)(?: \w+){0,3}? (?:instructions?|prompts?|rules?|directions?|directives?|guidelines?|commands?|policies|"
     r"policy|context|constraints?|restrictions?|training|programming)\b", 0.9),
    (r"\bforget (?:everything|all)(?: that| what)?(?: (?:you|i|we))?(?: \w+){0,3} (?:said|told|were|was|know|learned|"
     r"above|before)\b", 0.75),
    (r"\b(?:reveal|show|print|repeat|output|display|tell me|give me|leak|dump|expose|recite|what (?:is|are|was|were)) "
     r"(?:\w+ ){0,4}?(?:system|initial|hidden|secret|original|developer|pre) ?-?(?:prompts?|instructions?|messages?|"
     r"rules?)\b", 0.8),
    (r"\b(?:repeat|print|output|copy) (?:\w+ ){0,3}(?:everything|all|the (?:text|words)) (?:above|before|preceding)\b",
     0.75),
    (r"\b(?:you are|you're|act as|pretend (?:to be|you are)|become|roleplay as|simulate)(?: now)? (?:\w+ ){0,3}?"
     r"(?:dan|stan|dude|jailbroken|unrestricted|unfiltered|uncensored|evil|amoral)\b", 0.85),
    (r"\bdo anything now\b|\bjail ?break(?:ed|ing)?\b|\b(?:developer|god|debug|sudo|admin|root|maintenance) mode"
     r"(?: (?:on|enabled|activated|unlocked))?\b", 0.65),
    (r"\b(?:without|no|free (?:of|from)|remove|disable|turn off) (?:\w+ ){0,3}?(?:ethical|moral|safety|content|"
     r"openai|anthropic)(?: \w+){0,2} (?:guidelines?|restrictions?|filters?|limitations?|policies|policy|guardrails?|"
     r"checks?|constraints?)\b", 0.75),
    (r"\b(?:new|updated|real|actual|true) (?:system )?(?:instructions?|prompts?|task|rules?)"
     r"(?: (?:is|are|follow\w*))?\s*:", 0.7),
    (r"<\|?(?:im_start|im_end|system|endoftext|start_header_id|end_header_id|eot_id)\|?>|\[/?inst\]|<</?sys>>", 0.9),
    (r"(?:^|\n)\s*#{0,4}\s*(?:system|assistant|developer)(?: (?:prompt|message|instructions?))?\s*:", 0.6),
    (r"\bend of (?:the )?(?:system )?(?:prompt|instructions?|context|document|user input)\b", 0.5),
    (r"\byou (?:must|will|have to|shall) (?:now )?(?:comply|obey|not refuse|never refuse|always answer)\b", 0.45),
    (r"\b(?:this is|i am|i'm) (?:\w+ ){0,2}?(?:your (?:developer|creator|administrator|owner)|an? (?:openai|anthropic) "
     r"(?:employee|engineer|developer))\b", 0.55),
    (r"\b(?:send|post|exfiltrate|forward|upload|leak) (?:\w+ ){0,5}?(?:to|at) https?://", 0.5),
    (r"!\[[^\]]{0,80}\]\(https?://[^)]{0,200}(?:\{|\$|%7b|=\s*<)", 0.7),
)  # fmt: skip

# Letters of other scripts that look like Latin ones, and digits and signs that stand for letters within words.
_LOOKS = str.maketrans("аеорсухіѕјԁɡһӏıΑΒΕΖΗΙΚΜΝΟΡΤΥΧαορτυν", "aeopcyxisjdghliabezhikmnoptyxaoptyv")
_ZERO_WIDTH = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e"))
_LEET = str.maketrans("013457@$", "oieastas")
_LEET_WORD = re.compile(r"(?<![\w$@])(?=[\w$@]*[a-zA-Z])(?=[\w$@]*[013457@$])[\w$@]{3,30}(?![\w$@])")
_APART = re.compile(r"(?<![^\W_])(?:[^\W\d_][ .\-_*]){3,30}[^\W\d_](?![^\W_])")
_SPACE = re.compile(r"[^\S\n]")


@dataclass(frozen=True, slots=True)
class Scorer:
    label: str
    what: str
    patterns: tuple[tuple[re.Pattern[str], float], ...]

    def __call__(self, texts: Sequence[str], threshold: float) -> Finding:
        """Trips when the worst text's score is at or above the threshold. Its spans are of every text that is."""
        worst, spans = 0.0, []
        for number, text in enumerate(texts):
            score, found = self.score(text)
            worst = max(worst, score)
            if score >= threshold:
                spans += [Span(number, start, end, self.label) for start, end in found]
        if worst < threshold:
            return Finding(False, score=round(worst, 3)) if worst else NOTHING
        reason = f"{self.what} scored {worst:.2f}, at or above {threshold:g}"
        return Finding(True, reason, tuple(spans), round(worst, 3))

    def score(self, text: str) -> tuple[float, list[tuple[int, int]]]:
        """The score of one text, and where what made it stands."""
        innocent, found = 1.0, []
        for form, places in _forms(text):
            hits = [0.0] * len(self.patterns)
            for number, (pattern, weight) in enumerate(self.patterns):
                for match in pattern.finditer(form):
                    if match.end() > match.start():
                        hits[number] = weight
                        found.append((places[match.start()], places[match.end() - 1] + 1))
            left = 1.0
            for weight in hits:
                left *= 1 - weight
            innocent = min(innocent, left)
        return 1 - innocent, found


def _forms(text: str) -> list[tuple[str, list[int]]]:
    """The text folded, and again without disguises where there are any; each with every character's origin."""
    folded, places = _folded(text)
    forms = [(folded, places)]
    plain = _LEET_WORD.sub(lambda word: word.group().translate(_LEET), folded)  # as long as it was
    if plain != folded:
        forms.append((plain, places))
    if _APART.search(folded):
        letters: list[str] = []
        origins: list[int] = []
        place = 0
        for word in _APART.finditer(folded):
            letters.append(folded[place : word.start()])
            origins += places[place : word.start()]
            kept = range(word.start(), word.end(), 2)
            letters += [folded[at] for at in kept]
            origins += [places[at] for at in kept]
            place = word.end()
        letters.append(folded[place:])
        origins += places[place:]
        forms.append(("".join(letters), origins))
    return forms


def _folded(text: str) -> tuple[str, list[int]]:
    """Lower case without accents, look-alikes and zero-width characters; and each character's place in the text."""
    if text.isascii():
        return _SPACE.sub(" ", text.lower()), list(range(len(text)))
    made: list[str] = []
    places: list[int] = []
    for place, letter in enumerate(text):
        for one in unicodedata.normalize("NFKD", letter.translate(_ZERO_WIDTH)).translate(_LOOKS).lower():
            if not unicodedata.combining(one):
                made.append("'" if one in "’ʼ`" else one)
                places.append(place)
    return _SPACE.sub(" ", "".join(made)), places


def _compiled(patterns: Iterable[tuple[str, float]]) -> tuple[tuple[re.Pattern[str], float], ...]:
    return tuple((re.compile(pattern), weight) for pattern, weight in patterns)


@lru_cache(maxsize=256)
def toxicity(terms: tuple[str, ...] = ()) -> Scorer:
    """`terms` are the operator's own, as whole words, each weighing 1."""
    own = [(rf"(?<!\w){re.escape(_folded(term)[0])}(?!\w)", 1.0) for term in terms]
    return Scorer("TOXICITY", "toxicity", _compiled([*TOXIC, *own]))


@lru_cache(maxsize=1)
def prompt_injection() -> Scorer:
    return Scorer("PROMPT_INJECTION", "prompt injection", _compiled(INJECTION))
