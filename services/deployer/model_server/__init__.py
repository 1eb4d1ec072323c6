"""Serves models of signed bundles over the Open Inference Protocol v2: many small ones in one process.

`python -m services.deployer.model_server --repository FOLDER --trust trust.json` is a process of its own. It takes
bundles that the deployer signed, verifies signature and checksums before it loads one, explains every prediction
with exact SHAP values or says why it cannot, and remembers what was loaded across a kill -9.
"""
