"""What a run leaves behind: the artifact, and state for the next attempt; written, kept in a store, pushed elsewhere.

    keeping ─▶ snapshots                      the output folder, and its copies in a store during the run
    finished                                  results of an earlier attempt
    artifact, merge ─▶ model_card             the tuned model, written atomically
    loss_plot                                 its loss curves
    pushes ─▶ registry ─▶ model_pack          pushes to an OCI registry
           └▶ hub                             or to a hub

Files that quote the data stay in the job's own storage: pushes omit them.
"""
