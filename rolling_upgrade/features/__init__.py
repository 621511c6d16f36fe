"""The operator tasks, one package each, and the modules `operation` and `apply`, which several of them share."""
