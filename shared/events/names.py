"""Names that other systems' users give, and the names that URNs are made of.

A URN, a file and a URL take `Name`: lower case, digits, `.`, `_`, `-`. People call things `Credit PD (v2)`,
`team/summarise` or something with an emoji, and clients of other registries expect to find them under just that. So
the catalog keeps what they said as the asset's *title*, and makes its name from it by a rule that never gives two
titles one name.
"""

from __future__ import annotations

import re
import unicodedata

from shared.ids import sha256

LONGEST_TITLE = 500
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?")
_OTHERS = re.compile(r"[^a-z0-9._-]+")
_MARKED = re.compile(r".*-x[0-9a-f]{12}")
_SLUG = 100


def addressable(title: str) -> str:
    """The title, where it can stand in a URL. Raises ValueError for `.` and `..`.

    Clients and proxies take these two out of a path before anything else looks at it, percent-encoded or not (RFC 3986
    section 5.2.4, WHATWG URL): a prompt of that title could be made and never be asked for.
    """
    if title in (".", ".."):
        raise ValueError(f"a title cannot be {title!r}: in a URL that means a folder, so nobody could ask for it")
    return title


def name_of(title: str) -> str:
    """The name of what people call `title`: itself where it is one, else a readable part and 48 bits of its hash.

    A title that has the form of a made name (`…-x` and twelve hexadecimal digits) is hashed as well, so that nobody can
    take another title's name by writing it out.
    """
    if _NAME.fullmatch(title) and not _MARKED.fullmatch(title):
        return title
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    slug = _OTHERS.sub("-", plain).strip("-._")[:_SLUG].strip("-._")
    mark = "x" + sha256(title.encode("utf-8", "surrogatepass")).removeprefix("sha256:")[:12]
    return f"{slug}-{mark}" if slug else mark
