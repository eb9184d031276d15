"""What every test process needs: the signals that end its children, and properties without a clock."""

import signal

from hypothesis import HealthCheck, settings

# A shell's background job ignores them, and what is ignored stays so in every child: sh cannot even trap it.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

# The rest is the profile that Hypothesis chose: with CI=true each run tries the same cases.
settings.register_profile(
    "untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")
