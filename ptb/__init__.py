"""What `lstm.py` calls: the reader, the LSTM, the run in its folder, the trained model at work."""
