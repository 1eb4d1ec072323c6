"""The deployer: takes an approved version, builds a signed bundle of it and puts it onto a target that serves it."""
