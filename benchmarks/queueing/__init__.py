"""Queue of a server as a simulation, and the measurements that it is fitted to."""
