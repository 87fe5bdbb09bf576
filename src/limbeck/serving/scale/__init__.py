"""Many servers as one: replicas on the machines of a cluster, behind one address."""
