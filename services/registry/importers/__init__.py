"""What comes from other registries: what they say in one form, what it changes here, and the map from there to here.

Who reads those registries is the command line (sdk/mintmark/importers), where the credentials for them are.
"""
