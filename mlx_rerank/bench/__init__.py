"""Benchmarks that every owner of a machine can run there: speed beside other libraries, memory, padding, roofline."""
