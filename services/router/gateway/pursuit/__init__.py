"""What is done so that a request gets an answer: candidates in their order, attempts, breakers, budget, hedging.

`plan` is what a group's section `routing` says, compiled with the snapshot; `memory` what a gateway process knows of
the group's targets from one request to the next; `pursuit` one request's attempts.
"""
