"""What all tests start from."""

import signal

# a shell starts what runs in the background with these ignored, which every child would inherit
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
