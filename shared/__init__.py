"""What all six services stand on: transport, contracts, identity, telemetry. No business rule of any of them."""
