"""Names of the threads of the library itself."""

# How the names begin of threads that compile: nobody waits for them where a run has failed.
COMPILER = "logpi compiler"
