"""What the driver needs to hand a run to Flink or Spark: Java, jars, job servers and masters."""
