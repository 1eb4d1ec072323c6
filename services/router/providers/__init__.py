"""Providers as the control plane keeps them: how they are asked, and their sealed keys, which it cannot show."""
