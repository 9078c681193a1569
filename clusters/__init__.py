"""Real clusters on one machine, for the tests, the benchmarks and who wants to try them.

`FlinkCluster` and `SparkCluster` start standalone clusters of processes of their own, bound to the
loopback, and stop them; `clusters.jars` gets what they are made of through Maven.
"""
