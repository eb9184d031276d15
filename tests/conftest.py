"""What every test process needs: the signals that its children are ended with."""

import signal

# A shell's background job ignores them, and what is ignored stays so in every child: sh cannot even trap it.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)
