"""What every test shares: how Hypothesis behaves."""

from hypothesis import settings

# No deadline: how long an example takes depends on what else the machine does. Derandomized: a run that failed fails again.
settings.register_profile("edgegw", deadline=None, derandomize=True)
settings.load_profile("edgegw")
