"""One file per `ift` command: flags, calls, printing."""
