"""Ramps: plans by which a challenger's share of the traffic grows, is analysed, and ends in promotion or rollback.

A plan is data (`plan`), what happens next is a pure function (`machine`), weights by results are another (`bandit`).
"""
