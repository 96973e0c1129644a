"""What `lstm.py` calls: the reader, the LSTM, the configurations' check and the command line."""

import os

# Must be set before TensorFlow loads; a value the user has set stays.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
