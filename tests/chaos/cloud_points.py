"""Every fault point at providers, and of what holds an object until a provider has let go of it."""

from tests.chaos.walk import Fault

POINTS: dict[str, tuple[str, ...]] = {
    "is_served at openai": ("files.create", "fine_tuning.jobs.create", "files.delete", "models.delete"),
}
FAULTS = tuple(
    Fault(life, point, position)
    for position in ("after", "before")
    for life, points in POINTS.items()
    for point in points
)
QUICK = {Fault("is_served at openai", "fine_tuning.jobs.create", "after")}
