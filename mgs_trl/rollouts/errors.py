"""Why a run cannot go on generating."""


class RolloutError(RuntimeError):
    """Raised on every rank, between two optimizer steps; so the run can still be saved."""


class ServerError(RolloutError):
    """A server cannot be used any more; the message says which, and why."""


class StaleWeightsError(RolloutError):
    """The engine does not generate with the policy's weights."""
