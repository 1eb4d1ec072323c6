"""Personal data by Presidio's pattern recognizers, without its analyzer: no language model, and no network.

Imported by a guard's process only, and only when a guard of this kind is asked: Presidio pulls spaCy in, which takes
4 s and 110 MB. It comes with the extra: `pip install 'mintmark-platform[guards]'`.

Recognizers are asked one by one, since they need nothing of the analyzer, whose language model would find names and
places too: what has no pattern (names, addresses, professions) is not found here.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from services.router.gateway.guardrails.findings import NOTHING, Finding, Span, labels

RECOGNIZERS: dict[str, str] = {
    "CREDIT_CARD": "CreditCardRecognizer",
    "CRYPTO": "CryptoRecognizer",
    "EMAIL_ADDRESS": "EmailRecognizer",
    "IBAN_CODE": "IbanRecognizer",
    "IP_ADDRESS": "IpRecognizer",
    "MEDICAL_LICENSE": "MedicalLicenseRecognizer",
    "PHONE_NUMBER": "PhoneRecognizer",
    "UK_NHS": "NhsRecognizer",
    "URL": "UrlRecognizer",
    "US_BANK_NUMBER": "UsBankRecognizer",
    "US_DRIVER_LICENSE": "UsLicenseRecognizer",
    "US_ITIN": "UsItinRecognizer",
    "US_PASSPORT": "UsPassportRecognizer",
    "US_SSN": "UsSsnRecognizer",
}
"""What can be looked for, and whose work it is."""
MISSING = (
    "a guard of kind pii needs Presidio, which is not installed here: install the extra `guards` with "
    "`pip install 'mintmark-platform[guards]'`, or `pip install presidio-analyzer`, where the gateway runs"
)


class NotInstalledError(Exception):
    """Presidio is not here."""


@lru_cache(maxsize=64)
def _recognizers(entities: tuple[str, ...], regions: tuple[str, ...]) -> tuple[Any, ...]:
    try:
        module = importlib.import_module("presidio_analyzer.predefined_recognizers")
    except ImportError:
        raise NotInstalledError(MISSING) from None
    # tldextract, by which e-mail addresses are judged, would fetch a list of domains; it brings one along.
    tldextract: Any = importlib.import_module("tldextract")
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    made = []
    for entity in entities:
        more = {"supported_regions": regions} if entity == "PHONE_NUMBER" and regions else {}
        made.append(getattr(module, RECOGNIZERS[entity])(**more))
    return tuple(made)


def found(texts: Sequence[str], entities: tuple[str, ...], regions: tuple[str, ...], min_score: float) -> Finding:
    """Every occurrence that a recognizer is at least this sure of. Raises NotInstalledError."""
    spans = [
        Span(number, one.start, one.end, one.entity_type)
        for number, text in enumerate(texts)
        for recognizer in _recognizers(entities, regions)
        for one in recognizer.analyze(text, recognizer.supported_entities, None) or ()
        if one.score >= min_score
    ]
    return Finding(True, labels(spans), tuple(spans)) if spans else NOTHING
