"""The folder that is put on ``PYTHONPATH`` of processes that a watched script starts."""
