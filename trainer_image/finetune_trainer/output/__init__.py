"""What a run leaves: the artifact, and what a next attempt needs; written, kept in a store, pushed elsewhere.

    keeping ─▶ snapshots                      the output folder, and its copies in a store while the run goes on
    finished                                  what an earlier attempt has finished
    artifact, merge ─▶ model_card             the model that was tuned, whole or not at all
      loss_plot                               its curves
    pushes ─▶ registry ─▶ model_pack          it goes to an OCI registry as well,
           └▶ hub                             or to a hub

What quotes the data stays in the job's own place: pushes leave it out.
"""
