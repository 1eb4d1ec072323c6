"""Guards on requests and answers: what is looked for (checks), where (texts), when (guards, windows), and by whom.

    guards = Guards.of(section, brought)                    # once a snapshot; None where there is nothing to look for
    outcome = await looker.look(route, guards.input, "input", Texts(value))
    outcome.refusal, outcome.changed, outcome.notes

Whatever takes long runs in a process of its own (workers, worker); a judge is a model behind another group (judge).
"""
