"""Suspicious use of a model by one caller: sketches of what it asks, judged after its answer has gone out.

Three kinds, each with a threshold of the group's own (`Guardrails.suspicion`):
- scraping: many distinct inputs within an hour, spread over the feature space more evenly than people are;
- near-duplicates: many distinct inputs within a minute that are almost one;
- boundary-probing: almost one input, again and again, with scores that go to and fro around 0.5.

What a caller's memory holds is bounded: 256 sampled inputs for the spread, 128 recent ones, 256 hashes, for at most
512 callers of a gateway. It is of this process: what is spread over several gateways is seen by each in part.
Limits: a scraper that samples like the population, many callers who share the work, and texts as scraping are not
seen; a fixed prompt with little that varies looks like near-duplicates, so such a group sets that threshold higher.
"""
