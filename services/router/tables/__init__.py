"""Inference tables beside the traffic: searched, viewed, archived, erased from, deleted with their group."""
