"""A learner that answers over HTTP."""
