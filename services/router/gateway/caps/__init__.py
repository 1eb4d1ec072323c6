"""Caps: what a request may need is reserved before it is asked, and settled by what it took.

    prices (what answers cost) -> compiled (a route's caps, and what a request needs of each) -> allowances (this
    process' share of each, spent without asking anybody) -> lessor (shares from Postgres, ahead of need)

What all gateways hand out together never exceeds a cap: a share is booked in Postgres as taken before it is spent.
"""
