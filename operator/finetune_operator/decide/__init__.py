"""Pure decisions: (spec, observed, now) to status, conditions and actions. No I/O, no clock, no asyncio.

Each layer imports only those below it:

    cloud_job                   a job at a provider: submitted, evaluated, paid for
    deployment   model_release  what serves; deleting a model with its weights
    model                       which version is active
    leftovers                   what could not be deleted yet
    job                         a job's attempts, its status, the versions it makes
    pods   connection           what a pod's status says; what a connection allows and shows
    conditions                  Ready, Reconciling, Stalled
"""
