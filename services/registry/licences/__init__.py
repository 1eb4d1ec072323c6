"""Licences and what they ask: a table of terms, expressions, what is passed on along bases, and bills of material."""
