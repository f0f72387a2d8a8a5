"""The scripts in cases/ and healthy/ are run, never imported."""

collect_ignore_glob = ["cases/*/*.py", "healthy/*.py"]
