"""Settings of the test tools."""

import hypothesis

# A slow machine is not a failure.
hypothesis.settings.register_profile("pipelab", deadline=None, print_blob=True)
hypothesis.settings.load_profile("pipelab")
