"""Several processes that train one model together, started by mpiexec. Needs mpi4py (extra toynn[mpi])."""
