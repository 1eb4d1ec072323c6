"""The deployer with a real model server."""
