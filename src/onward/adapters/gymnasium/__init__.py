"""Gymnasium's environments as streams to learn from, and tasks of ours as Gymnasium's environments."""

from onward.errors import needs

try:
    import gymnasium  # noqa: F401
except ImportError as error:
    raise ImportError(needs(__name__, "gymnasium")) from error

from onward.adapters.gymnasium.task_env import TaskEnv
from onward.adapters.gymnasium.training import Trained, train

__all__ = ["TaskEnv", "Trained", "train"]
